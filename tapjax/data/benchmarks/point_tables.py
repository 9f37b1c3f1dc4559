"""Readers of tracks in .csv tables beside video files.

A row is a track. Perception Test and RoboTAP: a row is the name of a video and
then (x, y, occluded) for each frame. Kinetics: a row begins with the id of a
video and the first and last second of the clip, which the user has downloaded.
"""

from collections.abc import Iterator
import csv
import functools
import pathlib
import warnings

import numpy as np

from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import decode_images
from tapjax.data.labeled import Entry
from tapjax.data.labeled import make_annotated_video
from tapjax.data.labeled import Source
from tapjax.media.jpeg_images import read_jpeg_images
from tapjax.media.video import read_video

MAX_VIDEO_FRAMES = 1000
KINETICS_FRAMES = 250
KINETICS_RATE = 25


def open_table_folder(path: pathlib.Path) -> Source:
  """Opens the only .csv table of a folder, with videos there or in `videos`."""
  tables = sorted(path.glob('*.csv'))
  if len(tables) != 1:
    raise ValueError(
        f'{path} must be a folder with one .csv table; it has {len(tables)}'
    )
  videos = path / 'videos'
  return open_point_table(tables[0], videos if videos.is_dir() else path)


def open_point_table(
    path: pathlib.Path,
    videos: pathlib.Path,
    max_video_frames: int = MAX_VIDEO_FRAMES,
) -> Source:
  """Opens a .csv table of tracks and its videos.

  A video of more than `max_video_frames` is divided into equal parts, each an
  entry of its own. Absent videos are listed as missing.
  """
  groups = _group_rows(path, num_keys=1)
  files = {key: videos / _add_suffix(key[0]) for key in groups}
  missing = [key for key in groups if not files[key].is_file()]

  def list_entries() -> Iterator[Entry]:
    for key, rows in groups.items():
      if key in missing:
        continue
      (name,) = key
      points, occluded = _parse_rows(path, name, rows, np.float32)
      frames = read_video(files[key])
      length = min(len(frames), points.shape[1])
      num_parts = max(1, -(-len(frames) // max_video_frames))
      for part in range(num_parts):
        start, stop = (
            index * len(frames) // num_parts for index in (part, part + 1)
        )
        title = name if num_parts == 1 else f'{name}/{part}'
        keep = slice(start, min(stop, length))
        read = functools.partial(
            make_annotated_video,
            title,
            frames[start:stop],
            points[:, keep],
            occluded[:, keep],
        )
        yield Entry(title, stop - start, read)

  return Source(list_entries, tuple(key[0] for key in missing))


def open_kinetics_table(path: pathlib.Path, videos: pathlib.Path) -> Source:
  """Opens `tapvid_kinetics.csv` and clips, as the published conversion does.

  Clips are `<id>_<start>_<end>.mp4`, with six digits for the seconds, anywhere
  below `videos`. They are read at 25 frames per second, at most 250 frames,
  through JPEG as published. Absent clips are listed as missing.
  """
  groups = _group_rows(path, num_keys=3)
  files: dict[str, pathlib.Path] = {}
  for file in sorted(videos.rglob('*.mp4')):
    if file.name in files:
      raise ValueError(
          f'{videos} has two clips {file.name}, in {files[file.name].parent} '
          f'and {file.parent} - remove one'
      )
    files[file.name] = file
  names = {key: f'{key[0]}_{int(key[1]):06}_{int(key[2]):06}' for key in groups}
  missing = [name for name in names.values() if f'{name}.mp4' not in files]
  if missing:
    warnings.warn(
        f'{len(missing)} of {len(groups)} clips are not in {videos}',
        stacklevel=2,
    )

  def read(name: str, rows: list[list[str]]) -> AnnotatedVideo:
    points, occluded = _parse_rows(path, name, rows, np.float64)
    images = read_jpeg_images(
        files[f'{name}.mp4'], KINETICS_RATE, KINETICS_FRAMES
    )
    frames = decode_images(images, name)
    # Coordinates count from the centers of pixels, unlike other benchmarks.
    size = np.asarray(frames.shape[2:0:-1], np.float64)
    points = (points * size - 0.5) / size
    kept = slice(len(frames))
    points, occluded = points[:, kept], occluded[:, kept]
    # Points may lie half a pixel outside of the frame: no check.
    return AnnotatedVideo(name, frames, points, occluded)

  def list_entries() -> Iterator[Entry]:
    for key, rows in groups.items():
      name = names[key]
      if name not in missing:
        yield Entry(name, None, functools.partial(read, name, rows))

  return Source(list_entries, tuple(missing))


def _group_rows(
    path: pathlib.Path, num_keys: int
) -> dict[tuple[str, ...], list[list[str]]]:
  """Returns the rows of every video by its `num_keys` first fields."""
  if not path.is_file():
    raise FileNotFoundError(f'there is no table {path}; is the path right?')
  groups: dict[tuple[str, ...], list[list[str]]] = {}
  with path.open(newline='', encoding='utf-8') as file:
    for number, row in enumerate(csv.reader(file), start=1):
      if not row:
        continue
      values = len(row) - num_keys
      if values < 3 or values % 3:
        raise ValueError(
            f'{path}: line {number} must have {num_keys} names and then x, y '
            f'and occluded for each frame; it has {len(row)} fields'
        )
      groups.setdefault(tuple(row[:num_keys]), []).append(row[num_keys:])
  if not groups:
    raise ValueError(f'{path} must have a row for each track; it has none')
  return groups


def _parse_rows(
    path: pathlib.Path, name: str, rows: list[list[str]], dtype: type
) -> tuple[np.ndarray, np.ndarray]:
  """Returns points [n, t, 2] and their occlusion [n, t]."""
  try:
    values: np.ndarray = np.asarray(rows, dtype).reshape(len(rows), -1, 3)
  except ValueError:
    raise ValueError(
        f'{path}: the rows of {name} must be numbers, as many in each'
    ) from None
  return values[..., :2], values[..., 2] > 0


def _add_suffix(name: str) -> str:
  return name if name.endswith('.mp4') else f'{name}.mp4'
