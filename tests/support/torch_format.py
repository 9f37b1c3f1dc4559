"""Writes pickles and PyTorch archives by hand, with any names in them."""

import io
import pathlib
import struct
from typing import Any, NamedTuple
import zipfile

import numpy as np

_STORAGES = {
    'float64': 'DoubleStorage',
    'float32': 'FloatStorage',
    'float16': 'HalfStorage',
    'bfloat16': 'BFloat16Storage',
    'int64': 'LongStorage',
    'int32': 'IntStorage',
    'int16': 'ShortStorage',
    'int8': 'CharStorage',
    'uint8': 'ByteStorage',
    'bool': 'BoolStorage',
}


class Global(NamedTuple):
  """A class or function, by name only."""

  module: str
  name: str


class Call(NamedTuple):
  """A call of a global, and the state that is given to its result."""

  function: Global
  arguments: tuple[Any, ...] = ()
  state: Any = None


class Persistent(NamedTuple):
  """A reference to data outside of the pickle."""

  key: Any


ORDERED_DICT = Global('collections', 'OrderedDict')


def emit(value: Any) -> bytes:
  """Returns a pickle of protocol 2 for plain values and the classes above."""
  return b'\x80\x02' + _emit(value) + b'.'


def _emit(value: Any) -> bytes:
  match value:
    case None:
      return b'N'
    case bool():
      return b'\x88' if value else b'\x89'
    case int():
      content = value.to_bytes(
          value.bit_length() // 8 + 1, 'little', signed=True
      )
      return b'\x8a' + bytes([len(content)]) + content
    case float():
      return b'G' + struct.pack('>d', value)
    case str():
      content = value.encode()
      return b'X' + struct.pack('<I', len(content)) + content
    case bytes():
      return b'B' + struct.pack('<I', len(value)) + value
    case Global():
      return f'c{value.module}\n{value.name}\n'.encode()
    case Call():
      built = _emit(value.function) + _emit(value.arguments) + b'R'
      return built if value.state is None else built + _emit(value.state) + b'b'
    case Persistent():
      return _emit(value.key) + b'Q'
    case tuple():
      return b'(' + b''.join(map(_emit, value)) + b't'
    case list():
      return b'](' + b''.join(map(_emit, value)) + b'e'
    case dict():
      items = [_emit(part) for item in value.items() for part in item]
      return b'}(' + b''.join(items) + b'u'
  raise TypeError(f'cannot emit {value!r}')


def emit_array(
    shape: Any, descr: str, content: Any, *, subtype: Global | None = None
) -> Call:
  """A NumPy array as NumPy pickles it, true or not."""
  flags = ('|', None, None, None, -1, -1, 63) if descr[0] == 'O' else None
  dtype = Call(
      Global('numpy', 'dtype'),
      (descr, False, True),
      (3, *(flags or ('<', None, None, None, -1, -1, 0))),
  )
  return Call(
      Global('numpy.core.multiarray', '_reconstruct'),
      (subtype or Global('numpy', 'ndarray'), (0,), b'b'),
      (1, shape, dtype, False, content),
  )


def make_tensor(
    key: str,
    kind: str,
    length: int,
    *,
    offset: int = 0,
    shape: Any = (),
    strides: Any = (),
) -> Call:
  """A tensor as PyTorch pickles it, true or not."""
  storage = Persistent(('storage', Global('torch', kind), key, 'cpu', length))
  arguments = (storage, offset, shape, strides, False, Call(ORDERED_DICT))
  return Call(Global('torch._utils', '_rebuild_tensor_v2'), arguments)


class Archive:
  """Collects storages; `write` makes the file."""

  def __init__(self):
    self.storages: dict[str, bytes] = {}

  def add(self, array: np.ndarray) -> Call:
    """Returns a contiguous tensor with the numbers of `array`."""
    array = np.array(array, order='C')
    key = str(len(self.storages))
    self.storages[key] = array.tobytes()
    strides = tuple(s // array.itemsize for s in np.empty_like(array).strides)
    return make_tensor(
        key,
        _STORAGES[array.dtype.name],
        array.size,
        shape=array.shape,
        strides=strides,
    )

  def write(
      self,
      path: pathlib.Path,
      root: Any,
      *,
      compression: int = zipfile.ZIP_STORED,
      byteorder: bytes = b'little',
  ) -> pathlib.Path:
    """Writes what `torch.save(root, path)` would."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', compression) as archive:
      archive.writestr('archive/data.pkl', emit(root))
      archive.writestr('archive/byteorder', byteorder)
      for key, content in self.storages.items():
        archive.writestr(f'archive/data/{key}', content)
      archive.writestr('archive/version', b'3\n')
    path.write_bytes(buffer.getvalue())
    return path
