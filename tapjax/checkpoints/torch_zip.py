"""PyTorch checkpoints (`.pt`, `.pth`, `.ckpt`), read without PyTorch.

`torch.save` writes a zip archive: `<prefix>/data.pkl` is a pickle in which each
tensor is a shape, strides and an offset into a storage, and each storage is an
uncompressed entry `<prefix>/data/<key>` of raw little-endian numbers. Only
storages of the requested section are read.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import io
import math
import os
import pathlib
from typing import Any, BinaryIO, NamedTuple
import zipfile
import zlib

import ml_dtypes
import numpy as np

from tapjax.checkpoints import pickled_arrays
from tapjax.checkpoints import pickles
from tapjax.checkpoints.pickled_arrays import describe

# Order of preference of published loaders.
SECTIONS = ('ema_model', 'state_dict', 'model_state_dict', 'model')
MAGIC = b'PK\x03\x04'
LEGACY_MAGIC = b'\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19'
_DTYPES = {
    'torch.DoubleStorage': np.dtype('<f8'),
    'torch.FloatStorage': np.dtype('<f4'),
    'torch.HalfStorage': np.dtype('<f2'),
    'torch.BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'torch.LongStorage': np.dtype('<i8'),
    'torch.IntStorage': np.dtype('<i4'),
    'torch.ShortStorage': np.dtype('<i2'),
    'torch.CharStorage': np.dtype('i1'),
    'torch.ByteStorage': np.dtype('u1'),
    'torch.BoolStorage': np.dtype('?'),
    'torch.ComplexFloatStorage': np.dtype('<c8'),
    'torch.ComplexDoubleStorage': np.dtype('<c16'),
}
_WRAPPER = 'model.'
_LONGEST_LIST = 12
_DEEPEST_SECTION = 16


class _Storage(NamedTuple):
  """Reference to `length` numbers in the archive, not read yet."""

  type_name: str
  key: str
  length: int


class _Tensor(NamedTuple):
  """Reference to a view of a storage, with unchecked fields."""

  storage: Any
  offset: Any
  shape: Any
  strides: Any


def read_torch_checkpoint(
    path: str | os.PathLike[str], *, section: str | None = None
) -> dict[str, np.ndarray]:
  """Returns the tensors of one section by name, as read-only arrays.

  `section` is an entry of the file's dict. By default it is the file itself if
  that is a state dict, else the first of its `ema_model`, `state_dict`,
  `model_state_dict` and `model`. Names of nested dicts are joined by '/', and
  the prefix 'model.' of PyTorch Lightning is dropped if all names have it.
  Shared and transposed tensors become views of shared memory.

  No content of the file is executed; unknown objects outside of the section are
  ignored. Raises ValueError if the file is damaged or of the legacy format.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    return read_torch_file(file, path, section=section)


