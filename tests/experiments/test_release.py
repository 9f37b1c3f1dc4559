"""Weights packed for the package."""

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

import experiments.run  # noqa: F401 - defines the flags.
from experiments.tasks import release
import tapjax
from tapjax import checkpoints


def test_weights_are_halved_and_their_training_is_recorded(tmp_path):
  tracker = tapjax.load('tapir_tiny', resolution=(128, 128))
  trained = {'steps': '70', 'validation/score': '80.5', 'folder': 'mine'}
  tracker.save(tmp_path / 'best.safetensors', trained)
  release.pack(tmp_path / 'best.safetensors', str(tmp_path / 'a.safetensors'))
  file = checkpoints.read_checkpoint(tmp_path / 'a.safetensors')
  assert file.metadata['steps'] == '70'
  assert file.metadata['validation/score'] == '80.5'
  assert 'folder' not in file.metadata
  assert file.metadata['commit']
  arrays, _ = checkpoints.read_native(tmp_path / 'a.safetensors')
  assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
  packed = tapjax.load(checkpoint=tmp_path / 'a.safetensors')
  # The resolution of the preset, not that of the training.
  assert packed.config == tapjax.load('tapir_tiny').config


def test_an_output_is_needed(tmp_path):
  with flagsaver.flagsaver():
    flags.FLAGS(['run', '--task=release'])
    with pytest.raises(ValueError, match='--output=FILE'):
      release.run(str(tmp_path))
  flags.FLAGS.unparse_flags()
