"""Checks of what users pass in, with messages that say how to mend it."""

import csv
import os
import pathlib
import zipfile

import jax
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution


def check_frames(frames: object) -> UInt8[np.ndarray, 't h w 3']:
  """Returns frames as an array, or raises ValueError."""
  if not isinstance(frames, (np.ndarray, jax.Array)):
    raise ValueError(
        'frames must be a uint8 array [t, h, w, 3]; got '
        f'{type(frames).__name__} - read a file with tapjax.read_video, or '
        'stack the frames with numpy.stack'
    )
  array = np.asarray(frames)
  if array.dtype != np.uint8:
    raise ValueError(
        f'frames must be uint8 in 0 to 255; got {array.dtype} - convert colors '
        'to that range with .astype(numpy.uint8)'
    )
  if array.ndim != 4 or array.shape[-1] != 3:
    hint = ' - add a time axis?' if array.ndim == 3 else ''
    raise ValueError(f'frames must be [t, h, w, 3]; got {array.shape}{hint}')
  if 0 in array.shape:
    raise ValueError(
        f'frames must hold at least one pixel of one frame; got {array.shape} '
        '- was the video read to its end before?'
    )
  return array


def check_query_points(query_points: object) -> Float[np.ndarray, 'n 3']:
  """Returns query points as float32, or raises ValueError.

  An empty list is zero queries.
  """
  array = np.asarray(query_points)
  if array.size == 0 and array.ndim <= 2:
    return np.zeros((0, 3), np.float32)
  if not np.issubdtype(array.dtype, np.floating):
    raise ValueError(
        f'query_points must be float (t, y, x); got {array.dtype} - convert '
        'with .astype(numpy.float32)'
    )
  if array.ndim != 2 or array.shape[-1] != 3:
    raise ValueError(
        'query_points must be [n, 3], each (t, y, x); got '
        f'{array.shape} - one row per point, without a batch axis'
    )
  finite = np.isfinite(array).all(axis=-1)
  if not finite.all():
    row = int(np.argmin(finite))
    raise ValueError(
        f'query_points must be finite; got {array[row].tolist()} in row {row} '
        f'({np.sum(~finite)} such rows) - drop these queries'
    )
  return array.astype(np.float32)


def check_queries_inside(
    query_points: Float[np.ndarray, 'n 3'],
    num_frames: int,
    resolution: Resolution,
) -> None:
  """Raises ValueError where a query lies outside of the video."""
  limits = np.asarray([num_frames - 1, *resolution], np.float32)
  inside = ((query_points >= 0) & (query_points <= limits)).all(axis=-1)
  if inside.all():
    return
  row = int(np.argmin(inside))
  t, y, x = query_points[row].tolist()
  raise ValueError(
      'query_points must lie in the video, (t, y, x) with 0 <= t <= '
      f'{num_frames - 1}, 0 <= y <= {resolution[0]} and 0 <= x <= '
      f'{resolution[1]}; got ({t:g}, {y:g}, {x:g}) in row {row} '
      f'({np.sum(~inside)} such rows) - is the order (t, y, x), in pixels?'
  )


def check_resolution(resolution: object) -> Resolution:
  """Returns (height, width) as integers, or raises ValueError."""
  sides = tuple(resolution) if isinstance(resolution, (tuple, list)) else ()
  if len(sides) != 2 or not all(
      isinstance(side, (int, np.integer)) and side > 0 for side in sides
  ):
    raise ValueError(
        'resolution must be (height, width), two positive integers; got '
        f'{resolution!r}'
    )
  return int(sides[0]), int(sides[1])


def check_chunk(name: str, chunk: int | None) -> None:
  """Raises ValueError unless a chunk is None or at least one."""
  if chunk is not None and chunk < 1:
    raise ValueError(f'{name} must be at least 1, or None; got {chunk}')


def read_query_points(
    path: str | os.PathLike[str],
) -> Float[np.ndarray, 'n 3']:
  """Reads query points (t, y, x) from a file.

  A .csv file has columns t, y and x in any order, or three columns in that
  order without a header. A .npz file has an array `query_points`.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'no file {path} with query points')
  if path.suffix == '.npz':
    return check_query_points(_read_npz_points(path))
  if path.suffix == '.csv':
    return check_query_points(_read_csv_points(path))
  raise ValueError(f'query points must be a .csv or .npz file; got {path.name}')


def _read_npz_points(path: pathlib.Path) -> np.ndarray:
  try:
    with np.load(path, allow_pickle=False) as arrays:
      return arrays['query_points']
  except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
    raise ValueError(
        f'{path} must be a .npz archive; it cannot be read ({error})'
    ) from None
  except KeyError:
    raise ValueError(
        f'{path} must have an array query_points [n, 3]; it has none'
    ) from None


def _read_csv_points(path: pathlib.Path) -> np.ndarray:
  try:
    with path.open(newline='', encoding='utf-8-sig') as file:
      rows = [row for row in csv.reader(file) if row]
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f'{path} must be a .csv text file; {error}') from None
  columns = ['t', 'y', 'x']
  first = 1
  if rows and not _is_number(rows[0][0]):
    columns = [name.strip().lower() for name in rows.pop(0)]
    first = 2
  if sorted(columns) != ['t', 'x', 'y']:
    raise ValueError(f'{path} must have the columns t, y, x; it has {columns}')
  order = [columns.index(name) for name in ('t', 'y', 'x')]
  for i, row in enumerate(rows):
    if len(row) != 3 or not all(map(_is_number, row)):
      raise ValueError(
          f'{path} must have three numbers t, y, x a line; line {i + first} is '
          f'{",".join(row)!r}'
      )
  points = np.asarray(rows, np.float64).reshape(-1, 3)
  return points[:, order]


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
