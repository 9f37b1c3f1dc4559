"""Folders of checkpoints `model-<step>.pth`, unpacked or as `.tar.gz`.

The newest checkpoint is the one with the largest step.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import gzip
import pathlib
import re
import shutil
import tarfile
import tempfile
from typing import BinaryIO
import zlib

MAGIC = b'\x1f\x8b'
_NAME = re.compile(r'(?:.*/)?model-(\d+)\.pth')
_LARGEST = 2**32
_BLOCK = 2**20


def find_newest(path: pathlib.Path) -> pathlib.Path:
  """Returns the newest checkpoint of a folder; ValueError without one."""
  name = _choose_newest(file.name for file in path.iterdir() if file.is_file())
  if name is None:
    raise ValueError(
        f'checkpoint must be a file, or a folder with model-<step>.pth; {path} '
        'is a folder without one - name a file in it?'
    )
  return path / name


@contextlib.contextmanager
def open_newest(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Yields the newest checkpoint of a packed folder as an open file.

  Nothing else is unpacked. Raises ValueError for a damaged archive.
  """
  with tempfile.TemporaryFile() as file:
    try:
      with gzip.open(path) as packed:
        _check_whole(packed)
        with tarfile.open(fileobj=packed, mode='r:') as archive:
          _unpack_newest(archive, file)
    except (
        tarfile.TarError,
        EOFError,
        OSError,
        OverflowError,
        ValueError,
        zlib.error,
    ) as error:
      raise ValueError(
          f'{path} cannot be read as a packed folder of checkpoints: {error}'
      ) from None
    file.seek(0)
    yield file


def _check_whole(packed: gzip.GzipFile) -> None:
  """Reads to the end, which detects truncation, and rewinds."""
  size = 0
  while block := packed.read(_BLOCK):
    size += len(block)
    if size > _LARGEST:
      raise ValueError(f'it must hold at most {_LARGEST} bytes; it holds more')
  packed.seek(0)


def _unpack_newest(archive: tarfile.TarFile, file: BinaryIO) -> None:
  members = {
      member.name: member for member in archive.getmembers() if member.isfile()
  }
  name = _choose_newest(members)
  if name is None:
    raise ValueError('it must hold a file model-<step>.pth; it has none')
  content = archive.extractfile(members[name])
  assert content is not None, 'it is a file'
  with content:
    shutil.copyfileobj(content, file)


def _choose_newest(names: Iterable[str]) -> str | None:
  steps = {
      name: int(match.group(1))
      for name in names
      if (match := _NAME.fullmatch(name)) is not None
  }
  return max(steps, key=lambda name: steps[name], default=None)
