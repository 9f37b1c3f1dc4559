"""Torchvision's weights in the place of random ones."""

import dataclasses
import re

import numpy as np
import pytest

from tapjax import checkpoints
from tapjax.models import registry
from tapjax.models.contract import flatten_params
from tapjax.models.point_transformer.config import RESNET18
from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tapjax.models.point_transformer.network import BACKBONE_PREFIX
from tapjax.models.point_transformer.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tapjax.models.weight_names import list_torchvision_names
from tapjax.training import backbones
from tests.support import golden
from tests.support import torch_format
from tests.support import weights

SMALL = dataclasses.replace(
    RESNET18,
    resolution=(32, 32),
    backbone_blocks=(1, 1),
    backbone_channels=4,
    channels=8,
    num_blocks=1,
    num_heads=2,
)


def to_torchvision(name):
  """From the training program's names to those of torchvision."""
  name = name.removeprefix('feature_extractor.backbone.')
  name = re.sub(r'^0\.', 'conv1.', name)
  name = re.sub(r'^1\.', 'bn1.', name)
  return re.sub(r'^(\d)\.', lambda m: f'layer{int(m[1]) - 3}.', name)


def write_flat(path, arrays):
  """Writes a state dict as torchvision does, with a classifier."""
  archive = torch_format.Archive()
  arrays = arrays | {
      'fc.weight': np.ones((10, 4), np.float32),
      'fc.bias': np.ones(10, np.float32),
  }
  return archive.write(
      path, {name: archive.add(array) for name, array in arrays.items()}
  )


def make_small(folder, **changes):
  """A small tracker's parameters, and a file of such a network."""
  params = golden.make_random_params(PointTransformerFunctions(SMALL))
  names = list_torchvision_names(
      BACKBONE_PREFIX, SMALL.resnet, ('conv1', 'bn1'), ['layer1.', 'layer2.']
  )
  sources = list_torch_sources(names)
  generator = np.random.default_rng(3)
  arrays = {}
  for ours, source in sources.items():
    shape = flatten_params(params)[ours].shape
    if source.axes is not None:
      shape = tuple(np.take(shape, np.argsort(source.axes)))
    arrays[source.name] = generator.normal(size=shape).astype(np.float32)
  arrays['bn1.num_batches_tracked'] = np.asarray(3)
  path = write_flat(folder / 'resnet.pth', arrays | changes)
  return params, sources, arrays, path


def test_backbone_is_replaced_and_nothing_else(tmp_path):
  params, sources, arrays, path = make_small(tmp_path)
  loaded = backbones.load_backbone(
      params, BACKBONE_PREFIX, SMALL.resnet, str(path)
  )
  before, after = flatten_params(params), flatten_params(loaded)
  assert before.keys() == after.keys()
  for name, array in after.items():
    if (source := sources.get(name)) is None:
      np.testing.assert_array_equal(array, before[name])
      continue
    expected = arrays[source.name]
    if source.axes is not None:
      expected = expected.transpose(source.axes)
    np.testing.assert_array_equal(array, expected)
  assert len(sources) < len(before)


def test_files_that_do_not_fit(tmp_path, monkeypatch):
  params, *_, path = make_small(
      tmp_path, **{'layer1.0.conv1.weight': np.zeros((4, 4, 1, 1), np.float32)}
  )

  def load(source, config=SMALL.resnet):
    return backbones.load_backbone(params, BACKBONE_PREFIX, config, source)

  with pytest.raises(ValueError, match=r'layer1\.0\.conv1\.weight: exp'):
    load(str(path))
  with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
    load(str(tmp_path / 'absent.pth'))
  with pytest.raises(ValueError, match='published for ResNet-18, 34 and 50'):
    load(backbones.IMAGENET)

  asked = []

  def fetch(file):
    asked.append(file.url)
    other = tmp_path / file.url.rpartition('/')[2]
    other.write_bytes(b'something else')
    return other

  monkeypatch.setattr(checkpoints, 'fetch', fetch)
  with pytest.raises(checkpoints.DownloadError, match='begins with f37072fd'):
    load(backbones.IMAGENET, RESNET18.resnet)
  assert asked == ['https://download.pytorch.org/models/resnet18-f37072fd.pth']


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['resnet18', 'resnet50'])
def test_torchvision_layout_gives_the_published_network(
    variant, reference, tmp_path
):
  """The same weights, once as the training program names them."""
  manifest = reference / 'point_transformer' / f'manifest_{variant}.json'
  arrays = {
      name: array
      for name, array in weights.fill(
          weights.load_manifest(manifest), 4
      ).items()
      if name.startswith('feature_extractor.backbone.')
  }
  path = write_flat(
      tmp_path / 'backbone.pth',
      {to_torchvision(name): array for name, array in arrays.items()},
  )
  config = registry.get_preset(f'point_transformer_{variant}').config
  random = golden.make_random_params(PointTransformerFunctions(config))
  loaded = flatten_params(
      backbones.load_backbone(random, BACKBONE_PREFIX, config.resnet, str(path))
  )
  names = list_weight_names(config)
  used = set()
  for ours, source in list_torch_sources(names).items():
    if source.name in arrays:
      expected = arrays[source.name]
      if source.axes is not None:
        expected = expected.transpose(source.axes)
      np.testing.assert_array_equal(loaded[ours], expected)
      used.add(source.name)
  assert arrays.keys() - used == {
      name for name in arrays if name.endswith('num_batches_tracked')
  }