def read_torch_values(
    path: str | os.PathLike[str], entries: Sequence[str]
) -> dict[str, Any]:
  """Returns entries of a file's dict, with read-only arrays for tensors.

  Entries may hold plain values, lists, tuples and dicts. No content of the file
  is executed; unknown objects in other entries are ignored. Raises ValueError
  if the file is damaged, lacks an entry, or has an unknown object in one.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file, _explain(path), _Archive(file) as archive:
    root = archive.load_root()
    if not isinstance(root, dict):
      raise ValueError(f'it must hold a dict; it holds {describe(root)}')
    missing = [name for name in entries if name not in root]
    if missing:
      raise ValueError(f'it must have entries {", ".join(missing)}')
    found = {name: root[name] for name in entries}
    return {
        name: _fill_tensors(archive, value, name, 0)
        for name, value in found.items()
    }


def _fill_tensors(
    archive: '_Archive', value: Any, place: str, depth: int
) -> Any:
  """Replaces the tensors in a value by their arrays, recursively."""
  if depth > _DEEPEST_SECTION:
    raise ValueError(f'{place} is nested too deeply')
  if isinstance(value, _Tensor):
    return archive.read(value, place)
  if isinstance(value, dict):
    return {
        key: _fill_tensors(archive, item, f'{place}/{key}', depth + 1)
        for key, item in value.items()
    }
  if isinstance(value, list | tuple):
    items = [_fill_tensors(archive, item, place, depth + 1) for item in value]
    return tuple(items) if isinstance(value, tuple) else items
  if value is None or isinstance(value, bool | int | float | str | bytes):
    return value
  raise ValueError(f'{place} holds a value {describe(value)}')


def read_torch_file(
    file: BinaryIO, path: pathlib.Path, *, section: str | None = None
) -> dict[str, np.ndarray]:
  """As `read_torch_checkpoint` for an open file; messages name `path`."""
  with _explain(path), _Archive(file) as archive:
    root = archive.load_root()
    tensors = _unwrap(_flatten(*_choose_section(root, section)))
    return {name: archive.read(tensors[name], name) for name in tensors}


@contextlib.contextmanager
def _explain(path: pathlib.Path) -> Iterator[None]:
  """Converts errors of reading to a ValueError that names the file."""
  try:
    yield
  except (
      ValueError,
      EOFError,
      NotImplementedError,
      OSError,
      RuntimeError,
      zipfile.BadZipFile,
      zlib.error,
  ) as error:
    raise ValueError(
        f'{path} cannot be read as a PyTorch checkpoint: {error}'
    ) from None


class _Archive:
  """The zip archive of a checkpoint; each storage is read at most once."""

  def __init__(self, file: Any):
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(16)
    if not start.startswith(MAGIC):
      legacy = start.startswith(LEGACY_MAGIC)
      raise ValueError(
          'it is in the legacy format of PyTorch before 1.6; save it again with'
          ' a newer PyTorch: torch.save(torch.load(file), file)'
          if legacy
          else f'it must be a zip archive; its first bytes are {start!r}'
      )
    self._zip = zipfile.ZipFile(file)
    self._entries = _check_entries(self._zip.infolist(), size)
    roots = [n for n in self._entries if n.endswith('/data.pkl')]
    if len(roots) != 1:
      raise ValueError(
          f'it must have one entry data.pkl; got {len(roots)} - is it another'
          ' kind of zip archive?'
      )
    self._prefix = roots[0].removesuffix('data.pkl')
    self._size = size
    self._storages: dict[_Storage, np.ndarray] = {}
    order = f'{self._prefix}byteorder'
    if order in self._entries and self._zip.read(order) != b'little':
      raise ValueError(
          'it must be little-endian; got another byte order - save it again on'
          ' an ordinary machine'
      )

  def __enter__(self) -> '_Archive':
    return self

  def __exit__(self, *unused: object) -> None:
    self._zip.close()

  def load_root(self) -> Any:
    """Returns the value of the pickle, with `_Tensor`s for tensors."""
    name = f'{self._prefix}data.pkl'
    return pickles.load_pickle(
        io.BytesIO(self._zip.read(name)),
        origin=name,
        constructors={
            'torch._utils._rebuild_tensor': _make_tensor,
            'torch._utils._rebuild_tensor_v2': _make_tensor,
            'torch._utils._rebuild_parameter': _get_first,
            'torch._utils._rebuild_parameter_with_state': _get_first,
        },
        load_persistent=_make_storage,
    )

  def read(self, tensor: _Tensor, name: str) -> np.ndarray:
    """Returns the array of a tensor; ValueError outside of its storage."""
    storage = tensor.storage
    if not isinstance(storage, _Storage) or storage.type_name not in _DTYPES:
      kind = storage.type_name if isinstance(storage, _Storage) else storage
      raise ValueError(f'{name!r} has an unknown storage: {describe(kind)}')
    dtype = _DTYPES[storage.type_name]
    shape = pickled_arrays.check_shape(tensor.shape)
    strides = pickled_arrays.check_shape(tensor.strides)
    offset = pickled_arrays.check_shape((tensor.offset,))[0]
    if len(strides) != len(shape):
      raise ValueError(
          f'{name!r} has {len(shape)} axes, {len(strides)} strides'
      )
    if math.prod(shape) * dtype.itemsize > self._size:
      raise ValueError(f'{name!r} claims shape {shape}, larger than the file')
    numbers = self._read_storage(storage, dtype, name)
    last = offset + sum(
        (size - 1) * stride for size, stride in zip(shape, strides, strict=True)
    )
    if math.prod(shape) and last >= storage.length:
      raise ValueError(
          f'{name!r} reaches number {last} of a storage of {storage.length}'
      )
    if not math.prod(shape):
      return np.empty(shape, dtype)
    return np.lib.stride_tricks.as_strided(
        numbers[offset:],
        shape,
        [
            stride * dtype.itemsize if size > 1 else 0
            for size, stride in zip(shape, strides, strict=True)
        ],
        writeable=False,
    )

  def _read_storage(
      self, storage: _Storage, dtype: np.dtype, name: str
  ) -> np.ndarray:
    entry = f'{self._prefix}data/{storage.key}'
    if entry not in self._entries:
      raise ValueError(f'{name!r} needs the entry {entry!r}, which is missing')
    if storage not in self._storages:
      raw = self._zip.read(entry)
      if len(raw) != storage.length * dtype.itemsize:
        raise ValueError(
            f'{name!r} needs {storage.length * dtype.itemsize} stored bytes;'
            f' the entry {entry!r} has {len(raw)}'
        )
      self._storages[storage] = pickled_arrays.view_bytes(raw, dtype)
    return self._storages[storage]


def _check_entries(
    entries: list[zipfile.ZipInfo], size: int
) -> dict[str, zipfile.ZipInfo]:
  """Returns entries by name; ValueError if compressed or too large."""
  for entry in entries:
    if entry.compress_type != zipfile.ZIP_STORED:
      raise ValueError(
          f'its entry {entry.filename!r} is compressed, which torch.save never'
          ' does - was it packed again?'
      )
  if sum(entry.file_size for entry in entries) > size:
    raise ValueError('its entries are together larger than the archive')
  by_name = {entry.filename: entry for entry in entries}
  if len(by_name) != len(entries):
    raise ValueError('it has two entries of the same name')
  return by_name


def _make_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *unused_rest: Any
) -> _Tensor:
  return _Tensor(storage, offset, shape, strides)


def _get_first(value: Any, *unused_rest: Any) -> Any:
  return value


def _make_storage(key: Any) -> _Storage:
  if not isinstance(key, tuple) or len(key) < 5 or key[0] != 'storage':
    raise ValueError('the reference to a storage is malformed')
  _, kind, name, _, count = key[:5]
  if not isinstance(kind, pickles.Placeholder):
    raise ValueError('the type of a storage is malformed')
  if not isinstance(name, str) or type(count) is not int:
    raise ValueError('the reference to a storage is malformed')
  return _Storage(kind.name, name, count)


def _choose_section(root: Any, section: str | None) -> tuple[Any, str]:
  """Returns the dict to read, and its name for messages."""
  if not isinstance(root, dict):
    raise ValueError(f'it must hold a dict; it holds a value {describe(root)}')
  if section is None:
    if root and all(isinstance(value, _Tensor) for value in root.values()):
      return root, 'the file'
    section = next((name for name in SECTIONS if name in root), None)
  if section is not None and isinstance(root.get(section), dict):
    return root[section], section
  known = [repr(k) for k, value in root.items() if isinstance(value, dict)]
  raise ValueError(
      f'section must name a dict of tensors in it; got {section!r} - it has'
      f' {", ".join(known[:_LONGEST_LIST]) or "none"}'
  )


def _unwrap(tensors: Mapping[str, _Tensor]) -> Mapping[str, _Tensor]:
  """Removes the prefix of a Lightning module, if all names have it."""
  if not all(name.startswith(_WRAPPER) for name in tensors):
    return tensors
  return {
      name.removeprefix(_WRAPPER): tensor for name, tensor in tensors.items()
  }


def _flatten(section: dict[Any, Any], place: str) -> Mapping[str, _Tensor]:
  """Returns the tensors of nested dicts, with names joined by '/'."""
  tensors: dict[str, _Tensor] = {}
  waiting = [('', section, 0)]
  seen: set[int] = set()
  while waiting:
    prefix, values, depth = waiting.pop()
    if depth > _DEEPEST_SECTION or id(values) in seen:
      raise ValueError(f'{place} nests dicts too deeply or repeats one')
    seen.add(id(values))
    for key, value in values.items():
      name = f'{prefix}{key}'
      if not isinstance(key, str) or name in tensors:
        raise ValueError(f'{place} has a malformed name: {describe(key)}')
      if isinstance(value, dict):
        waiting.append((f'{name}/', value, depth + 1))
      elif isinstance(value, _Tensor):
        tensors[name] = value
      else:
        raise ValueError(
            f'{name!r} in {place} must be a tensor; got a value'
            f' {describe(value)} - choose another section?'
        )
  return tensors
