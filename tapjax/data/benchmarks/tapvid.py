"""Readers of the published files of the TAP-Vid benchmarks.

DAVIS, RGB-Stacking, RoboTAP and Kinetics are pickles: a dict or a list of dicts
with `video`, `points` in normalized coordinates and `occluded`. The files may
be unpacked, or in the downloaded zip. No content of the files is executed, and
frames stay on disk until their video is read.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import pathlib
import re
import shutil
import tempfile
from typing import Any
import zipfile

from jaxtyping import UInt8
import numpy as np

from tapjax import checkpoints
from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import decode_images
from tapjax.data.labeled import Entry
from tapjax.data.labeled import make_annotated_video
from tapjax.data.labeled import Source

# Larger than any published file; a mapped pickle needs less memory than this.
_MAX_BYTES = 64 << 30
_FIELDS = ('video', 'points', 'occluded')
ROBOTAP_SPLITS = (0, 1, 2, 3, 4)


def open_davis(path: pathlib.Path) -> Source:
  """Opens TAP-Vid-DAVIS: `tapvid_davis.pkl`, its folder or its zip."""
  return _open_pickles(path, r'tapvid_davis\.pkl')


def open_rgb_stacking(path: pathlib.Path) -> Source:
  """Opens RGB-Stacking: `tapvid_rgb_stacking.pkl`, its folder or its zip."""
  return _open_pickles(path, r'tapvid_rgb_stacking\.pkl')


def open_robotap(
    path: pathlib.Path, splits: Sequence[int] | None = None
) -> Source:
  """Opens RoboTAP: `robotap_split<k>.pkl`, their folder or zip.

  `splits` are the numbers of splits to read, in order; None reads all that are
  present and lists the absent ones of five as missing. Raises ValueError for an
  absent split.
  """
  found = _find_files(path, r'robotap_split(\d+)\.pkl')
  numbers = {int(match[1]): name for name, match in found.items()}
  wanted = sorted(numbers) if splits is None else list(splits)
  if absent := [number for number in wanted if number not in numbers]:
    raise ValueError(
        f'{path} has no RoboTAP split {absent[0]}; it has '
        f'{", ".join(map(str, sorted(numbers)))}'
    )
  source = _list_pickles(path, [numbers[number] for number in wanted])
  missing = [] if splits else sorted({*ROBOTAP_SPLITS} - {*numbers})
  return source._replace(
      missing=tuple(f'robotap_split{number}.pkl' for number in missing)
  )


def open_kinetics(path: pathlib.Path) -> Source:
  """Opens TAP-Vid-Kinetics after conversion: shards `XXXX_of_XXXX.pkl`.

  For few clips the conversion writes fewer shards than their names claim, so
  absent ones are no error. Raises ValueError for shards of two conversions.
  """
  found = _find_files(path, r'(\d{4})_of_(\d{4})\.pkl')
  totals = {match[2] for match in found.values()}
  if len(totals) > 1:
    raise ValueError(
        f'{path} has shards of several conversions, of '
        f'{" and of ".join(sorted(totals))} - remove all but one'
    )
  return _list_pickles(path, sorted(found))


def decode_frames(frames: Any, name: str) -> UInt8[np.ndarray, 't h w 3']:
  """Returns RGB frames of an array of pixels or a list of images."""
  if isinstance(frames, np.ndarray) and frames.dtype.kind == 'u':
    return frames
  if not len(frames) or not all(isinstance(frame, bytes) for frame in frames):
    raise ValueError(
        f'{name}: video must be a uint8 array or JPEG images; got '
        f'{type(frames).__name__}'
    )
  return decode_images(list(frames), name)


def _open_pickles(path: pathlib.Path, pattern: str) -> Source:
  return _list_pickles(path, sorted(_find_files(path, pattern)))


def _list_pickles(path: pathlib.Path, names: Sequence[str]) -> Source:
  """Returns the videos of several pickles, concatenated."""

  def list_entries() -> Iterator[Entry]:
    for name in names:
      with _open_member(path, name) as file:
        yield from _list_pickle(file, name, several=len(names) > 1)

  return Source(list_entries)


def _list_pickle(
    file: pathlib.Path, name: str, *, several: bool
) -> Iterator[Entry]:
  """Yields the videos of one pickle."""
  root = checkpoints.map_pickle(file, max_bytes=_MAX_BYTES)
  if not isinstance(root, dict | list):
    raise ValueError(
        f'{name} must hold a dict or a list of videos; it holds a '
        f'{type(root).__name__} - is it a file of this benchmark?'
    )
  items = root.items() if isinstance(root, dict) else enumerate(root)
  stem = f'{pathlib.PurePath(name).stem}/' if several else ''
  for key, item in items:
    title = f'{stem}{key:05}' if isinstance(key, int) else f'{stem}{key}'
    read = functools.partial(_read_element, title, name, item)
    yield Entry(title, _count_frames(item), read)


def _count_frames(item: Any) -> int | None:
  """Returns the length of a video; None for a malformed entry."""
  video = item.get('video') if isinstance(item, dict) else None
  return len(video) if isinstance(video, np.ndarray | list) else None


def _read_element(title: str, origin: str, item: Any) -> AnnotatedVideo:
  """Returns one video of a pickle; ValueError for a malformed entry."""
  checkpoints.refuse_placeholders(item, origin, title)
  if not isinstance(item, dict) or any(name not in item for name in _FIELDS):
    raise ValueError(
        f'{origin}: {title} must be a dict with {", ".join(_FIELDS)}; got '
        f'{sorted(map(str, item)) if isinstance(item, dict) else type(item)}'
    )
  for name in ('points', 'occluded'):
    if not isinstance(item[name], np.ndarray):
      raise ValueError(f'{origin}: {title}: {name} must be an array')
  return make_annotated_video(
      title,
      decode_frames(item['video'], title),
      item['points'],
      item['occluded'],
  )


def _find_files(path: pathlib.Path, pattern: str) -> dict[str, re.Match[str]]:
  """Finds files by name in a folder or a zip, or returns the path itself.

  Raises FileNotFoundError if there is none, and ValueError for two files of the
  same name.
  """
  if path.is_dir():
    names = [str(p.relative_to(path)) for p in sorted(path.rglob('*.pkl'))]
  elif zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  elif path.is_file():
    names = [path.name]
  else:
    raise FileNotFoundError(f'there is no file or folder {path}')
  found = {
      name: match
      for name in names
      if (match := re.fullmatch(pattern, pathlib.PurePosixPath(name).name))
  }
  bases = [pathlib.PurePosixPath(name).name for name in found]
  if repeated := sorted({base for base in bases if bases.count(base) > 1}):
    raise ValueError(f'{path} has several files {repeated[0]} - name one')
  if not found:
    expected = pattern.replace('\\', '').replace('(d+)', '<k>')
    raise FileNotFoundError(
        f'{path} must be or hold {expected}; it holds '
        f'{", ".join(names[:5]) or "nothing"} - is it another benchmark?'
    )
  return found


@contextlib.contextmanager
def _open_member(path: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
  """Yields a file of a folder, or of a zip as a temporary file."""
  if path.is_dir():
    yield path / name
  elif zipfile.is_zipfile(path):
    with tempfile.TemporaryDirectory() as folder:
      unpacked = pathlib.Path(folder) / 'member.pkl'
      try:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(name) as packed,
            unpacked.open('wb') as file,
        ):
          shutil.copyfileobj(packed, file, 1 << 20)
      except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(
            f'{path}: {name} cannot be unpacked ({error}) - download it again'
        ) from None
      yield unpacked
  else:
    yield path
