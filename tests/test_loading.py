"""Files of weights: identified with their settings, refused if damaged."""

import json
import os
import pickle

import numpy as np
import pytest

import tapjax
from tapjax import checkpoints
from tests.support import golden
from tests.support import torch_format
from tests.support import weights
from tests.support.golden import assert_equal_params


def test_own_files_keep_their_settings(tapnet_file, tmp_path):
  path = tmp_path / 'own.safetensors'
  tapjax.load('tapnet', checkpoint=tapnet_file, temperature=3).save(path)
  assert tapjax.load(checkpoint=path).config.temperature == 3.0
  assert tapjax.load(checkpoint=path, temperature=4.5).config.temperature == 4.5


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


def test_checkpoint_of_another_model(tapnet_file):
  with pytest.raises(ValueError, match='of another model, tapnet - load it'):
    tapjax.load('tapir', checkpoint=tapnet_file)


@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.999])
def test_truncated_checkpoint(tapnet_file, tmp_path, share):
  data = tapnet_file.read_bytes()
  path = tmp_path / 'cut.npy'
  path.write_bytes(data[: int(share * len(data))])
  with pytest.raises(ValueError, match=r'cut\.npy'):
    tapjax.load('tapnet', checkpoint=path)


class _Attack:
  """Content of a hostile file: a call of the shell."""

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


@pytest.mark.slow
def test_torch_checkpoint_gives_the_haiku_parameters(reference, tmp_path):
  """A `.pt` file made from the `.npy` weights loads to the same numbers."""
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
