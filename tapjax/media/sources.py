"""Streams of frames: from a video file, a folder of pictures or a camera.

A source reports damage for every frame. A frame that cannot be decoded, or only
with gaps concealed by the decoder, arrives as a `StreamFrame` without pixels
but with the reason, so that no frame is missing or wrong in silence.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import subprocess
import threading
import time
from typing import Any, BinaryIO, NamedTuple, Protocol, runtime_checkable

from jaxtyping import UInt8
import numpy as np

from tapjax.media import video as video_files

Image = UInt8[np.ndarray, 'h w 3']

PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp')
_FRAME_RATE = 25.0
# Seconds without a change after which an unreadable picture is damaged; before,
# it may still be being written.
_SETTLE = 1.0
_POLL = 0.05
# Consecutive failed reads after which a camera counts as disconnected.
_CAMERA_FAILURES = 25


class StreamFrame(NamedTuple):
  """A frame of a stream; None with the reason in `damage`."""

  frame: Image | None
  damage: str = ''


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
  """Returns the source named by a path or a camera number.

  Args:
    place: a video file, a folder of pictures, or the number of a camera.
    frame_rate: of pictures, and of a camera that reports none.
    patience: seconds without new pictures after which a folder has ended.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the source cannot be read.
  """
  if re.fullmatch(r'\d+', place) and not pathlib.Path(place).exists():
    return Camera(int(place), frame_rate)
  if pathlib.Path(place).is_dir():
    return Folder(place, frame_rate or _FRAME_RATE, patience)
  return VideoFile(place)


class VideoFile:
  """A video file, with a report of its damaged frames."""

  repeatable = True

  def __init__(self, path: str | os.PathLike[str]):
    with video_files.open_video(path) as reader:
      info = reader.info
    self._path = pathlib.Path(path)
    self._size = info.height, info.width
    self.name = self._path.stem
    self.frame_rate = info.frame_rate
    self.num_frames = info.num_frames

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields the frames in order."""
    del stopped  # Reading never waits.
    with video_files.decode(self._path, '-debug_ts') as process:
      assert process.stderr is not None
      log = _DecoderLog(process.stderr)
      try:
        yield self._list_frames(process, log)
      finally:
        process.kill()
        log.join()

  def _list_frames(
      self, process: subprocess.Popen[bytes], log: '_DecoderLog'
  ) -> Iterator[StreamFrame]:
    height, width = self._size
    count = 0
    assert process.stdout is not None
    for frame in video_files.read_ppm_frames(process.stdout):
      decoded = log.take()
      for _ in range(decoded.missing):
        count += 1
        yield StreamFrame(None, log.reason)
      count += 1
      if decoded.corrupt:
        yield StreamFrame(None, log.reason)
      else:
        yield StreamFrame(np.ascontiguousarray(frame[:height, :width]))
    code = process.wait()
    log.join()
    missing = log.held - count
    if missing > 0 or code or log.cut_short:
      yield from (StreamFrame(None, log.reason) for _ in range(max(missing, 1)))


class _Decoded(NamedTuple):
  """Decoder report of a frame, and the number missing just before it."""

  corrupt: bool = False
  missing: int = 0


