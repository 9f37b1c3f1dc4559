"""Loading: names, settings, files, and what goes wrong with them."""

import dataclasses
import functools
import json
import math
import os
import pickle

import jax
import numpy as np
import pytest

import tapjax
from tapjax import checkpoints
from tapjax import pretrained
from tapjax.models import registry
from tapjax.models import tapnet
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.locotrack.config import EFFICIENTNET_B0_TINY
from tapjax.models.locotrack.functions import LocoTrackFunctions
from tapjax.models.weight_names import list_haiku_sources
from tapjax.models.weight_names import list_torch_sources
from tests.support import golden
from tests.support import torch_format


@pytest.fixture(scope='module')
def tapnet_file(tmp_path_factory):
  """Random weights of a TAP-Net in the published layout."""
  config = tapnet.TAPNET
  functions = tapnet.TapNetFunctions(config)
  params = golden.make_random_params(functions)
  path = tmp_path_factory.mktemp('weights') / 'checkpoint.npy'
  pretrained.Tracker('tapnet', config, functions, params).save(path)
  return path


def flatten(tracker):
  return flatten_params(tracker.params)


def assert_equal_params(ours, theirs):
  ours, theirs = flatten(ours), flatten(theirs)
  assert ours.keys() == theirs.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_formats_round_trip(tapnet_file, tmp_path):
  tracker = tapjax.load('tapnet', checkpoint=tapnet_file)
  tracker.save(tmp_path / 'own.safetensors')
  own = tapjax.load(checkpoint=tmp_path / 'own.safetensors')
  assert own.name == 'tapnet'
  assert_equal_params(own, tracker)
  own.save(tmp_path / 'again.npy')
  assert_equal_params(
      tapjax.load('tapnet', checkpoint=tmp_path / 'again.npy'), tracker
  )


def test_own_files_keep_their_settings(tapnet_file, tmp_path):
  path = tmp_path / 'own.safetensors'
  tapjax.load('tapnet', checkpoint=tapnet_file, temperature=3).save(path)
  assert tapjax.load(checkpoint=path).config.temperature == 3.0
  assert tapjax.load(checkpoint=path, temperature=4.5).config.temperature == 4.5


def test_resolution_is_a_setting(tapnet_file):
  tracker = tapjax.load('tapnet', checkpoint=tapnet_file, resolution=(64, 128))
  assert tracker.functions.resolution == (64, 128)


def test_preset_is_told_by_the_arrays(tapnet_file):
  assert tapjax.load(checkpoint=tapnet_file).name == 'tapnet'


def edit_own_file(source, target, **changes):
  tapjax.load('tapnet', checkpoint=source).save(target)
  contents = checkpoints.read_native(target)
  checkpoints.write_checkpoint(
      target, contents.arrays, {**contents.metadata, **changes}
  )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'preset': 'tapir'}, 'load it under that name'),
        ({'config': 'no json'}, 'config in its metadata'),
        ({'config': '[1]'}, 'config in its metadata'),
        ({'config': '[' * 100_000}, 'config in its metadata'),
        ({'config': '{"channels": [8]}'}, 'as many as strides'),
        ({'config': json.dumps({'colour': 1})}, "unknown setting 'colour'"),
        ({'config': json.dumps({'temperature': 'hot'})}, 'temperature must be'),
    ],
    ids=lambda value: str(value)[:30],
)
def test_own_files_with_wrong_metadata(tapnet_file, tmp_path, changes, message):
  path = tmp_path / 'own.safetensors'
  edit_own_file(tapnet_file, path, **changes)
  with pytest.raises(ValueError, match=message):
    tapjax.load('tapnet', checkpoint=path)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'name': 'tapirr'}, 'did you mean tapir'),
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


def test_checkpoint_of_another_model(tapnet_file):
  with pytest.raises(ValueError, match='of another model, tapnet - load it'):
    tapjax.load('tapir', checkpoint=tapnet_file)


def test_missing_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'nothing\.npy'):
    tapjax.load('tapnet', checkpoint=tmp_path / 'nothing.npy')


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.999])
def test_truncated_checkpoint(tapnet_file, tmp_path, share):
  data = tapnet_file.read_bytes()
  path = tmp_path / 'cut.npy'
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(ValueError, match=r'cut\.npy'):
    tapjax.load('tapnet', checkpoint=path)


class _Attack:
  """What a hostile file would hold: a call of the shell."""

  def __init__(self, command):
    self._command = command

  def __reduce__(self):
    return os.system, (self._command,)


def test_pickled_commands_do_not_run(tmp_path):
  mark = tmp_path / 'mark'
  path = tmp_path / 'attack.npy'
  attack = np.empty((), object)
  attack[()] = {'params': _Attack(f'touch {mark}'), 'state': {}}
  np.save(path, attack, allow_pickle=True)
  assert pickle.dumps(attack)
  with pytest.raises(ValueError, match=r'attack\.npy'):
    tapjax.load('tapnet', checkpoint=path)
  assert not mark.exists()


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


def test_settings_that_a_haiku_file_would_lose_are_told(tmp_path):
  """Its reader takes it for the JAX program's, which has another GELU."""
  config = EFFICIENTNET_B0_TINY
  functions = LocoTrackFunctions(config)
  params = golden.make_random_params(functions)
  tracker = tapjax.Tracker(
      'locotrack_efficientnet_b0_tiny', config, functions, params
  )
  path = tmp_path / 'weights.npy'
  with pytest.warns(UserWarning, match='gelu=exact'):
    tracker.save(path)
  with pytest.warns(UserWarning, match='gelu=tanh'):
    again = tapjax.load(
        tracker.name, checkpoint=path, gelu='exact', refined_levels='last'
    )
  assert again.config == config
  assert_equal_params(again, tracker)


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


@pytest.mark.slow
def test_torch_checkpoint_gives_the_haiku_parameters(reference, tmp_path):
  """A `.pt` file made from the `.npy` weights loads to the same numbers."""
  weights = golden.load_weights_module(reference)
  folder = reference / 'tapir'
  haiku = golden.write_haiku_checkpoint(
      folder / 'manifest_tapir.json', 3, tmp_path / 'weights.npy'
  )
  arrays = weights.fill(
      weights.load_manifest(folder / 'manifest_tapir.json'), 3
  )
  transforms = {
      'id': lambda a: a,
      'conv2d': lambda a: a.transpose(3, 2, 0, 1),
      'linear': lambda a: a.T,
      'conv1d': lambda a: a.transpose(2, 1, 0),
  }
  archive = torch_format.Archive()
  state_dict = {
      entry['name']: archive.add(
          transforms[entry['transform']](arrays[entry['haiku']])
      )
      for entry in weights.load_manifest(folder / 'manifest_tapir_torch.json')
  }
  torch = tmp_path / 'weights.pt'
  archive.write(torch, state_dict)
  assert_equal_params(
      tapjax.load('tapir', checkpoint=torch),
      tapjax.load('tapir', checkpoint=haiku),
  )


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
