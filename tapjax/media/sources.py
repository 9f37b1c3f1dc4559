"""Streams of frames: a video file, an address, pictures or a camera.

A source reports damage for every frame. A frame that cannot be decoded, or only
with gaps concealed by the decoder, arrives as a `StreamFrame` without pixels
but with the reason, so that no frame is missing or wrong in silence.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import threading
import time
from typing import Any, Protocol, runtime_checkable

import numpy as np

from tapjax.media import containers
from tapjax.media import decoding
from tapjax.media import video as video_files
from tapjax.media.decoding import StreamFrame
from tapjax.media.pictures import find_pictures
from tapjax.media.pictures import make_key
from tapjax.media.pictures import Pictures
from tapjax.media.pictures import read_picture

_FRAME_RATE = video_files.PICTURE_RATE
# Seconds without a change after which an unreadable picture is damaged; before,
# it may still be being written.
_SETTLE = 1.0
_POLL = 0.05
# Consecutive failed reads after which a camera counts as disconnected.
_CAMERA_FAILURES = 25


@runtime_checkable
class Source(Protocol):
  """A stream of frames.

  Attributes:
    name: stem of the names of result files.
    frame_rate: frames per second, for written videos.
    num_frames: approximate number of frames; None if unknown.
    repeatable: whether opening the source again yields the same frames.
  """

  name: str
  frame_rate: float
  num_frames: int | None
  repeatable: bool

  def open(
      self, stopped: threading.Event
  ) -> contextlib.AbstractContextManager[Iterator[StreamFrame]]:
    """Yields the frames; stops waiting for more once `stopped` is set."""
    ...


def find_source(
    place: str, *, frame_rate: float | None = None, patience: float = 5.0
) -> Source:
  """Returns the source named by a path, an address or a camera number.

  Args:
    place: a video file, an address, a folder of pictures, a pattern of their
      names, a picture, or the number of a camera.
    frame_rate: of pictures, and of a camera that reports none.
    patience: seconds without new pictures after which a folder has ended.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the source cannot be read.
  """
  if re.fullmatch(r'\d+', place) and not pathlib.Path(place).exists():
    return Camera(int(place), frame_rate)
  if containers.is_address(place):
    return Address(place)
  pictures = find_pictures(place)
  if pictures is None:
    return VideoFile(place)
  if pictures.is_one_file:
    patience = 0.0
  elif not pictures.list_files() and pictures.list_others():
    raise ValueError(pictures.explain_empty())
  return Folder(pictures, frame_rate or _FRAME_RATE, patience)


class VideoFile:
  """A video file, with a report of its damaged frames."""

  repeatable = True

  def __init__(self, path: str | os.PathLike[str]):
    with video_files.open_video(path) as reader:
      info = reader.info
    self._path = pathlib.Path(path)
    self.name = video_files.get_name(path)
    self.frame_rate = info.frame_rate
    self.num_frames = info.num_frames

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields the frames in order."""
    del stopped  # Reading never waits.
    with decoding.open_frames(self._path) as (_, _, frames):
      yield map(_hide_damage, frames)


class Address:
  """A stream of an address, such as rtsp://host/path, as it comes."""

  repeatable = False

  def __init__(self, address: str):
    self._address = address
    self.name = video_files.get_name(address)
    with containers.open_container(address) as (container, stream):
      self.frame_rate = containers.get_frame_rate(container, stream)
      self.num_frames = containers.count_frames(
          container, stream, self.frame_rate
      )

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields the frames until the server ends."""
    del stopped  # Reading waits for the server.
    with decoding.open_frames(self._address) as (_, _, frames):
      yield map(_hide_damage, frames)


def _hide_damage(frame: StreamFrame) -> StreamFrame:
  """Returns a frame without pixels where some are wrong."""
  return frame._replace(frame=None) if frame.damage else frame


class Folder:
  """Pictures of a folder that may grow; names are in order of time."""

  num_frames: int | None = None
  repeatable = True

  def __init__(
      self,
      pictures: Pictures,
      frame_rate: float = _FRAME_RATE,
      patience: float = 5.0,
  ):
    self._pictures = pictures
    self._patience = patience
    self.name = pictures.name
    self.frame_rate = frame_rate

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields the pictures, until no new one appears within the patience."""
    yield self._list_frames(stopped)

  def _list_frames(self, stopped: threading.Event) -> Iterator[StreamFrame]:
    last: tuple[Any, ...] | None = None
    waited = time.monotonic()
    while True:
      new = [
          (key, path)
          for path in self._pictures.list_files()
          for key in [make_key(path.name)]
          if last is None or key > last
      ]
      if not new:
        if time.monotonic() - waited > self._patience or stopped.wait(_POLL):
          return
        continue
      for key, path in new:
        last = key
        yield _read_when_whole(path)
      waited = time.monotonic()


def _read_when_whole(path: pathlib.Path) -> StreamFrame:
  """Reads a picture, and waits if it is still being written."""
  start = time.monotonic()
  seen = None
  while True:
    try:
      state = path.stat().st_size, path.stat().st_mtime_ns
      if state != seen:
        seen, start = state, time.monotonic()
      picture = read_picture(path)
      return StreamFrame(np.ascontiguousarray(picture[..., :3]))
    except (ValueError, OSError) as error:
      if time.monotonic() - start > _SETTLE:
        return StreamFrame(None, str(error))
    time.sleep(_POLL)


class Camera:
  """A camera, read through OpenCV."""

  num_frames: int | None = None
  repeatable = False

  def __init__(self, index: int, frame_rate: float | None = None):
    self._index = index
    self._capture = _open_camera(index)
    reported = self._capture.get(_import_opencv().CAP_PROP_FPS)
    self.name = f'camera{index}'
    self.frame_rate = frame_rate or (reported if reported > 0 else _FRAME_RATE)

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields pictures until the camera is disconnected."""
    del stopped  # Reading waits for one picture at most.
    try:
      yield self._list_frames()
    finally:
      self._capture.release()

  def _list_frames(self) -> Iterator[StreamFrame]:
    failures = 0
    while failures < _CAMERA_FAILURES:
      is_whole, picture = self._capture.read()
      if is_whole:
        failures = 0
        yield StreamFrame(np.ascontiguousarray(picture[..., ::-1]))
      else:
        failures += 1
        yield StreamFrame(None, f'camera {self._index} gave no picture')


def _open_camera(index: int) -> Any:
  capture = _import_opencv().VideoCapture(index)
  if not capture.isOpened():
    raise ValueError(
        f'there is no camera {index} that can be opened - is it plugged in, '
        'and not used by another program?'
    )
  return capture


def _import_opencv() -> Any:
  try:
    import cv2
  except ImportError:
    raise ValueError(
        "a camera needs OpenCV - install it with pip install 'tapjax[live]'"
    ) from None
  return cv2


class Frames:
  """A stream from a function that returns an iterator of frames."""

  def __init__(
      self,
      make_frames: Callable[[], Iterator[StreamFrame]],
      name: str = 'frames',
      frame_rate: float = _FRAME_RATE,
      *,
      repeatable: bool = True,
  ):
    self._make_frames = make_frames
    self.name = name
    self.frame_rate = frame_rate
    self.num_frames: int | None = None
    self.repeatable = repeatable

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields the frames in order."""
    del stopped  # The iterator decides about waiting.
    yield self._make_frames()
