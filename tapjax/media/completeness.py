"""Whether a file ends before its container does.

FFmpeg reports most truncations by its packets. For two containers it only logs
them, so that the structure of the file is read here.
"""

import pathlib
from typing import BinaryIO

_SEGMENT = 0x18538067
_MATROSKA = b'\x1a\x45\xdf\xa3'


def is_cut_short(path: pathlib.Path) -> bool:
  """Returns whether a Matroska or GIF file ends inside of one of its parts."""
  with path.open('rb') as file:
    head = file.read(4)
    if head == _MATROSKA:
      return _is_matroska_cut(file, path.stat().st_size)
    if head == b'GIF8':
      file.seek(max(0, path.stat().st_size - 1024))
      return not file.read().rstrip(b'\0').endswith(b';')
  return False


def _is_matroska_cut(file: BinaryIO, size: int) -> bool:
  """Walks over the elements of a file; clusters of known size are skipped."""
  place = 0
  while place < size:
    file.seek(place)
    name = _read_number(file, keep_marker=True)
    length = _read_number(file, keep_marker=False)
    if name is None or length is None:
      return True
    number, _ = name
    value, is_unknown = length
    place = file.tell()
    if not (number == _SEGMENT or is_unknown):
      place += value
    elif not is_unknown and place + value > size:
      return True
  return place > size


def _read_number(
    file: BinaryIO, *, keep_marker: bool
) -> tuple[int, bool] | None:
  """Reads an EBML number, and whether all of its bits are set (unknown).

  Returns None at the end of the file and where no number can be.
  """
  first = file.read(1)
  if not first or not first[0]:
    return None
  length = 9 - first[0].bit_length()
  rest = file.read(length - 1)
  if len(rest) < length - 1 or (keep_marker and length > 4):
    return None
  number = int.from_bytes(first + rest, 'big')
  value = number & ((1 << 7 * length) - 1)
  return (number if keep_marker else value), value == (1 << 7 * length) - 1
