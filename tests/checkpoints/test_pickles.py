import collections
import io
import os
import pathlib
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import checkpoints


def _load(content, **settings):
  return checkpoints.load_pickle(
      io.BytesIO(content), origin='sample.pkl', **settings
  )


_ARRAYS = [
    pytest.param(np.arange(6, dtype=np.float32).reshape(2, 3), id='float32'),
    pytest.param(np.asfortranarray(np.arange(6.0).reshape(2, 3)), id='fortran'),
    pytest.param(np.arange(6, dtype='>i4'), id='big-endian'),
    pytest.param(np.array([True, False]), id='bool'),
    pytest.param(np.array(7, np.int64), id='zero-d'),
    pytest.param(np.zeros((0, 3), np.float16), id='empty'),
    pytest.param(np.array([b'jpeg', b'x']), id='bytes'),
    pytest.param(np.array([{'a': 1}, [2, 3]], object), id='objects'),
    pytest.param(np.float32(1.5), id='scalar'),
]


@pytest.mark.parametrize('protocol', range(6))
@pytest.mark.parametrize('array', _ARRAYS)
def test_arrays_come_back_as_pickle_itself_reads_them(array, protocol):
  read = _load(pickle.dumps({'x': [array, array]}, protocol))['x']
  np.testing.assert_array_equal(read[0], array)
  assert read[0].dtype == array.dtype
  assert type(read[0]) is type(array)
  assert read[0] is read[1]


