"""Pickled NumPy arrays, reconstructed without NumPy's own hooks.

A pickled array is a call of `_reconstruct` followed by a state: version, shape,
dtype, memory order and raw bytes. Shape and dtype are checked against the
number of bytes in the file, so that a file cannot claim more than it has.
Arrays are read-only views of those bytes.
"""

from collections.abc import Callable
import math
import re
from typing import Any, cast, Literal

import ml_dtypes
import numpy as np

from tapjax.checkpoints import placeholders

# Classes under which programs have pickled the type, first the present one.
_BFLOAT16 = (
    'ml_dtypes.bfloat16',
    'ml_dtypes._ml_dtypes_ext.bfloat16',
    'jaxlib.xla_extension.bfloat16',
    'jaxlib._jax.bfloat16',
)
_SAFE_DTYPE = re.compile(r'b1|[iu][1248]|f[248]|c8|c16|S\d{1,9}|O[48]')
_BYTE_ORDERS = ('<', '>', '=', '|')
_MOST_AXES = 32

_Bytes = bytes | bytearray | memoryview


class _Dtype(placeholders.Unfinished):
  """`numpy.dtype(kind, align, copy)`; the byte order is in its state."""

  __slots__ = ('_dtype',)

  def __init__(self, kind: Any, *unused_flags: Any):
    super().__init__('numpy.dtype')
    self._dtype = _find_dtype(kind)

  def finish(self, state: Any) -> np.dtype:
    if not isinstance(state, tuple) or len(state) < 5:
      raise ValueError('the state of a dtype is malformed')
    order, subarray, names, fields = state[1:5]
    if not isinstance(order, str) or order not in _BYTE_ORDERS:
      raise ValueError('the byte order of a dtype is malformed')
    if any(part is not None for part in (subarray, names, fields)):
      raise ValueError('structured dtypes are not supported')
    return self._dtype.newbyteorder(cast(Any, order))


def _find_dtype(kind: Any) -> np.dtype:
  """Returns the type of a text, or of the class that stands for bfloat16."""
  if isinstance(kind, str) and _SAFE_DTYPE.fullmatch(kind):
    return np.dtype(kind)
  if isinstance(kind, placeholders.Placeholder) and kind.name in _BFLOAT16:
    return np.dtype(ml_dtypes.bfloat16)
  raise ValueError(f'dtype {describe(kind)} is not supported')


class _Array(placeholders.Unfinished):
  """The empty array of `_reconstruct`; its content is in its state."""

  __slots__ = ()

  def __init__(self, *unused_arguments: Any):
    super().__init__('numpy.ndarray')

  def finish(self, state: Any) -> np.ndarray:
    if not isinstance(state, tuple) or len(state) != 5:
      raise ValueError('the state of an array is malformed')
    _, shape, dtype, is_fortran, content = state
    return _make_array(content, dtype, shape, 'F' if is_fortran else 'C')


def describe(value: Any) -> str:
  """Describes a value in a message, with bounded length."""
  if isinstance(value, placeholders.Placeholder):
    return value.name
  if isinstance(value, str):
    return repr(value[:80])
  return f'of type {type(value).__name__}'


def check_shape(shape: Any) -> tuple[int, ...]:
  """Returns `shape`; ValueError unless it is a tuple of valid sizes."""
  if not isinstance(shape, tuple) or len(shape) > _MOST_AXES:
    raise ValueError('the shape of an array is malformed')
  if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
    raise ValueError('the shape of an array is malformed')
  return shape


def _make_array(
    content: Any, dtype: Any, shape: Any, order: Literal['C', 'F']
) -> np.ndarray:
  shape = check_shape(shape)
  if not isinstance(dtype, np.dtype):
    raise ValueError(f'dtype {describe(dtype)} is not supported')
  count = math.prod(shape)
  if dtype.hasobject:
    if not isinstance(content, list) or len(content) != count:
      raise ValueError('an array of objects does not hold one for each place')
    flat = np.empty(count, dtype)
    for index, item in enumerate(content):
      flat[index] = item
    return flat.reshape(shape, order=order)
  raw = _get_bytes(content)
  if len(raw) != count * dtype.itemsize:
    raise ValueError(
        f'an array of shape {shape} and dtype {dtype} needs'
        f' {count * dtype.itemsize} bytes, and the file has {len(raw)} for it'
    )
  return view_bytes(raw, dtype).reshape(shape, order=order)


def view_bytes(raw: _Bytes, dtype: np.dtype) -> np.ndarray:
  """Views `raw` as a flat array; nonzero bytes are true booleans."""
  if dtype == np.bool_:
    return np.frombuffer(raw, np.uint8) != 0
  return np.frombuffer(memoryview(raw).toreadonly(), dtype)


def _get_bytes(content: Any) -> _Bytes:
  if isinstance(content, str):  # Python 2 wrote bytes as strings.
    return content.encode('latin-1')
  if not isinstance(content, _Bytes):
    raise ValueError(f'the data of an array are {describe(content)}, not bytes')
  return content


def _make_scalar(dtype: Any, content: Any) -> Any:
  array = _make_array(content, dtype, (), 'C')
  if array.dtype.hasobject:
    raise ValueError('scalars that are objects are not supported')
  return array[()]


def _make_from_buffer(
    content: Any, dtype: Any, shape: Any, order: Any
) -> np.ndarray:
  is_fortran = isinstance(order, str) and order == 'F'
  return _make_array(content, dtype, shape, 'F' if is_fortran else 'C')


def _make_jax_array(
    unused_function: Any, unused_arguments: Any, state: Any, *unused_rest: Any
) -> np.ndarray:
  return _Array().finish(state)


CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    'numpy.dtype': _Dtype,
    'jax._src.array._reconstruct_array': _make_jax_array,
}
for _core in ('numpy.core', 'numpy._core'):
  CONSTRUCTORS[f'{_core}.multiarray._reconstruct'] = _Array
  CONSTRUCTORS[f'{_core}.multiarray.scalar'] = _make_scalar
  CONSTRUCTORS[f'{_core}.numeric._frombuffer'] = _make_from_buffer
