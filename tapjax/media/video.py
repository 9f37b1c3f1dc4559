"""Reading and writing of videos: files, addresses and pictures, through PyAV.

One frame is held at a time, so that a video of any length needs the memory of a
few frames. Rotated videos (phones) arrive upright, in the displayed size.

H.264 with 4:2:0, which every player decodes, has even sizes only. Frames of an
odd size are written with their last row or column repeated, and the true size
is stored in the file, so that `read_video` can crop them.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import itertools
import math
import os
import pathlib
import secrets
from typing import Any
import urllib.parse
import warnings

import av
from jaxtyping import UInt8
import numpy as np

from tapjax.files import Times
from tapjax.media import containers
from tapjax.media import decoding
from tapjax.media import encoding
from tapjax.media import pictures as picture_files
from tapjax.media.containers import VideoInfo

Frame = UInt8[np.ndarray, 'h w 3']

PICTURE_RATE = 25.0
_QUALITY = 16


class VideoReader:
  """Frames of an open video, in order, to be iterated once.

  Attributes:
    info: size, frame rate and number of frames.
    times: seconds of the frames read so far, from 0 and increasing.
  """

  def __init__(
      self, info: VideoInfo, frames: Iterator[tuple[Frame, float | None]]
  ):
    self.info = info
    self.times: list[float] = []
    self._frames = frames

  def __iter__(self) -> Iterator[Frame]:
    clock = Clock(self.info.frame_rate, self.times)
    for frame, time in self._frames:
      clock.add(time)
      yield frame

  def read_blocks(self, block: int) -> Iterator[UInt8[np.ndarray, 't h w 3']]:
    """Yields the remaining frames, at most `block` at a time."""
    if block < 1:
      raise ValueError(f'block must be at least 1 frame; got {block}')
    remaining = iter(self)
    while frames := list(itertools.islice(remaining, block)):
      yield np.stack(frames)


class Clock:
  """Times of frames in seconds, from 0 and increasing.

  Frames without a time, or with one that is not later than the one before,
  follow at the frame rate.
  """

  def __init__(self, frame_rate: float, times: list[float]):
    self._frame_rate = frame_rate
    self._times = times
    self._start: float | None = None

  def add(self, time: float | None) -> None:
    """Appends the time of the next frame."""
    previous = self._times[-1] if self._times else None
    following = 0.0 if previous is None else previous + 1 / self._frame_rate
    if time is None:
      self._times.append(following)
      return
    if self._start is None:
      self._start = time - following
    time -= self._start
    is_later = previous is None or time > previous
    self._times.append(time if is_later else following)


@contextlib.contextmanager
def open_video(place: str | os.PathLike[str]) -> Iterator[VideoReader]:
  """Opens a video for reading frame by frame.

  Args:
    place: a file, an address (https://, rtsp://), a folder of pictures, a
      pattern of their names such as seq/%05d.png, or one picture.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it cannot be read. A truncated or damaged video raises after its
      last readable frame, and a video that changes its size at that frame:
      frames are never missing in silence.
  """
  pictures = None
  if not containers.is_address(place):
    pictures = picture_files.find_pictures(place)
  if pictures is not None:
    yield _open_pictures(pictures, place)
    return
  with decoding.open_frames(place) as (container, stream, decoded):
    frame_rate = containers.get_frame_rate(container, stream)
    total = containers.count_frames(container, stream, frame_rate)
    first, whole = _peek(_check_damage(decoded, place, total))
    if first is None:
      raise ValueError(
          f'no frame of {str(place)!r} could be decoded; convert it to an '
          'H.264 .mp4'
      )
    height, width, _ = first[0].shape
    info = VideoInfo(height, width, frame_rate, total)
    yield VideoReader(info, _check_sizes(whole, place))


def get_name(place: str | os.PathLike[str]) -> str:
  """Returns the stem of the names of result files for a video."""
  if containers.is_address(place):
    parts = urllib.parse.urlsplit(str(place))
    return pathlib.PurePosixPath(parts.path).stem or parts.hostname or 'stream'
  pictures = picture_files.find_pictures(place)
  return pathlib.Path(place).stem if pictures is None else pictures.name


def read_video(place: str | os.PathLike[str]) -> UInt8[np.ndarray, 't h w 3']:
  """Reads a whole video into memory as RGB frames; as `open_video`."""
  with open_video(place) as reader:
    shape = (reader.info.height, reader.info.width, 3)
    return np.fromiter(reader, dtype=np.dtype((np.uint8, shape)))


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    frame_rate: float | int,
    *,
    times: Times | None = None,
    quality: int = _QUALITY,
    num_threads: int = 0,
) -> None:
  """Writes uint8 [h, w, 3] RGB frames as an H.264 .mp4 that plays everywhere.

  `frames` is an array or an iterable of frames, consumed one by one. The file
  appears under its name only when it is complete; after an error or an
  interruption, also one in `frames`, an older file is unchanged.

  Args:
    path: of the file, ending in .mp4.
    frames: all of one size, at least one.
    frame_rate: frames per second.
    times: seconds of the frames, increasing; without it they are evenly spaced.
      May grow while frames are consumed.
    quality: constant rate factor of x264; lower is better and larger.
    num_threads: of the encoder; 0 chooses for the machine. The bytes of the
      file depend on it.

  Raises:
    ValueError: an argument or a frame is invalid.
    FileNotFoundError: the folder of `path` does not exist.
    OSError: the file cannot be written.
  """
  path = pathlib.Path(path)
  if path.suffix.lower() != '.mp4':
    raise ValueError(f'path must end in .mp4; got {str(path)!r}')
  if path.is_dir():
    raise ValueError(f'path must name a file; {str(path)!r} is a folder')
  if not path.parent.is_dir():
    raise FileNotFoundError(
        f'no folder {str(path.parent)!r} to write {path.name!r} in; make it'
        ' first'
    )
  if not (math.isfinite(frame_rate) and frame_rate > 0):
    raise ValueError(
        f'frame_rate must be a positive number of frames per second; got'
        f' {frame_rate}'
    )
  first, checked = _peek(_check_frames(frames))
  if first is None:
    raise ValueError('frames must hold at least one frame; got none')
  temporary = path.with_name(f'.{secrets.token_hex(8)}.mp4')
  try:
    encoding.encode(
        temporary,
        checked,
        first.shape[:2],
        float(frame_rate),
        times,
        quality=quality,
        num_threads=num_threads,
    )
    os.replace(temporary, path)
  except av.FFmpegError as error:
    raise OSError(
        f'could not write a video in {path.parent}: '
        f'{containers.describe_error(error)}'
    ) from None
  finally:
    temporary.unlink(missing_ok=True)


def _check_frames(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  """Yields the frames; ValueError unless all are uint8 RGB of one size."""
  shape = None
  for index, frame in enumerate(frames):
    frame = np.asarray(frame)
    shape = shape or frame.shape
    if frame.dtype != np.uint8:
      raise ValueError(
          f'frames must be uint8; frame {index} is {frame.dtype} - scale to'
          ' 0..255 and convert?'
      )
    if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
      raise ValueError(
          f'each of frames must be [h, w, 3]; frame {index} is {frame.shape} -'
          ' one frame instead of several, or gray instead of RGB?'
      )
    if frame.shape != shape:
      raise ValueError(
          f'frames must have one size; frame 0 is {shape}, frame {index} is'
          f' {frame.shape} - resize first?'
      )
    yield frame


def _open_pictures(
    pictures: picture_files.Pictures, place: str | os.PathLike[str]
) -> VideoReader:
  """Returns a reader of pictures, at 25 frames per second."""
  count = len(pictures.list_files())
  if not count:
    raise ValueError(pictures.explain_empty())
  images = picture_files.iterate_pictures(pictures)
  first, images = _peek(images)
  assert first is not None, 'there is a picture'
  timed = ((image, None) for image in images)
  height, width, _ = first.shape
  info = VideoInfo(height, width, PICTURE_RATE, count)
  return VideoReader(info, _check_sizes(timed, place))


def _check_damage(
    decoded: Iterable[decoding.StreamFrame],
    place: str | os.PathLike[str],
    total: int | None,
) -> Iterator[tuple[Frame, float | None]]:
  """Yields frames that could be decoded; ValueError at the end for others."""
  count = missing = concealed = 0
  reason = ''
  for frame in decoded:
    if frame.frame is None:
      missing += 1
      reason = reason or frame.damage
      continue
    count += 1
    concealed += bool(frame.damage)
    yield frame.frame, frame.time
  if missing:
    promised = max(total or 0, count + missing)
    raise ValueError(
        f'{str(place)!r} is damaged or cut short: {count} frames could be'
        f' decoded of about {promised} promised; copy it again, or repair it by'
        f' re-encoding (FFmpeg says: {reason})'
    )
  if concealed:
    warnings.warn(
        f'{concealed} of {count} frames of {str(place)!r} are damaged, and '
        'were decoded with gaps filled in',
        stacklevel=2,
    )


def _check_sizes(
    frames: Iterable[tuple[Frame, float | None]],
    place: str | os.PathLike[str],
) -> Iterator[tuple[Frame, float | None]]:
  """Yields frames; ValueError at the first one of another size."""
  size = None
  for index, (frame, time) in enumerate(frames):
    height, width, _ = frame.shape
    size = size or (height, width)
    if (height, width) != size:
      raise ValueError(
          f'{str(place)!r} changes its size: frame {index} is '
          f'{width}x{height}, the frames before it are {size[1]}x{size[0]} - '
          'cut it there'
      )
    yield frame, time


def _peek(items: Iterator[Any]) -> tuple[Any, Iterator[Any]]:
  """Returns the first item, None without, and an iterator over all."""
  first = next(items, None)
  return first, items if first is None else itertools.chain([first], items)