@pytest.mark.parametrize('protocol', range(6))
def test_plain_values_come_back_as_pickle_itself_reads_them(protocol):
  value = {
      'numbers': [0, -1, 255, 65536, -(2**31), 2**70, 1.5, float('inf')],
      'text': ['', 'é', '\U0001f600', 'a' * 300],
      'bytes': [b'', b'\x00\xff', b'a' * 300],
      'tuples': [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
      'others': [None, True, False, {}, {1: {2: 3}}, []],
      'order': collections.OrderedDict([('b', 1), ('a', 2)]),
  }
  assert _load(pickle.dumps(value, protocol)) == value


def test_arrays_are_read_only():
  for protocol in (2, 4, 5):
    array = _load(pickle.dumps(np.arange(3.0), protocol))
    assert not array.flags.writeable


def test_jax_arrays_are_read_as_numpy():
  content = pickle.dumps(jnp.arange(3, dtype=jnp.float32))
  np.testing.assert_array_equal(_load(content), [0.0, 1.0, 2.0])


def test_a_path_is_opened_and_named_in_errors(tmp_path):
  path = tmp_path / 'values.pkl'
  path.write_bytes(pickle.dumps([1]))
  assert checkpoints.load_pickle(path) == [1]
  path.write_bytes(b'nonsense')
  with pytest.raises(ValueError, match=r'values\.pkl cannot be read'):
    checkpoints.load_pickle(path)


class _Malicious:

  def __init__(self, function, *arguments):
    self._call = (function, arguments)

  def __reduce__(self):
    return self._call


@pytest.mark.parametrize('protocol', range(6))
def test_nothing_is_executed(tmp_path, protocol):
  marker = tmp_path / 'marker'
  write = f'__import__("pathlib").Path({str(marker)!r}).touch()'
  attacks = [
      _Malicious(os.system, f'touch {marker}'),
      _Malicious(eval, write),
      _Malicious(exec, write),
      np.array([_Malicious(eval, write)], object),
      _Malicious(pathlib.Path.touch, marker),
  ]
  for attack in attacks:
    content = pickle.dumps([attack], protocol)
    value = _load(content)
    assert not marker.exists()
    with pytest.raises(ValueError, match=r'sample\.pkl: the frames holds an'):
      checkpoints.refuse_placeholders(value, 'sample.pkl', 'the frames')
    pickle.loads(content)
    assert marker.exists(), 'the attack itself does not work'
    marker.unlink()


@pytest.mark.parametrize(
    ('module', 'name'),
    [
        ('numpy', 'ndarray.tofile'),
        ('numpy._core.multiarray', '_reconstruct.__globals__'),
        ('builtins', 'getattr'),
        ('tapjax.checkpoints.pickles', 'load_pickle'),
        ('\x1b[31m', 'x' * 1000),
    ],
)
def test_other_names_are_inert_whatever_is_done_to_them(module, name):
  unicode = [
      b'\x8c' + bytes([len(text)]) + text
      for text in (module.encode(), name.encode()[:255])
  ]
  value = _load(
      b'\x80\x04' + b''.join(unicode) + b'\x93(K\x01K\x02tR'  # Call it,
      b'}\x8c\x01aK\x01sb'  # set its state,
      b'K\x01a\x8c\x01bK\x02s.'  # append to it and set an item.
  )
  assert isinstance(value, checkpoints.Placeholder)
  assert repr(value).isprintable()
  assert len(repr(value)) < 300


def test_names_on_the_list_are_not_changed_by_a_file():
  attack = (
      b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n'
      b'N}X\x0c\x00\x00\x00__setstate__K\x01s\x86b.'
  )
  _load(attack)
  array = np.arange(3.0)
  np.testing.assert_array_equal(_load(pickle.dumps(array)), array)


def test_large_files_are_refused_before_they_are_read():
  content = pickle.dumps(bytes(1000))
  with pytest.raises(ValueError, match='more than the 999 that are allowed'):
    _load(content, max_bytes=999)
  assert _load(content, max_bytes=len(content)) == bytes(1000)


def test_containers_inside_themselves_are_walked_once():
  value: list = [1]
  value.append(value)
  checkpoints.refuse_placeholders(_load(pickle.dumps(value)), 'file', 'all')


@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_truncated_files_are_refused(protocol):
  value = {'video': np.arange(20.0), 'name': 'dog', 'ids': [1, (2, 3)]}
  content = pickle.dumps(value, protocol)
  for length in range(0, len(content), 5):
    with pytest.raises(ValueError, match=r'sample\.pkl'):
      _load(content[:length])


@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_flipped_bytes_give_a_value_or_a_value_error(protocol):
  value = {'video': np.arange(9.0), 'o': np.array([{}]), 's': np.int8(3)}
  content = pickle.dumps(value, protocol)
  random = np.random.default_rng(0)
  refused = 0
  for _ in range(250):
    damaged = bytearray(content)
    for position in random.integers(len(content), size=random.integers(1, 4)):
      damaged[position] = random.integers(256)
    message = 'sample.pkl'
    try:
      _load(bytes(damaged))
    except ValueError as error:
      refused += 1
      message = str(error)
    assert message.startswith('sample.pkl')
  assert refused > 30


def test_mapped_arrays_stay_on_the_disk(tmp_path):
  """Large arrays are views of the file; other values equal `load_pickle`."""
  root = {
      'large': np.arange(50_000, dtype=np.float64),
      'small': np.arange(3),
      'text': ['a', 1, None],
  }
  path = tmp_path / 'data.pkl'
  path.write_bytes(pickle.dumps(root, protocol=4))
  mapped = checkpoints.map_pickle(path, max_bytes=1 << 20)
  loaded = checkpoints.load_pickle(path)
  for name in ('large', 'small'):
    np.testing.assert_array_equal(mapped[name], loaded[name])
  assert mapped['text'] == root['text']
  assert not mapped['large'].flags.writeable
  base = mapped['large']
  while isinstance(base, np.ndarray):
    base = base.base
  assert isinstance(base, memoryview)
  with pytest.raises(ValueError, match='more than the 1000'):
    checkpoints.map_pickle(path, max_bytes=1000)
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(ValueError, match='cannot be read as a pickle'):
    checkpoints.map_pickle(path, max_bytes=1 << 20)
  path.write_bytes(b'')
  with pytest.raises(ValueError, match='it is empty'):
    checkpoints.map_pickle(path, max_bytes=1 << 20)
