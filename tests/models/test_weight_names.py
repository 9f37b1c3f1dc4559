"""Names of arrays in published files."""

import functools
import math

import numpy as np
import pytest

from tapjax import checkpoints
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.weight_names import list_haiku_sources
from tapjax.models.weight_names import list_torch_sources
from tests.support import weights


def list_manifests():
  """Lists presets with each of their published layouts."""
  for name in registry.PRESETS:
    if (page := registry.get_preset(name).page) is None:
      continue
    if not name.startswith('locotrack_'):
      if page.endswith('.npy'):
        yield name, f'tapir/manifest_{name}.json'
      continue
    variant = name.removeprefix('locotrack_')
    yield name, f'locotrack/manifest_{variant}.json'
    if not variant.startswith('efficientnet'):
      yield name, f'locotrack/manifest_jax_{variant}.json'


@functools.cache
def list_own_shapes(name):
  preset = registry.get_preset(name)
  functions = preset.architecture.make_functions(preset.config)
  return flatten_params(describe_params(functions))


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'path'), tuple(list_manifests()), ids=str)
def test_published_names_cover_the_manifest(name, path, reference):
  """Each array of the published file is used once, with its shape."""
  preset = registry.get_preset(name)
  ours = list_own_shapes(name)
  names = list(preset.architecture.list_weight_names(preset.config))
  manifest = weights.load_manifest(reference / path)
  published = {entry['name']: tuple(entry['shape']) for entry in manifest}
  if any(key.startswith('params|') for key in published):
    sources = list_haiku_sources(names)
  else:
    sources = list_torch_sources(names)
    published = {
        key.removeprefix('model.'): shape for key, shape in published.items()
    }
  assert sources.keys() == ours.keys()
  used = {source.name for source in sources.values()}
  assert used <= published.keys()
  assert all(
      checkpoints.is_ignored(key, preset.architecture.ignored)
      for key in published.keys() - used
  )
  for key, source in sources.items():
    shape = published[source.name][source.leading :]
    if source.axes is not None:
      shape = tuple(shape[axis] for axis in source.axes)
    assert ours[key].shape == shape, key
  assert preset.num_parameters == sum(
      np.prod(array.shape, dtype=int)
      for key, array in ours.items()
      if key.startswith('params|')
  )


@pytest.mark.parametrize(
    ('name', 'manifest'),
    [
        ('pips_plus_plus', 'pips2/manifest_pips2.json'),
        *(
            (
                f'point_transformer_{backbone}',
                f'point_transformer/manifest_{backbone}.json',
            )
            for backbone in ('resnet18', 'resnet34', 'resnet50')
        ),
    ],
)
def test_torch_names_are_those_of_the_manifest(name, manifest, reference):
  """Each array of a file that is published for PyTorch alone is used once."""
  preset = registry.get_preset(name)
  functions = preset.architecture.make_functions(preset.config)
  ours = flatten_params(describe_params(functions))
  sources = list_torch_sources(
      preset.architecture.list_weight_names(preset.config)
  )
  published = {
      entry['name']: tuple(entry['shape'])
      for entry in weights.load_manifest(reference / manifest)
      if not checkpoints.is_ignored(entry['name'], preset.architecture.ignored)
  }
  assert sources.keys() == ours.keys()
  assert {source.name for source in sources.values()} == published.keys()
  for key, source in sources.items():
    axes = source.axes or range(len(ours[key].shape))
    assert ours[key].shape == tuple(published[source.name][a] for a in axes)
  assert preset.num_parameters == sum(
      math.prod(published[source.name])
      for key, source in sources.items()
      if key.startswith('params|')
  )


@pytest.mark.parametrize('name', ['tapir', 'bootstapir', 'causal_bootstapir'])
def test_torch_names_cover_the_manifest(name, reference):
  preset = registry.get_preset(name)
  names = list(preset.architecture.list_weight_names(preset.config))
  manifest = weights.load_manifest(
      reference / 'tapir' / f'manifest_{name}_torch.json'
  )
  torch_sources = list_torch_sources(names)
  haiku_sources = list_haiku_sources(names)
  from_torch = {
      source.name: haiku_sources[ours].name
      for ours, source in torch_sources.items()
  }
  assert from_torch == {entry['name']: entry['haiku'] for entry in manifest}
