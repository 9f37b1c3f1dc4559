import pickle

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import tapjax
from tapjax import checkpoints

_ARRAYS = {
    'params|tapir/~/conv|w': np.arange(6, dtype=np.float32).reshape(2, 3),
    'params|tapir/~/conv|b': np.zeros(3, np.float32),
    'params|tapir/~/linear|w': np.ones((0, 2), np.float32),
    'state|tapir/~/norm|counter': np.array(3, np.int32),
}


def _save(path, root):
  np.save(path, np.array(root, object), allow_pickle=True)
  return path


@pytest.mark.parametrize('name', ['flatmapping', 'dict'])
def test_reference_samples(reference, name):
  folder = reference / 'tapir'
  arrays = checkpoints.read_haiku_npy(folder / f'sample_checkpoint_{name}.npy')
  with np.load(folder / 'sample_checkpoint_contents.npz') as expected:
    wanted = {key for key in expected.files if key != 'meta'}
    if name == 'dict':  # Its state is empty.
      wanted = {key for key in wanted if key.startswith('params|')}
    assert set(arrays) == wanted
    for key in wanted:
      np.testing.assert_array_equal(arrays[key], expected[key])
      assert arrays[key].dtype == expected[key].dtype


def test_written_files_are_read_back(tmp_path):
  path = tmp_path / 'weights.npy'
  checkpoints.write_haiku_npy(path, _ARRAYS)
  arrays = checkpoints.read_haiku_npy(path)
  assert list(arrays) == list(_ARRAYS)
  for name, array in _ARRAYS.items():
    np.testing.assert_array_equal(arrays[name], array)
    assert arrays[name].dtype == array.dtype


@pytest.mark.parametrize('make', [np.asarray, jnp.asarray], ids=['np', 'jax'])
def test_bfloat16_is_read(tmp_path, make):
  values = np.float32([[0.5, -3, 1e30], [1 / 3, 0, -1]])
  weights = {
      'w': make(values, ml_dtypes.bfloat16),
      'scalar': np.asarray(values, ml_dtypes.bfloat16)[0, 1],
  }
  path = _save(tmp_path / 'w.npy', {'params': {'a': weights}, 'state': {}})
  arrays = checkpoints.read_haiku_npy(path)
  for name, array in weights.items():
    read = arrays[f'params|a|{name}']
    assert read.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read, np.asarray(array))


def test_bfloat16_becomes_float32_weights(tapnet_file, tmp_path):
  root = np.load(tapnet_file, allow_pickle=True).item()
  halved = jax.tree.map(
      lambda array: (
          array.astype(ml_dtypes.bfloat16) if array.dtype.kind == 'f' else array
      ),
      root,
  )
  path = _save(tmp_path / 'half.npy', halved)
  read = tapjax.load('tapnet', checkpoint=path).params
  whole = tapjax.load('tapnet', checkpoint=tapnet_file).params
  for ours, theirs in zip(
      jax.tree.leaves(read), jax.tree.leaves(whole), strict=True
  ):
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=2**-8)


def test_other_types_of_classes_are_refused(tmp_path):
  values = np.zeros(2, ml_dtypes.float8_e4m3fn)
  path = _save(tmp_path / 'w.npy', {'params': {'a': {'w': values}}})
  with pytest.raises(ValueError, match='float8_e4m3fn is not supported'):
    checkpoints.read_haiku_npy(path)


def test_written_files_have_the_published_layout(tmp_path):
  path = tmp_path / 'weights.npy'
  checkpoints.write_haiku_npy(path, _ARRAYS)
  root = np.load(path, allow_pickle=True).item()
  assert set(root) == {'params', 'state'}
  assert set(root['params']['tapir/~/conv']) == {'w', 'b'}
  assert root['state']['tapir/~/norm']['counter'] == 3


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
  path = tmp_path / 'weights.npy'
  checkpoints.write_haiku_npy(path, _ARRAYS)
  before = path.read_bytes()

  def fail(file, *_, **__):
    file.write(b'half')
    raise OSError('no space')

  monkeypatch.setattr(np, 'save', fail)
  with pytest.raises(OSError, match='no space'):
    checkpoints.write_haiku_npy(path, {})
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('key', ['w', 'params|w', 'other|a|b', 'params|a|b|c'])
def test_unpublished_names_are_not_written(tmp_path, key):
  with pytest.raises(ValueError, match='arrays must have keys'):
    checkpoints.write_haiku_npy(tmp_path / 'w.npy', {key: np.zeros(1)})
  assert not list(tmp_path.iterdir())


