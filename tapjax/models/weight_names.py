"""Names of a tracker's arrays in published files."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tapjax.checkpoints.conversion import Source
from tapjax.nn.torchvision_resnet import list_stages
from tapjax.nn.torchvision_resnet import ResNetConfig

Kind = Literal[
    'attention',
    'batch_norm',
    'conv1d',
    'conv2d',
    'conv2d_bias',
    'conv3d_flat',
    'frozen_norm',
    'level_embeddings',
    'linear',
    'norm',
    'running_norm',
    'scale',
]


class WeightName(NamedTuple):
  """One module: what it holds, our name and the published ones.

  `haiku` is None where the published Haiku name is ours, and `torch` where no
  PyTorch file was published.
  """

  kind: Kind
  ours: str
  haiku: str | None = None
  torch: str | None = None


class _Array(NamedTuple):
  """One array of a module: its name in Haiku and in PyTorch files."""

  haiku: str
  torch: str = ''
  torch_axes: tuple[int, ...] | None = None
  haiku_leading: int = 0
  collection: Literal['params', 'state'] = 'params'


_ARRAYS: dict[Kind, tuple[_Array, ...]] = {
    'attention': (
        _Array('w', 'in_proj_weight', (1, 0)),
        _Array('b', 'in_proj_bias'),
    ),
    'batch_norm': (_Array('scale'), _Array('offset')),
    'conv1d': (_Array('w', 'weight', (2, 1, 0)), _Array('b', 'bias')),
    'conv2d': (_Array('w', 'weight', (2, 3, 1, 0)),),
    'conv2d_bias': (_Array('w', 'weight', (2, 3, 1, 0)), _Array('b', 'bias')),
    'conv3d_flat': (_Array('w', haiku_leading=1), _Array('b')),
    'frozen_norm': (
        _Array('scale', 'weight', collection='state'),
        _Array('offset', 'bias', collection='state'),
        _Array('mean', 'running_mean', collection='state'),
        _Array('variance', 'running_var', collection='state'),
    ),
    'level_embeddings': (_Array('level_embeddings', 'level_embed'),),
    'linear': (_Array('w', 'weight', (1, 0)), _Array('b', 'bias')),
    'norm': (_Array('scale', 'weight'), _Array('offset', 'bias')),
    'scale': (_Array('scale', 'weight'),),
    'running_norm': (
        _Array('scale', 'weight'),
        _Array('offset', 'bias'),
        _Array('mean', 'running_mean', collection='state'),
        _Array('variance', 'running_var', collection='state'),
    ),
}
_AVERAGES = tuple(
    (average, array)
    for average in ('mean_ema', 'var_ema')
    for array in ('average', 'counter', 'hidden')
)


def list_haiku_sources(names: Iterable[WeightName]) -> dict[str, Source]:
  """Returns where a published Haiku file keeps each of our arrays."""
  sources = {}
  for name in names:
    published = name.haiku or name.ours
    for array in _ARRAYS[name.kind]:
      collection = array.collection
      sources[f'{collection}|{name.ours}|{array.haiku}'] = Source(
          f'{collection}|{published}|{array.haiku}', leading=array.haiku_leading
      )
    if name.kind == 'batch_norm':
      for average, kept in _AVERAGES:
        sources[f'state|{name.ours}/~/{average}|{kept}'] = Source(
            f'state|{published}/~/{average}|{kept}'
        )
  return sources


def list_torch_sources(names: Iterable[WeightName]) -> dict[str, Source]:
  """Returns where a published PyTorch file keeps each of our arrays.

  Empty for a tracker without PyTorch files.
  """
  return {
      f'{array.collection}|{name.ours}|{array.haiku}': Source(
          f'{name.torch}.{array.torch}', array.torch_axes
      )
      for name in names
      if name.torch is not None
      for array in _ARRAYS[name.kind]
  }


def make_haiku_name(name: str, index: int) -> str:
  """Returns Haiku's name for a module made after `index` like it."""
  return f'{name}_{index}' if index else name


def list_resnet_names(
    prefix: str, torch_prefix: str, num_groups: int
) -> Iterator[WeightName]:
  """Lists the modules of a `ResNet` of two blocks a group."""
  yield WeightName(
      'conv2d', prefix + 'initial_conv', torch=torch_prefix + 'initial_conv'
  )
  for group in range(num_groups):
    for block in range(2):
      ours = f'{prefix}block_group_{group}/~/block_{block}/~/'
      torch = f'{torch_prefix}block_groups.{group}.blocks.{block}.'
      for i in range(2):
        yield WeightName('conv2d', f'{ours}conv_{i}', torch=f'{torch}conv_{i}')
        yield WeightName(
            'norm', f'{ours}instancenorm_{i}', torch=f'{torch}bn_{i}'
        )
      if block == 0:
        yield WeightName(
            'conv2d', ours + 'shortcut_conv', torch=torch + 'proj_conv'
        )


def list_cost_volume_names(
    prefix: str, convolution: Kind, torch_prefix: str | None = None
) -> Iterator[WeightName]:
  """Lists the modules of a `CostVolumeHead` below a module path."""
  layers: tuple[tuple[Kind, str, str, str], ...] = (
      (convolution, 'hidden', 'cost_volume_regression_1', 'hid1'),
      (convolution, 'heatmap', 'cost_volume_regression_2', 'hid2'),
      (convolution, 'pooled', 'cost_volume_occlusion_1', 'hid3'),
      ('linear', 'mixed', 'cost_volume_occlusion_2', 'hid4'),
      ('linear', 'logits', 'occlusion_out', 'occ_out'),
  )
  for kind, name, haiku, torch in layers:
    yield WeightName(
        kind,
        f'{prefix}cost_volume/~/{name}',
        prefix + haiku,
        None if torch_prefix is None else torch_prefix + torch,
    )


def list_torchvision_names(
    prefix: str,
    config: ResNetConfig,
    torch_stem: tuple[str, str],
    torch_stages: Sequence[str],
) -> Iterator[WeightName]:
  """Lists the modules of a `TorchvisionResNet` below a module path.

  PyTorch files differ in what they call the stem's convolution and norm, and in
  the prefix of each stage.
  """
  norm: Kind = 'running_norm' if config.norm == 'batch' else 'frozen_norm'
  layers = [('stem', *torch_stem)]
  stages = zip(list_stages(config), torch_stages, strict=True)
  for i, (blocks, torch_stage) in enumerate(stages):
    for j, block in enumerate(blocks):
      ours, torch = f'stage_{i}_block_{j}/~/', f'{torch_stage}{j}.'
      layers += [
          (f'{ours}layer_{k}', f'{torch}conv{k + 1}', f'{torch}bn{k + 1}')
          for k in range(len(block.layers))
      ]
      if block.shortcut is not None:
        torch += 'downsample.'
        layers.append((f'{ours}shortcut', f'{torch}0', f'{torch}1'))
  for layer, torch_convolution, torch_norm in layers:
    yield WeightName(
        'conv2d', f'{prefix}{layer}/~/conv', torch=torch_convolution
    )
    yield WeightName(norm, f'{prefix}{layer}/~/norm', torch=torch_norm)
