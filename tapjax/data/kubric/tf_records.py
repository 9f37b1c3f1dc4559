"""Data sets in the format of tensorflow-datasets, read without TensorFlow.

A data set is a folder of shards, `NAME-SPLIT.tfrecord-00000-of-00010` or
`...array_record...`, whose records are `tf.train.Example` messages: features by
name, each a list of byte strings, floats or integers. Access to records is
random, so that any order can be resumed anywhere. Folders of Google Cloud,
`gs://...`, are read through TensorFlow's file system.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import pathlib
import re
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_SHARD = re.compile(
    r'(?P<name>.+)-(?P<split>[^-]+)\.(?P<format>tfrecord|array_record)'
    r'(-\d+-of-(?P<count>\d+))?'
)
_VERSION = re.compile(r'\d+\.\d+\.\d+')
# A record is its length, a checksum of it, the data and a checksum of them.
_HEADER, _FOOTER = 12, 4
# Kinds of fields in a message, and of lists in a feature.
_VARINT, _BYTES = 0, 2
_BYTE_LIST, _FLOAT_LIST, _INTEGER_LIST = 1, 2, 3

Feature = list[bytes] | np.ndarray


class Records:
  """The records of one split, by index, in the order of the shards."""

  def __init__(self, shards: Sequence['_Shard'], origin: str):
    self._shards = tuple(shards)
    self._ends = np.cumsum([shard.count_records() for shard in self._shards])
    self._origin = origin

  def __len__(self) -> int:
    return int(self._ends[-1])

  def read(self, index: int) -> dict[str, Feature]:
    """Returns the features of a record by name.

    Raises IndexError for an index out of range, and ValueError for a damaged
    record.
    """
    if not 0 <= index < len(self):
      raise IndexError(
          f'index must be less than {len(self)}, the records of '
          f'{self._origin}; got {index}'
      )
    shard = int(np.searchsorted(self._ends, index, side='right'))
    before = int(self._ends[shard - 1]) if shard else 0
    data = self._shards[shard].read(index - before)
    try:
      return parse_example(data)
    except (IndexError, ValueError) as error:
      raise ValueError(
          f'{self._origin}: record {index} is damaged: {error}'
      ) from None


def open_records(root: str, name: str, split: str) -> Records:
  """Opens a split of a data set.

  Args:
    root: folder of the shards, or a folder with `name` and a version below it,
      as `DIR/movi_e/256x256/1.0.0`.
    name: data set and variant, such as 'movi_e/256x256'.
    split: such as 'train'.

  Raises:
    FileNotFoundError: shards are missing.
    ImportError: a library for their format is not installed.
  """
  files = _RemoteFiles() if '://' in root else _LocalFiles()
  folders = [root, f'{root.rstrip("/")}/{name}']
  seen = set()
  for folder in folders:
    for place in (*_list_versions(files, folder), folder):
      names = files.list_names(place)
      found = [match for n in names if (match := _SHARD.fullmatch(n))]
      seen |= {match['split'] for match in found}
      shards = [match for match in found if match['split'] == split]
      if shards:
        return _open_shards(files, place, shards)
  known = f'; it has {", ".join(sorted(seen))}' if seen else ''
  raise FileNotFoundError(
      f'{root} must hold shards of {name}, such as '
      f'{name.split("/")[0]}-{split}.tfrecord-00000-of-00010, there or in '
      f'{name}/1.0.0{known}'
  )


def _open_shards(
    files: '_Files', folder: str, matches: list[re.Match[str]]
) -> Records:
  """Opens the shards of one format and count; FileNotFoundError if partial."""
  kind, count = matches[0]['format'], matches[0]['count']
  names = sorted(
      match.string
      for match in matches
      if (match['format'], match['count']) == (kind, count)
  )
  if count is not None and len(names) != int(count):
    raise FileNotFoundError(
        f'{folder} must have {int(count)} shards like {names[0]}; it has '
        f'{len(names)} - is a download incomplete?'
    )
  make = _TfShard if kind == 'tfrecord' else _ArrayShard
  shards = [make(files, f'{folder}/{name}') for name in names]
  return Records(shards, f'{folder}/{matches[0]["name"]}')


class _LocalFiles:
  """Local folders."""

  def list_names(self, folder: str) -> list[str]:
    path = pathlib.Path(folder)
    return sorted(p.name for p in path.iterdir()) if path.is_dir() else []

  def open(self, path: str) -> BinaryIO:
    return open(path, 'rb')

  def size(self, path: str) -> int:
    return pathlib.Path(path).stat().st_size


class _RemoteFiles:
  """Remote folders, read through TensorFlow."""

  def __init__(self) -> None:
    try:
      import tensorflow
    except ImportError as error:
      raise ImportError(
          'folders with :// are read through TensorFlow, which is not '
          'installed - pip install tensorflow-cpu, or copy the data set here'
      ) from error
    self._gfile: Any = tensorflow.io.gfile

  def list_names(self, folder: str) -> list[str]:
    if not self._gfile.isdir(folder):
      return []
    return sorted(name.rstrip('/') for name in self._gfile.listdir(folder))

  def open(self, path: str) -> BinaryIO:
    return self._gfile.GFile(path, 'rb')

  def size(self, path: str) -> int:
    return self._gfile.stat(path).length


_Files = _LocalFiles | _RemoteFiles


class _TfShard(NamedTuple):
  """A TFRecord file, indexed by a scan of record lengths."""

  files: _Files
  path: str

  def count_records(self) -> int:
    return len(self._find_offsets())

  def read(self, index: int) -> bytes:
    offset, length = self._find_offsets()[index]
    with self.files.open(self.path) as file:
      file.seek(offset)
      data = file.read(length)
    if len(data) < length:
      raise ValueError(f'{self.path} ends within record {index}')
    return data

  def _find_offsets(self) -> list[tuple[int, int]]:
    return _index_shard(self.files, self.path)


@functools.cache
def _index_shard(files: _Files, path: str) -> list[tuple[int, int]]:
  """Returns (offset, length) in bytes of each record of a file."""
  size = files.size(path)
  offsets: list[tuple[int, int]] = []
  position = 0
  with files.open(path) as file:
    while position < size:
      file.seek(position)
      header = file.read(_HEADER)
      length = int.from_bytes(header[:8], 'little')
      start = position + _HEADER
      position = start + length + _FOOTER
      if len(header) < _HEADER or position > size:
        raise ValueError(
            f'{path} ends within record {len(offsets)} - is a download '
            'incomplete?'
        )
      offsets.append((start, length))
  return offsets


class _ArrayShard(NamedTuple):
  """An ArrayRecord file, which has an index."""

  files: _Files
  path: str

  def count_records(self) -> int:
    return _open_array_record(self.path).num_records()

  def read(self, index: int) -> bytes:
    return _open_array_record(self.path).read([index])[0]


_Shard = _TfShard | _ArrayShard


def _open_array_record(path: str) -> Any:
  try:
    from array_record.python import array_record_module
  except ImportError as error:
    raise ImportError(
        f'{path} is read by array_record, which is not installed - pip install '
        'array_record, or write the data set as tfrecord'
    ) from error
  return array_record_module.ArrayRecordReader(path)


def _list_versions(files: _Files, folder: str) -> list[str]:
  """Returns folders named by a version, the latest first."""
  names = [n for n in files.list_names(folder) if _VERSION.fullmatch(n)]
  names.sort(key=lambda n: [int(part) for part in n.split('.')], reverse=True)
  return [f'{folder}/{name}' for name in names]


def parse_example(data: bytes) -> dict[str, Feature]:
  """Returns the features of a serialized `tf.train.Example`, by name.

  Raises ValueError or IndexError for malformed data.
  """
  features = {}
  for _, group in _iterate_fields(data):
    for _, entry in _iterate_fields(group):
      parts = dict(_iterate_fields(entry))
      features[parts[1].decode()] = _parse_feature(parts.get(2, b''))
  return features


def _parse_feature(data: bytes) -> Feature:
  for kind, content in _iterate_fields(data):
    if kind == _BYTE_LIST:
      return [value for _, value in _iterate_fields(content)]
    # Numbers are packed; other programs may write several packs.
    packed = b''.join(value for _, value in _iterate_fields(content))
    if kind == _FLOAT_LIST:
      return np.frombuffer(packed, '<f4')
    if kind == _INTEGER_LIST:
      return _parse_integers(packed)
  return []


def _parse_integers(packed: bytes) -> np.ndarray:
  """Decodes packed varints: seven bits per byte, the lowest first."""
  raw = np.frombuffer(packed, np.uint8)
  if not raw.size:
    return np.zeros(0, np.int64)
  is_last = raw < 128
  number: np.ndarray = np.cumsum(is_last) - is_last
  starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
  place = np.arange(len(raw)) - starts[number]
  parts = (raw & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
  return np.add.reduceat(parts, starts).astype(np.int64)


def _iterate_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
  """Yields (field number, content) of the fields of a message."""
  view = memoryview(data)
  position = 0
  while position < len(view):
    key, position = _read_varint(view, position)
    if key & 7 == _VARINT:
      start = position
      _, position = _read_varint(view, position)
    elif key & 7 == _BYTES:
      length, start = _read_varint(view, position)
      position = start + length
    elif key & 7 in (1, 5):
      start = position
      position += 8 if key & 7 == 1 else 4
    else:
      raise ValueError(f'there is a field of unknown kind {key & 7}')
    if position > len(view):
      raise ValueError('it ends within a field')
    yield key >> 3, bytes(view[start:position])


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = view[position]
    position += 1
    value |= (byte & 127) << shift
    shift += 7
    if byte < 128:
      return value, position


def get_numbers(features: Mapping[str, Feature], name: str) -> np.ndarray:
  """Returns a numeric feature; ValueError if missing or of another type."""
  value = _get(features, name)
  if not isinstance(value, np.ndarray):
    raise ValueError(f'{name} must hold numbers; it holds byte strings')
  return value


def get_strings(features: Mapping[str, Feature], name: str) -> list[bytes]:
  """Returns a byte-string feature; ValueError if missing or numeric."""
  value = _get(features, name)
  if isinstance(value, np.ndarray):
    raise ValueError(f'{name} must hold byte strings; it holds numbers')
  return value


def _get(features: Mapping[str, Feature], name: str) -> Feature:
  if name not in features:
    raise ValueError(
        f'records must have {name}; they have {", ".join(sorted(features))}'
    )
  return features[name]