def test_writing_into_a_missing_folder_says_so(tmp_path):
  with pytest.raises(FileNotFoundError, match='there is no folder'):
    checkpoints.write_haiku_npy(tmp_path / 'none' / 'w.npy', {})


class _Unknown:
  """A stand-in for an optimizer state."""

  def __init__(self):
    self.count = 3


def test_unknown_objects_are_ignored_only_where_nothing_is_read(tmp_path):
  root = {'params': {'m': {'w': np.ones(2)}}, 'state': {}}
  path = _save(tmp_path / 'a.npy', root | {'opt_state': (_Unknown(),)})
  assert list(checkpoints.read_haiku_npy(path)) == ['params|m|w']
  path = _save(tmp_path / 'a.npy', root | {'state': {'m': {'w': _Unknown()}}})
  with pytest.raises(ValueError, match=r'state\|m\|w must be an .*_Unknown'):
    checkpoints.read_haiku_npy(path)


@pytest.mark.parametrize(
    ('root', 'message'),
    [
        ([1], 'must hold a dict'),
        ({'params': {}}, 'has no state'),
        ({'state': {}}, 'has no params'),
        ({'params': 3, 'state': {}}, 'params must be a dict'),
        ({'params': {'m': [1]}, 'state': {}}, r'params\|m must be a dict'),
        ({'params': {'m': {'w': 'x'}}, 'state': {}}, r"numbers; got .*'x'"),
        (
            {'params': {'m': {'w': np.array('x', object)}}, 'state': {}},
            'must be an array of numbers',
        ),
        ({'params': {1: {}}, 'state': {}}, 'must be text'),
        ({'params': {'a|b': {}}, 'state': {}}, r'without "\|"'),
    ],
)
def test_other_contents_are_refused(tmp_path, root, message):
  path = tmp_path / 'other.npy'
  holder = np.empty((), object)
  holder[()] = root
  np.save(path, holder, allow_pickle=True)
  with pytest.raises(ValueError, match=rf'other\.npy.*{message}'):
    checkpoints.read_haiku_npy(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'must be a NumPy .npy file'),
        (b'\x93NUMPY\x01', 'must be a NumPy .npy file'),
        (b'\x93NUMPY\x09\x00v\x00', 'must be a NumPy .npy file'),
        (b'\x93NUMPY\x02\x00\xff\xff\xff\xff{', 'one pickled object'),
        (b'\x93NUMPY\x01\x00\x05\x00{((((', 'one pickled object'),
    ],
)
def test_other_headers_are_refused(tmp_path, content, message):
  path = tmp_path / 'other.npy'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    checkpoints.read_haiku_npy(path)


def test_plain_arrays_are_refused(tmp_path):
  np.save(tmp_path / 'plain.npy', np.zeros(3))
  with pytest.raises(ValueError, match='is it a plain array'):
    checkpoints.read_haiku_npy(tmp_path / 'plain.npy')


def test_truncated_files_are_refused(tmp_path):
  path = tmp_path / 'weights.npy'
  checkpoints.write_haiku_npy(path, _ARRAYS)
  content = path.read_bytes()
  for length in range(0, len(content), 7):
    path.write_bytes(content[:length])
    with pytest.raises(ValueError, match=r'weights\.npy'):
      checkpoints.read_haiku_npy(path)


def test_old_numpy_and_old_protocols_are_read(tmp_path):
  path = tmp_path / 'weights.npy'
  holder = np.empty((), object)
  holder[()] = {'params': {'m': {'w': np.arange(3.0)}}, 'state': {}}
  header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
  header = b'\x93NUMPY\x01\x00v\x00' + header.ljust(117) + b'\n'
  content = pickle.dumps(holder, 2).replace(b'numpy._core', b'numpy.core')
  path.write_bytes(header + content)
  arrays = checkpoints.read_haiku_npy(path)
  np.testing.assert_array_equal(arrays['params|m|w'], [0, 1, 2])


def test_bfloat16_arrays_are_read(tmp_path):
  array = np.asarray([[1.5, -2.0]], ml_dtypes.bfloat16)
  path = _save(tmp_path / 'w.npy', {'params': {'a': {'w': array}}, 'state': {}})
  (found,) = checkpoints.read_haiku_npy(path).values()
  assert found.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(found, array)
