"""ImageNet weights of residual networks, for initialization.

Files have torchvision's layout; the classifier is left out.
"""

from collections.abc import Mapping
import hashlib
import pathlib

import jax
import jax.numpy as jnp

from tapjax import checkpoints
from tapjax.checkpoints import WeightFile
from tapjax.models.contract import flatten_params
from tapjax.models.contract import Params
from tapjax.models.contract import unflatten_params
from tapjax.models.weight_names import list_torch_sources
from tapjax.models.weight_names import list_torchvision_names
from tapjax.nn.torchvision_resnet import ResNetConfig

_FOLDER = 'https://download.pytorch.org/models/'
# Files by kind and numbers of blocks. Names end in the first digits of the
# SHA-256 of the content.
_FILES: Mapping[tuple[str, tuple[int, ...]], str] = {
    ('basic', (2, 2, 2, 2)): 'resnet18-f37072fd.pth',
    ('basic', (3, 4, 6, 3)): 'resnet34-b627a593.pth',
    ('bottleneck', (3, 4, 6, 3)): 'resnet50-0676ba61.pth',
}
_CHANNELS = 64
_IGNORED = ('fc.*', '*.num_batches_tracked')
# Source name of the published file of a network.
IMAGENET = 'imagenet'


def fetch_backbone(config: ResNetConfig) -> pathlib.Path:
  """Returns the path of torchvision's file, downloaded on first use.

  Raises:
    ValueError: there is no file for this network.
    DownloadError: the download failed, or the SHA-256 of the file is wrong.
  """
  name = _FILES.get((config.block, config.blocks))
  if name is None or config.channels != _CHANNELS:
    raise ValueError(
        'ImageNet weights are published for ResNet-18, 34 and 50 of 64 '
        f'channels; got {config} - pass a file, or None to begin at random'
    )
  path = checkpoints.fetch(WeightFile(_FOLDER + name, size=None, sha256=None))
  expected = path.stem.partition('-')[2]
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  if not digest.startswith(expected):
    raise checkpoints.DownloadError(
        f'{path} must have a SHA-256 that begins with {expected}; got {digest} '
        '- delete it and try again'
    )
  return path


def load_backbone(
    params: Params, prefix: str, config: ResNetConfig, source: str
) -> Params:
  """Returns parameters with the weights of a residual network from a file.

  Args:
    params: parameters of a tracker with a `TorchvisionResNet`.
    prefix: prefix of the network's modules, such as 'tracker/~/backbone/~/'.
    config: config of the network.
    source: `IMAGENET`, for the published weights, or a file.

  Raises:
    ValueError: the file is of another network.
    FileNotFoundError: the file does not exist.
  """
  path = fetch_backbone(config) if source == IMAGENET else pathlib.Path(source)
  file = checkpoints.read_checkpoint(path)
  names = list_torchvision_names(
      prefix,
      config,
      ('conv1', 'bn1'),
      [f'layer{stage + 1}.' for stage in range(len(config.blocks))],
  )
  sources = list_torch_sources(names)
  arrays = flatten_params(params)
  loaded = checkpoints.convert_arrays(
      file.arrays,
      sources,
      {name: arrays[name].shape for name in sources},
      ignored=_IGNORED,
      origin=str(path),
  )
  return unflatten_params(arrays | jax.tree.map(jnp.asarray, loaded))