class _DecoderLog:
  """Parses the log of ffmpeg while it decodes.

  The log has a line for every decoded frame, before that a line if its gaps
  were concealed, and for every packet a line with the time stamp of its frame.
  Packets without a decoded frame are missing frames.
  """

  _DECODED = re.compile(rb'\] decoder -> (?:type:video )?pts:(-?\d+|NOPTS) ')
  _PACKET = re.compile(rb'\] demuxer\+ffmpeg -> .*?pkt_pts:(-?\d+) ')
  _COMPLAINT = re.compile(rb'\[(?:error|fatal)\] (.+)')
  _COUNTS = re.compile(rb'(\d+) packets read .*?; (\d+) frames decoded')

  def __init__(self, stream: BinaryIO | Any):
    self.held = 0
    self.cut_short = False
    self._reason = ''
    self._decoded: collections.deque[_Decoded] = collections.deque()
    self._arrived = threading.Condition()
    self._ended = False
    self._expected: set[int] = set()
    self._failures = 0
    self._corrupt = False
    self._last: int | None = None
    self._thread = threading.Thread(
        target=self._read, args=(stream,), daemon=True
    )
    self._thread.start()

  @property
  def reason(self) -> str:
    """The latest error message."""
    return self._reason or 'it could not be decoded whole'

  def take(self) -> _Decoded:
    """Waits for the report of the next frame and returns it."""
    with self._arrived:
      self._arrived.wait_for(lambda: self._decoded or self._ended)
      return self._decoded.popleft() if self._decoded else _Decoded()

  def join(self) -> None:
    """Waits for the end of the log."""
    self._thread.join()

  def _read(self, stream: Any) -> None:
    for line in stream:
      self._note(line)
    with self._arrived:
      self._ended = True
      self._arrived.notify()

  def _note(self, line: bytes) -> None:
    self.cut_short |= any(
        words.encode() in line for words in video_files.CUT_SHORT
    )
    if match := self._PACKET.search(line):
      self._expected.add(int(match[1]))
    elif match := self._DECODED.search(line):
      self._note_frame(match[1])
    elif b'corrupt decoded frame' in line:
      self._corrupt = True
    elif match := self._COUNTS.search(line):
      # An undamaged file may have packets that decode to no frame.
      if self._reason:
        self.held = int(match[1])
    elif match := self._COMPLAINT.search(line):
      self._reason = match[1].decode(errors='replace').strip().rstrip('.')
      self._failures += b'submitting packet' in line

  def _note_frame(self, text: bytes) -> None:
    missing = 0
    if text != b'NOPTS':
      time = int(text)
      passed = {other for other in self._expected if other <= time}
      self._expected -= passed
      if self._last is not None and self._failures:
        missing = sum(self._last < other < time for other in passed)
      self._last = time
    with self._arrived:
      self._decoded.append(_Decoded(self._corrupt, missing))
      self._arrived.notify()
    self._corrupt = False


class Folder:
  """A folder of pictures that may grow; names are in order of time."""

  num_frames: int | None = None
  repeatable = True

  def __init__(
      self,
      path: str | os.PathLike[str],
      frame_rate: float = _FRAME_RATE,
      patience: float = 5.0,
  ):
    self._path = pathlib.Path(path)
    self._patience = patience
    self.name = self._path.resolve().name or 'frames'
    self.frame_rate = frame_rate

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[StreamFrame]]:
    """Yields the pictures, until no new one appears within the patience."""
    yield self._list_frames(stopped)

  def _list_frames(self, stopped: threading.Event) -> Iterator[StreamFrame]:
    last: tuple[Any, ...] | None = None
    waited = time.monotonic()
    size: tuple[int, ...] | None = None
    while True:
      new = sorted(
          (_make_key(path.name), path)
          for path in self._path.iterdir()
          if path.suffix.lower() in PICTURES
          and not path.name.startswith('.')
          and (last is None or _make_key(path.name) > last)
      )
      if not new:
        if time.monotonic() - waited > self._patience:
          return
        if stopped.wait(_POLL):
          return
        continue
      for key, path in new:
        last = key
        picture = _read_when_whole(path)
        if picture.frame is not None:
          height, width = picture.frame.shape[:2]
          size = size or (height, width)
          if (height, width) != size:
            picture = StreamFrame(
                None,
                f'{path.name} is {width}x{height}, the first picture '
                f'{size[1]}x{size[0]} pixels',
            )
        yield picture
      waited = time.monotonic()


def _make_key(name: str) -> tuple[Any, ...]:
  """Returns a sort key that orders numbers by value: frame_9, frame_10."""
  parts = re.split(r'(\d+)', name)
  numbers = tuple(
      (0, int(part), '') if part.isdigit() else (1, 0, part) for part in parts
  )
  return (*numbers, (1, 0, name))


def _read_when_whole(path: pathlib.Path) -> StreamFrame:
  """Reads a picture, and waits if it is still being written."""
  start = time.monotonic()
  seen = None
  while True:
    try:
      state = path.stat().st_size, path.stat().st_mtime_ns
      if state != seen:
        seen, start = state, time.monotonic()
      picture = video_files.read_picture(path, whole=True)
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
