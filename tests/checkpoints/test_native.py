import ml_dtypes
import numpy as np
import pytest

from tapjax import checkpoints

_DTYPES = ['float32', 'float16', 'float64', 'int32', 'int64', 'uint8', 'bool']


@pytest.mark.parametrize('dtype', [*_DTYPES, ml_dtypes.bfloat16])
def test_arrays_and_metadata_are_read_back(tmp_path, dtype):
  path = tmp_path / 'weights.safetensors'
  arrays = {
      'params|a|w': np.arange(6).reshape(2, 3).astype(dtype),
      'scalar': np.array(1).astype(dtype),
      'empty': np.zeros((0, 3), dtype),
  }
  metadata = {'preset': 'tapir', 'config': '{"größe": 1}'}
  checkpoints.write_checkpoint(path, arrays, metadata)
  read = checkpoints.read_native(path)
  assert read.metadata == metadata
  assert read.arrays.keys() == arrays.keys()
  for name, array in arrays.items():
    assert read.arrays[name].dtype == array.dtype
    assert read.arrays[name].shape == array.shape
    np.testing.assert_array_equal(read.arrays[name], array)


def test_the_layout_in_memory_does_not_matter(tmp_path):
  path = tmp_path / 'weights.safetensors'
  base = np.arange(12, dtype=np.float32).reshape(3, 4)
  arrays = {
      'fortran': np.asfortranarray(base),
      'transposed': base.T,
      'sliced': base[::2, 1::2],
      'expanded': np.broadcast_to(base[0], (2, 4)),
      'big-endian': base.astype('>f4'),
  }
  checkpoints.write_checkpoint(path, arrays, {})
  read = checkpoints.read_native(path)
  for name, array in arrays.items():
    np.testing.assert_array_equal(read.arrays[name], array, err_msg=name)
  assert read.metadata == {}


def test_objects_are_not_written(tmp_path):
  path = tmp_path / 'weights.safetensors'
  for array in (np.array([{}], object), np.array(['a']), np.zeros(1, 'i4,i4')):
    with pytest.raises(ValueError, match=r"arrays\['x'\] must hold numbers"):
      checkpoints.write_checkpoint(path, {'x': array}, {})
  assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
  path = tmp_path / 'weights.safetensors'
  checkpoints.write_checkpoint(path, {'w': np.ones(1)}, {})
  before = path.read_bytes()
  path.with_name('folder').mkdir()
  with pytest.raises(ValueError, match='is a folder'):
    checkpoints.write_checkpoint(tmp_path / 'folder', {'w': np.ones(1)}, {})
  assert path.read_bytes() == before
  assert sorted(tmp_path.iterdir()) == [tmp_path / 'folder', path]


def test_truncated_files_are_refused(tmp_path):
  path = tmp_path / 'weights.safetensors'
  checkpoints.write_checkpoint(path, {'w': np.arange(9.0)}, {'preset': 'tapir'})
  content = path.read_bytes()
  for length in range(0, len(content), 3):
    path.write_bytes(content[:length])
    with pytest.raises(
        ValueError, match=r'weights\.safetensors cannot be read'
    ):
      checkpoints.read_native(path)


def test_flipped_bytes_give_arrays_or_a_value_error(tmp_path):
  path = tmp_path / 'weights.safetensors'
  checkpoints.write_checkpoint(path, {'w': np.arange(2.0)}, {'preset': 'tapir'})
  content = path.read_bytes()
  random = np.random.default_rng(0)
  refused = 0
  for _ in range(300):
    damaged = bytearray(content)
    damaged[random.integers(len(content))] = random.integers(256)
    path.write_bytes(damaged)
    try:
      checkpoints.read_native(path)
    except ValueError:
      refused += 1
  assert refused > 50


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'none\.safetensors'):
    checkpoints.read_native(tmp_path / 'none.safetensors')
