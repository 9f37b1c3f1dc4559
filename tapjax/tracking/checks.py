"""Checks of what users pass in, with messages that say how to mend it."""

import csv
import os
import pathlib
import re
import tokenize
from typing import TypeGuard
import warnings
import zipfile
import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution
from tapjax.tracking import hints

# What NumPy raises for archives that are damaged, or of a stranger kind.
_DAMAGE = (
    EOFError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def check_frames(frames: object) -> UInt8[np.ndarray, 't h w 3']:
  """Returns frames as an array, or raises ValueError."""
  return _check_colors(frames, 'frames', ('t', 'h', 'w'))


def check_frame(frame: object) -> UInt8[np.ndarray, 'h w 3']:
  """Returns one frame as an array, or raises ValueError."""
  return _check_colors(frame, 'frame', ('h', 'w'))


def _check_colors(
    frames: object, name: str, axes: tuple[str, ...]
) -> UInt8[np.ndarray, '*b h w 3']:
  layout = f'[{", ".join(axes)}, 3]'
  if not isinstance(frames, (np.ndarray, jax.Array)):
    raise ValueError(
        f'{name} must be a uint8 array {layout}; got {type(frames).__name__} - '
        f'{hints.suggest_array(frames, name)}'
    )
  array = np.asarray(frames)
  if array.ndim == 2 and array.shape[-1] == 3 and array.dtype != np.uint8:
    raise ValueError(
        f'{name} must be a uint8 array {layout}; got {array.dtype} '
        f'{array.shape} - are these the points? {name} come first'
    )
  if array.dtype != np.uint8:
    raise ValueError(
        f'{name} must be uint8 in 0 to 255; got {array.dtype} - '
        f'{hints.suggest_colors(array, name)}'
    )
  num_axes = len(axes) + 1
  if array.ndim != num_axes or array.shape[-1] != 3:
    raise ValueError(
        f'{name} must be {layout}; got {array.shape}'
        f'{hints.suggest_layout(array.shape, name, num_axes)}'
    )
  if 0 in array.shape:
    raise ValueError(
        f'{name} must hold at least one pixel of one frame; got {array.shape} '
        '- was the video read to its end before?'
    )
  return array


def check_query_points(query_points: object) -> Float[np.ndarray, 'n 3']:
  """Returns query points as float32, or raises ValueError.

  An empty list is zero queries.
  """
  return _check_points(query_points, 'query_points', ('t', 'y', 'x'))


def check_points_yx(points_yx: object) -> Float[np.ndarray, 'n 2']:
  """Returns points (y, x) as float32, or raises ValueError.

  An empty list is no points.
  """
  return _check_points(points_yx, 'points_yx', ('y', 'x'))


def _check_points(
    points: object, name: str, columns: tuple[str, ...]
) -> Float[np.ndarray, 'n k']:
  count, each = len(columns), f'({", ".join(columns)})'
  if points is None or isinstance(points, (str, os.PathLike, dict)):
    raise ValueError(
        f'{name} must be float [n, {count}], each {each}; got '
        f'{points!r} - pass numbers, one row per point'
    )
  try:
    array = np.asarray(points)
  except ValueError:
    raise ValueError(
        f'{name} must be [n, {count}], each {each}; got rows of different '
        'lengths'
    ) from None
  if array.shape in ((0,), (0, count)):
    return np.zeros((0, count), np.float32)
  if not jnp.issubdtype(array.dtype, jnp.floating):
    hint = 'pass numbers, one row per point'
    if array.dtype.kind in 'biu':
      hint = f'pass numpy.asarray({name}, numpy.float32)'
    raise ValueError(f'{name} must be float {each}; got {array.dtype} - {hint}')
  if array.ndim != 2 or array.shape[-1] != count:
    hint = 'one row per point, without a batch axis'
    if array.ndim == 2 and array.shape[-1] == count - 1 == 2:
      hint = (
          'for points (y, x) of the first frame, pass '
          f'numpy.insert({name}, 0, 0, axis=1)'
      )
    raise ValueError(
        f'{name} must be [n, {count}], each {each}; got {array.shape} - {hint}'
    )
  with np.errstate(over='ignore'):
    known = array.astype(np.float32)
  finite = np.isfinite(known).all(axis=-1)
  if not finite.all():
    row = int(np.argmin(finite))
    raise ValueError(
        f'{name} must be finite; got {array[row].tolist()} in row {row} '
        f'({np.sum(~finite)} such rows) - drop these points'
    )
  return known


def check_queries_inside(
    query_points: Float[np.ndarray, 'n 3'],
    num_frames: int | None,
    resolution: Resolution,
) -> None:
  """Raises ValueError where a query lies outside of the video.

  `num_frames` is None where the end of the video is not known yet.
  """
  last = np.inf if num_frames is None else num_frames - 1
  limits = np.asarray([last, *resolution], np.float32)
  inside = _find_inside(query_points, limits)
  if inside.all():
    return
  row = int(np.argmin(inside))
  t, y, x = query_points[row].tolist()
  raise ValueError(
      'query_points must lie in the video, (t, y, x) with 0 <= t'
      f'{"" if num_frames is None else f" <= {last}"}, 0 <= y <= '
      f'{resolution[0]} and 0 <= x <= {resolution[1]}; got '
      f'({t:g}, {y:g}, {x:g}) in row {row} '
      f'({np.sum(~inside)} such rows) - '
      f'{hints.suggest_order(query_points, limits, "query_points")}'
  )


def check_points_inside(
    points_yx: Float[np.ndarray, 'n 2'], resolution: Resolution
) -> None:
  """Raises ValueError where a point (y, x) lies outside of its frame."""
  limits = np.asarray(resolution, np.float32)
  inside = _find_inside(points_yx, limits)
  if inside.all():
    return
  row = int(np.argmin(inside))
  y, x = points_yx[row].tolist()
  hint = 'is the order (y, x), in pixels?'
  if _find_inside(points_yx[:, ::-1], limits).all():
    hint = 'all lie inside as (x, y): pass points_yx[:, ::-1]'
  raise ValueError(
      'points_yx must lie in the frame, (y, x) with 0 <= y <= '
      f'{resolution[0]} and 0 <= x <= {resolution[1]}; got ({y:g}, {x:g}) in '
      f'row {row} ({np.sum(~inside)} such rows) - {hint}'
  )


def _find_inside(
    points: Float[np.ndarray, 'n k'], limits: Float[np.ndarray, 'k']
) -> Bool[np.ndarray, 'n']:
  return np.asarray(((points >= 0) & (points <= limits)).all(axis=-1))


def warn_of_shares(
    points_yx: Float[np.ndarray, 'n 2'],
    resolution: Resolution,
    name: str,
    stacklevel: int,
) -> None:
  """Warns of points that look like shares of a frame, not like pixels."""
  if message := hints.describe_shares(points_yx, resolution, name):
    warnings.warn(message, stacklevel=stacklevel + 1)


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


def check_chunks(
    query_chunk: object, frame_chunk: object, window: object = None
) -> None:
  """Raises ValueError unless chunks are at least one; None chooses them."""
  chunks = {
      'query_chunk': query_chunk,
      'frame_chunk': frame_chunk,
      'window': window,
  }
  for name, chunk in chunks.items():
    if chunk is None:
      continue
    if not _is_count(chunk):
      raise ValueError(f'{name} must be a whole number above 0; got {chunk!r}')


def check_memory(memory: object) -> int:
  """Returns bytes from a number of them, or from text such as '4GB'.

  k, M and G are powers of 1000, and Ki, Mi and Gi of 1024.
  """
  if isinstance(memory, str):
    match = re.fullmatch(
        r'\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*(?:([kMG]i?)?B)?\s*', memory
    )
    if match:
      number, prefix = float(match[1]), match[2] or ''
      base = 1024 if prefix.endswith('i') else 1000
      size = number * base ** ' kMG'.index(prefix[:1] or ' ')
      memory = int(size) if np.isfinite(size) else memory
  if isinstance(memory, float) and memory.is_integer():  # As in 4e9.
    memory = int(memory)
  if not _is_count(memory):
    raise ValueError(
        "max_memory must be a number of bytes above 0, or like '4GB' or "
        f"'500MB'; got {memory!r}"
    )
  return int(memory)


def _is_count(value: object) -> TypeGuard[int | np.integer]:
  """Returns whether a value is a whole number above 0, and no truth value."""
  if not isinstance(value, (int, np.integer)) or value is True:
    return False
  return int(value) >= 1


def read_query_points(
    path: str | os.PathLike[str],
) -> Float[np.ndarray, 'n 3']:
  """Reads query points (t, y, x) from a file.

  A .csv file has columns t, y and x in any order, or three columns in that
  order without a header. A .npz file has an array `query_points`. Raises
  FileNotFoundError or ValueError, which name the file.
  """
  path = pathlib.Path(path)
  readers = {'.csv': _read_csv_points, '.npz': _read_npz_points}
  if path.suffix.lower() not in readers:
    raise ValueError(f'query points must be a .csv or .npz file; got {path}')
  if not path.is_file():
    raise FileNotFoundError(
        f'there is no file {path} with query points; is the path right?'
    )
  points = np.asarray(readers[path.suffix.lower()](path))
  if points.dtype.kind in 'iu':
    points = points.astype(np.float32)
  try:
    return check_query_points(points)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _read_npz_points(path: pathlib.Path) -> np.ndarray:
  if not zipfile.is_zipfile(path):
    raise ValueError(
        f'{path} must be a .npz archive; it is cut short or of another format '
        '- write it with numpy.savez(path, query_points=...)'
    )
  try:
    with path.open('rb') as file, np.load(file, allow_pickle=False) as archive:
      names = archive.files
      if 'query_points' in names:
        points = np.asarray(archive['query_points'])
        # Whole numbers are points here, as they are in a .csv file.
        return points.astype(float) if points.dtype.kind in 'iu' else points
  except _DAMAGE as error:
    raise ValueError(
        f'{path} must be a .npz archive of numbers; it cannot be read ({error})'
        ' - is it damaged?'
    ) from None
  raise ValueError(
      f'{path} must have an array query_points [n, 3]; it has '
      f'{", ".join(names) or "none"}'
  )


def _read_csv_points(path: pathlib.Path) -> np.ndarray:
  try:
    with path.open(newline='', encoding='utf-8-sig') as file:
      reader = csv.reader(file)
      lines = [(reader.line_num, row) for row in reader if any(row)]
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f'{path} must be a .csv text file; {error}') from None
  if not lines:
    raise ValueError(
        f'{path} must have the columns t, y, x; it is empty - for no queries, '
        'write the header alone'
    )
  columns = ['t', 'y', 'x']
  if not _is_number(lines[0][1][0]):
    columns = [name.strip().lower() for name in lines.pop(0)[1]]
  if sorted(columns) != ['t', 'x', 'y']:
    raise ValueError(
        f'{path} must have the columns t, y, x, separated by commas; it has '
        f'{", ".join(map(repr, columns))}'
    )
  for number, row in lines:
    if len(row) != 3 or not all(map(_is_number, row)):
      raise ValueError(
          f'{path} must have three numbers t, y, x a line; line {number} is '
          f'{",".join(row)!r}'
      )
  points = np.asarray([row for _, row in lines], np.float64).reshape(-1, 3)
  return points[:, [columns.index(name) for name in ('t', 'y', 'x')]]


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
