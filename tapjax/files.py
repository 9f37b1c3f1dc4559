"""Atomic writing of files: a file appears complete or not at all."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import csv
import io
import itertools
import json
import os
import pathlib
import secrets
from typing import Any, BinaryIO

from jaxtyping import Float
import numpy as np

# Seconds of the frames of a video.
Times = Sequence[float] | Float[np.ndarray, '_']


@contextlib.contextmanager
def write_atomically(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Opens a temporary file, renamed to `path` at the end of the block.

  If the block fails, `path` is unchanged and the temporary file is removed.
  Raises FileNotFoundError if the folder of `path` does not exist, and
  ValueError if `path` is a folder.
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


def keep_settings(path: pathlib.Path, settings: Mapping[str, Any]) -> list[str]:
  """Writes the settings of a folder as JSON, or compares with those there.

  Returns the names of settings that differ from an existing file; an empty list
  for a new file. Settings must be JSON values.
  """
  if not path.is_file():
    with write_atomically(path) as file:
      file.write(json.dumps(settings, indent=1, allow_nan=False).encode())
    return []
  # Tuples become lists, as in the file.
  settings = json.loads(json.dumps(settings))
  found = json.loads(path.read_text(encoding='utf-8'))
  return [
      name
      for name in {**settings, **found}
      if settings.get(name) != found.get(name)
  ]


def write_csv(path: pathlib.Path, rows: Iterable[Sequence[object]]) -> None:
  """Writes rows as a CSV file; the first row has the column names."""
  with write_atomically(path) as file:
    text = io.TextIOWrapper(file, encoding='utf-8', newline='')
    csv.writer(text, lineterminator='\n').writerows(rows)
    text.flush()
    text.detach()


def write_track_table(
    path: pathlib.Path,
    rows: Iterable[tuple[int, int, float, float, bool]],
    times: Times,
) -> None:
  """Writes tracks as a CSV file with one line for each query and frame.

  Rows are (index of the query, index of the frame, x, y, visibility), and
  `times` the seconds of the frames.
  """
  lines = (
      (
          query,
          frame,
          f'{x:.3f}',
          f'{y:.3f}',
          int(visible),
          f'{times[frame]:.6f}',
      )
      for query, frame, x, y, visible in rows
  )
  header = ('query', 'frame', 'x', 'y', 'visible', 'times')
  write_csv(path, itertools.chain([header], lines))
