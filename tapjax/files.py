"""Files that appear whole or not at all."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import secrets
from typing import BinaryIO


@contextlib.contextmanager
def write_atomically(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a new file beside `path` that takes its name when the block ends.

  If the block fails, `path` is as it was before and nothing is left beside it.
  Raises FileNotFoundError if the folder does not exist.
  """
  if not path.parent.is_dir():
    raise FileNotFoundError(
        f'cannot write {path}: there is no folder {path.parent} - create it?'
    )
  if path.is_dir():
    raise ValueError(f'cannot write {path}: it is a folder; expected a file')
  temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.tmp')
  try:
    with temporary.open('xb') as file:
      yield file
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
