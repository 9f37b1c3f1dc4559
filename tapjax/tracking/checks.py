"""Checks of what users pass in, with messages that say how to mend it."""

import csv
import os
import pathlib
import re
import tokenize
import warnings
import zipfile
import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution

# In smaller videos several queries may well be in the first pixel.
_FEW_PIXELS = 8
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
  if not isinstance(frames, (np.ndarray, jax.Array)):
    raise ValueError(
        'frames must be a uint8 array [t, h, w, 3]; got '
        f'{type(frames).__name__} - read a file with tapjax.read_video, or '
        'stack the frames with numpy.stack'
    )
  array = np.asarray(frames)
  if array.dtype != np.uint8:
    hint = 'bring colors to that range, then .astype(numpy.uint8)'
    if jnp.issubdtype(array.dtype, np.floating) and array.size:
      low, high = float(array.min()), float(array.max())
      if low >= 0 and high <= 1:
        hint = (
            'colors lie in [0, 1]: pass (255 * frames).round().astype('
            'numpy.uint8)'
        )
      elif low >= -1 and high <= 1:
        hint = (
            'colors lie in [-1, 1]: pass (127.5 * (frames + 1)).round().astype('
            'numpy.uint8)'
        )
    raise ValueError(
        f'frames must be uint8 in 0 to 255; got {array.dtype} - {hint}'
    )
  if array.ndim != 4 or array.shape[-1] != 3:
    hint = _find_frames_hint(array.shape)
    raise ValueError(f'frames must be [t, h, w, 3]; got {array.shape}{hint}')
  if 0 in array.shape:
    raise ValueError(
        f'frames must hold at least one pixel of one frame; got {array.shape} '
        '- was the video read to its end before?'
    )
  return array


def _find_frames_hint(shape: tuple[int, ...]) -> str:
  """Returns the likely mend for frames of a wrong shape."""
  match shape:
    case (_, _, 3):
      return ' - one frame? add a time axis: frames[None]'
    case (_, _, _):
      return (
          ' - gray? repeat the channel: '
          'numpy.repeat(frames[..., None], 3, axis=-1)'
      )
    case (_, _, _, 1):
      return ' - gray? repeat the channel: numpy.repeat(frames, 3, axis=-1)'
    case (_, _, _, 4):
      return ' - RGBA? drop the last channel: frames[..., :3]'
    case (_, 3, _, _):
      return ' - channels first? pass frames.transpose(0, 2, 3, 1)'
    case (1, _, _, _, 3):
      return ' - a batch of one? pass frames[0]'
    case (_, _, _, _, 3):
      return ' - a batch? pass one video at a time'
  return ''


def check_query_points(query_points: object) -> Float[np.ndarray, 'n 3']:
  """Returns query points as float32, or raises ValueError.

  An empty list is zero queries.
  """
  try:
    array = np.asarray(query_points)
  except ValueError:
    raise ValueError(
        'query_points must be [n, 3], each (t, y, x); got rows of different '
        'lengths'
    ) from None
  if array.shape in ((0,), (0, 3)):
    return np.zeros((0, 3), np.float32)
  # Unlike NumPy's, this one knows bfloat16.
  if not jnp.issubdtype(array.dtype, np.floating):
    raise ValueError(
        f'query_points must be float (t, y, x); got {array.dtype} - convert '
        'with .astype(numpy.float32)'
    )
  if array.ndim != 2 or array.shape[-1] != 3:
    raise ValueError(
        'query_points must be [n, 3], each (t, y, x); got '
        f'{array.shape} - one row per point, without a batch axis'
    )
  with np.errstate(over='ignore'):
    points = array.astype(np.float32)
  finite = np.isfinite(points).all(axis=-1)
  if not finite.all():
    row = int(np.argmin(finite))
    raise ValueError(
        f'query_points must be finite; got {array[row].tolist()} in row {row} '
        f'({np.sum(~finite)} such rows) - drop these queries'
    )
  return points


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
  inside = ((query_points >= 0) & (query_points <= limits)).all(axis=-1)
  if inside.all():
    _warn_of_normalized(query_points, resolution)
    return
  row = int(np.argmin(inside))
  t, y, x = query_points[row].tolist()
  raise ValueError(
      'query_points must lie in the video, (t, y, x) with 0 <= t'
      f'{"" if num_frames is None else f" <= {last}"}, 0 <= y <= '
      f'{resolution[0]} and 0 <= x <= {resolution[1]}; got '
      f'({t:g}, {y:g}, {x:g}) in row {row} '
      f'({np.sum(~inside)} such rows) - '
      + _find_query_hint(query_points, limits)
  )


def _find_query_hint(
    query_points: Float[np.ndarray, 'n 3'], limits: Float[np.ndarray, '3']
) -> str:
  """Returns the likely mend for queries outside of the video."""
  orders = {'(t, x, y)': [0, 2, 1], '(x, y, t)': [2, 1, 0]}
  for name, order in orders.items():
    points = query_points[:, order]
    if ((points >= 0) & (points <= limits)).all():
      return (
          f'all of them fit as {name}: pass query_points[:, {order}], which is '
          '(t, y, x)'
      )
  return 'is the order (t, y, x), in pixels?'


def _warn_of_normalized(
    query_points: Float[np.ndarray, 'n 3'], resolution: Resolution
) -> None:
  """Warns where all of several queries lie in the first pixel."""
  positions = query_points[:, 1:]
  if (
      len(positions) > 1
      and min(resolution) > _FEW_PIXELS
      and (positions <= 1).all()
      and len(np.unique(positions, axis=0)) > 1
  ):
    warnings.warn(
        f'all {len(positions)} query_points lie in the first pixel of '
        f'{resolution[1]}x{resolution[0]} ones - if they are normalized to '
        '[0, 1], multiply y by the height and x by the width',
        stacklevel=4,
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
    if not isinstance(chunk, (int, np.integer)) or chunk < 1:
      raise ValueError(f'{name} must be a whole number above 0; got {chunk!r}')


def check_memory(memory: object) -> int:
  """Returns bytes from a number of them, or from text such as '4GB'.

  k, M and G are powers of 1000, and Ki, Mi and Gi of 1024.
  """
  if isinstance(memory, str):
    match = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([kMG]i?)?B\s*', memory)
    if match:
      number, prefix = float(match[1]), match[2] or ''
      base = 1024 if prefix.endswith('i') else 1000
      memory = int(number * base ** ' kMG'.index(prefix[:1] or ' '))
  if not isinstance(memory, (int, np.integer)) or memory < 1:
    raise ValueError(
        "max_memory must be a number of bytes above 0, or like '4GB' or "
        f"'500MB'; got {memory!r}"
    )
  return int(memory)


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
        return np.asarray(archive['query_points'])
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
