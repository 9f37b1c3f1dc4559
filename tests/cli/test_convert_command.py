"""`tapjax convert` as its users meet it."""

import os

import numpy as np
import pytest

from tapjax import checkpoints


def test_converting_keeps_weights_and_settings(run, weights, folder):
  answer = run(
      'convert', f'--checkpoint={weights}', '--output=copy.safetensors'
  )
  assert answer == (0, 'tapnet: wrote copy.safetensors\n', '')
  copy = checkpoints.read_native(folder / 'copy.safetensors')
  original = checkpoints.read_native(weights)
  assert copy.metadata == original.metadata
  assert copy.arrays.keys() == original.arrays.keys()
  for name, array in original.arrays.items():
    np.testing.assert_array_equal(copy.arrays[name], array)


@pytest.mark.parametrize(
    ('output', 'message'),
    [
        ('new.bin', r'must end in \.safetensors or \.npy'),
        ('none/new.npy', 'there is no folder none - create it'),
        ('folder.npy', 'is a folder'),
    ],
)
def test_conversions_that_cannot_be_written(
    run, weights, folder, output, message
):
  (folder / 'folder.npy').mkdir()
  run('convert', f'--checkpoint={weights}', f'--output={output}').check_refusal(
      1, message
  )
  assert os.listdir() == ['folder.npy']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['convert'], '--checkpoint must name the file to read and --output'),
        (['convert', '--checkpoint=a.npy'], '--output that to write'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_wrong_flags(run, folder, arguments, message):
  run(*arguments).check_refusal(2, message)
  assert not list(folder.iterdir())
