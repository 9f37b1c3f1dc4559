"""Training checkpoints of PyTorch."""

import numpy as np
import pytest

from tapjax import checkpoints
from tapjax.checkpoints import torch_zip
from tests.support import torch_format

ENTRIES = (
    'epoch',
    'model_state_dict',
    'optimizer_state_dict',
    'best_val_loss',
    'loss_history',
)


def test_published_container(reference):
  folder = reference / 'point_transformer'
  values = torch_zip.read_torch_values(
      folder / 'sample_checkpoint.pth', ENTRIES
  )
  assert (values['epoch'], values['best_val_loss']) == (3, 0.25)
  assert values['loss_history'] == {'train': [0.5, 0.4], 'val': [0.6, 0.3]}
  with np.load(folder / 'sample_checkpoint_expected.npz') as file:
    arrays = values['model_state_dict']
    for name, array in arrays.items():
      expected = file[name]
      np.testing.assert_array_equal(array.astype(expected.dtype), expected)
  optimizer = values['optimizer_state_dict']
  assert optimizer['state'].keys() == {0}
  assert optimizer['state'][0]['step'] == 4.0
  assert optimizer['state'][0]['exp_avg'].shape == (2,)
  assert optimizer['param_groups'][0]['lr'] == 5e-5


def make_saved(archive, **changes):
  """A run of two parameters and a norm, after its second epoch."""
  add = archive.add

  def make_state(shape):
    return {
        'step': add(np.float32(6)),
        'exp_avg': add(np.full(shape, 2, np.float32)),
        'exp_avg_sq': add(np.full(shape, 3, np.float32)),
    }

  saved = {
      'epoch': 1,
      'model_state_dict': {
          'layer.weight': add(np.ones((2, 3), np.float32)),
          'norm.weight': add(np.ones(3, np.float32)),
          'norm.running_mean': add(np.zeros(3, np.float32)),
          'norm.num_batches_tracked': add(np.int64(6)),
      },
      'optimizer_state_dict': {
          'state': {0: make_state((2, 3)), 1: make_state((3,))},
          'param_groups': [
              {'lr': 1e-4, 'betas': (0.9, 0.999), 'params': [0, 1]}
          ],
      },
      'loss_history': {'train': [0.5, 0.25], 'val': [1.0, 0.5]},
      # Not read, whatever it is.
      'args': torch_format.Call(torch_format.Global('os', 'system'), ('ls',)),
  }
  return saved | changes


def test_moments_have_the_names_of_their_parameters(tmp_path):
  archive = torch_format.Archive()
  path = archive.write(tmp_path / 'latest.pth', make_saved(archive))
  saved = checkpoints.read_torch_training(path)
  assert (saved.epoch, saved.step) == (1, 6)
  assert saved.train_losses == (0.5, 0.25)
  assert saved.validation_losses == (1.0, 0.5)
  assert (
      list(saved.means)
      == list(saved.squares)
      == [
          'layer.weight',
          'norm.weight',
      ]
  )
  np.testing.assert_array_equal(saved.means['layer.weight'], np.full((2, 3), 2))
  np.testing.assert_array_equal(saved.squares['norm.weight'], np.full(3, 3))
  assert saved.settings['betas'] == (0.9, 0.999)
  assert 'norm.running_mean' in saved.arrays


def change(saved, *path, value):
  *path, last = path
  inner = saved
  for name in path:
    inner = inner[name]
  inner[last] = value


STATE = ('optimizer_state_dict', 'state')
GROUP = ('optimizer_state_dict', 'param_groups', 0)


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        (('epoch',), -1, 'epoch must be a whole number'),
        (('epoch',), 2, 'loss_history must have 3 numbers called train'),
        ((*GROUP, 'params'), [1, 0], 'one group of the 2 parameters'),
        ((*GROUP, 'amsgrad'), True, 'amsgrad of the optimizer must be off'),
        ((*STATE,), {}, 'a state for each of the 2'),
        ((*STATE, 1), {'momentum_buffer': 1.0}, 'as those of AdamW'),
        ((*STATE, 0, 'exp_avg'), (3, 2), 'exp_avg of each parameter'),
        ((*STATE, 0, 'step'), 5.0, 'have had as many updates'),
        ((*STATE, 0, 'exp_avg_sq'), np.nan, 'must have finite step'),
        (
            (*GROUP, 'lr'),
            torch_format.Call(torch_format.Global('os', 'system'), ('ls',)),
            'holds a value',
        ),
    ],
    ids=str,
)
def test_what_is_odd_is_refused(path, value, message, tmp_path):
  archive = torch_format.Archive()
  saved = make_saved(archive)
  if path[-1] == 'exp_avg':
    value = archive.add(np.zeros(value, np.float32))
  elif path[-1] in ('step', 'exp_avg_sq'):
    shape = () if path[-1] == 'step' else (2, 3)
    value = archive.add(np.full(shape, value, np.float32))
  change(saved, *path, value=value)
  file = archive.write(tmp_path / 'latest.pth', saved)
  with pytest.raises(ValueError, match=message):
    checkpoints.read_torch_training(file)


def test_missing_files_and_entries(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'there is no checkpoint'):
    checkpoints.read_torch_training(tmp_path / 'absent.pth')
  archive = torch_format.Archive()
  saved = make_saved(archive)
  del saved['optimizer_state_dict']
  path = archive.write(tmp_path / 'best.pth', saved)
  with pytest.raises(ValueError, match='entries optimizer_state_dict'):
    checkpoints.read_torch_training(path)
