"""Loading by name: presets, their settings, and the names in their files."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

import tapjax
from tapjax import checkpoints
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.weight_names import list_haiku_sources
from tapjax.models.weight_names import list_torch_sources
from tests.support import golden


def test_resolution_is_a_setting(tapnet_file):
  tracker = tapjax.load('tapnet', checkpoint=tapnet_file, resolution=(64, 128))
  assert tracker.functions.resolution == (64, 128)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'name': 'tapirr'}, 'did you mean tapir'),
        ({'name': 'TAPIR-Tiny'}, 'did you mean tapir_tiny'),
        ({'name': 'w/tapir.npy'}, "file of weights, pass checkpoint='w/tapir"),
        ({'resolution': (0, 4)}, r'resolution must be \(height, width\)'),
        ({'resolution': (64,)}, r'resolution must be \(height, width\)'),
        ({'resolution': (60, 64)}, 'multiples of 8'),
        ({'temperatur': 3.0}, 'did you mean temperature'),
        ({'channels': 3}, 'channels must be'),
    ],
    ids=str,
)
def test_bad_arguments(tapnet_file, arguments, message):
  if arguments and 'name' not in arguments:
    arguments = {'name': 'tapnet', 'checkpoint': tapnet_file, **arguments}
  with pytest.raises(ValueError, match=message):
    tapjax.load(**arguments)


def test_missing_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nothing\.npy'):
    tapjax.load('tapnet', checkpoint=tmp_path / 'nothing.npy')


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


@pytest.mark.parametrize(('name', 'path'), tuple(list_manifests()), ids=str)
def test_published_names_cover_the_manifest(name, path, reference):
  """Each array of the published file is used once, with its shape."""
  weights = golden.load_weights_module(reference)
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
  weights = golden.load_weights_module(reference)
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


def test_files_without_a_known_address_are_asked_for():
  with pytest.raises(ValueError, match='checkpoint must be given for loco'):
    tapjax.load('locotrack_efficientnet_b0')
  with pytest.raises(ValueError, match='no weights are published'):
    tapjax.load('point_transformer_resnet50')


@pytest.mark.parametrize('name', ['tapir', 'bootstapir', 'causal_bootstapir'])
def test_torch_names_cover_the_manifest(name, reference):
  weights = golden.load_weights_module(reference)
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


def test_list_models_tells_what_users_ask():
  models = {model.name: model for model in tapjax.list_models()}
  assert models['tapir'].streams is False
  assert models['causal_bootstapir'].streams is True
  assert models['bootstapir'].resolution == (256, 256)
  assert models['tapnet'].licence == 'Apache-2.0'
  assert models['pips_plus_plus'].licence == 'MIT'
  assert models['pips_plus_plus'].resolution == (512, 896)
  assert models['tapir'].licence == 'Apache-2.0'
  assert models['tapir'].queries_independent is True
  assert models['taptrv2'].licence == 'non-commercial research only'
  assert models['taptrv2'].queries_independent is False
  assert models['point_transformer_resnet18'].licence == 'none published'
  assert models['point_transformer_resnet18'].queries_independent is False
  assert all(
      dataclasses.is_dataclass(p.config) for p in registry.PRESETS.values()
  )


def test_the_embedded_tracker_is_as_large_as_its_preset_says():
  params = tapjax.load().params
  size = sum(leaf.size for leaf in jax.tree.leaves(params.weights))
  assert size == registry.get_preset(registry.DEFAULT).num_parameters
