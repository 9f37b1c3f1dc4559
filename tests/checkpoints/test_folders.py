"""Folders of checkpoints."""

import tarfile

import numpy as np
import pytest

from tapjax import checkpoints
from tests.support import torch_format


def _fill_folder(folder):
  """A folder of a training run: two checkpoints and another file."""
  folder.mkdir()
  (folder / 'notes.txt').write_text('nothing')
  for step, value in ((20_000, 1.0), (3, 2.0)):
    archive = torch_format.Archive()
    tensors = {'module.w': archive.add(np.float32([value]))}
    archive.write(
        folder / f'model-{step:09d}.pth',
        {'model_state_dict': tensors, 'optimizer_state_dict': {'state': 1}},
    )
  return folder


def test_the_newest_of_a_folder_is_read(tmp_path):
  folder = _fill_folder(tmp_path / 'reference_model')
  read = checkpoints.read_checkpoint(folder)
  assert read.path == folder / 'model-000020000.pth'
  assert read.arrays == {'w': np.float32([1.0])}


def test_the_newest_of_a_packed_folder_is_read(tmp_path):
  folder = _fill_folder(tmp_path / 'reference_model')
  path = tmp_path / 'reference_model.tar.gz'
  with tarfile.open(path, 'w:gz') as archive:
    archive.add(folder, folder.name)
  read = checkpoints.read_checkpoint(path)
  assert (read.path, read.format) == (path, 'torch')
  assert read.arrays == {'w': np.float32([1.0])}
  content = path.read_bytes()
  for length in range(2, len(content), 41):
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match=r'reference_model\.tar\.gz'):
      checkpoints.read_checkpoint(path)


def test_packed_folders_need_a_checkpoint(tmp_path):
  path = tmp_path / 'other.tar.gz'
  (tmp_path / 'model.txt').touch()
  with tarfile.open(path, 'w:gz') as archive:
    archive.add(tmp_path / 'model.txt', 'model.txt')
  with pytest.raises(ValueError, match=r'other\.tar\.gz .*model-<step>\.pth'):
    checkpoints.read_checkpoint(path)
