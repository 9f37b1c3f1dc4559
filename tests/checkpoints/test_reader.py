import numpy as np
import pytest

from tapjax import checkpoints
from tests.support import torch_format


def _write(path, file_format):
  array = np.arange(3, dtype=np.float32)
  if file_format == 'haiku':
    checkpoints.write_haiku_npy(path, {'params|m|w': array})
  elif file_format == 'torch':
    archive = torch_format.Archive()
    archive.write(path, {'model': {'w': archive.add(array)}, 'epoch': 1})
  else:
    checkpoints.write_checkpoint(path, {'w': array}, {'preset': 'tapir'})


@pytest.mark.parametrize('file_format', ['haiku', 'torch', 'tapjax'])
@pytest.mark.parametrize('name', ['a.npy', 'a.pth', 'a.safetensors', 'a'])
def test_the_content_decides_the_format(tmp_path, file_format, name):
  path = tmp_path / name
  _write(path, file_format)
  read = checkpoints.read_checkpoint(str(path))
  assert read.path == path
  assert read.format == file_format
  assert read.metadata == (
      {'preset': 'tapir'} if file_format == 'tapjax' else {}
  )
  (array,) = read.arrays.values()
  np.testing.assert_array_equal(array, [0, 1, 2])


def test_sections_are_for_torch_files(tmp_path):
  path = tmp_path / 'weights'
  _write(path, 'torch')
  assert 'w' in checkpoints.read_checkpoint(path, section='model').arrays
  _write(path, 'haiku')
  with pytest.raises(ValueError, match='section must be None for a haiku'):
    checkpoints.read_checkpoint(path, section='model')


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no checkpoint .*none\.npy'):
    checkpoints.read_checkpoint(tmp_path / 'none.npy')


def test_folders_and_empty_files_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r'must be a file, .* is a folder'):
    checkpoints.read_checkpoint(tmp_path)
  (tmp_path / 'empty.npy').touch()
  with pytest.raises(ValueError, match=r'empty\.npy is empty'):
    checkpoints.read_checkpoint(tmp_path / 'empty.npy')


@pytest.mark.parametrize(
    'content',
    [b'<!DOCTYPE html><html>', b'\x80\x04]q\x00.', b'x', bytes(100)],
)
def test_unknown_formats_list_the_known_ones(tmp_path, content):
  path = tmp_path / 'weights.npy'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r'\.npy, PyTorch .* \.safetensors'):
    checkpoints.read_checkpoint(path)


def test_legacy_torch_files_are_recognized(tmp_path):
  path = tmp_path / 'weights.pth'
  path.write_bytes(b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.')
  with pytest.raises(ValueError, match='legacy format'):
    checkpoints.read_checkpoint(path)


@pytest.mark.parametrize('file_format', ['haiku', 'torch', 'tapjax'])
def test_truncated_files_are_refused(tmp_path, file_format):
  path = tmp_path / 'weights'
  _write(path, file_format)
  content = path.read_bytes()
  for length in range(0, len(content), 17):
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match='weights'):
      checkpoints.read_checkpoint(path)
