"""Frames as they arrive: from a video file, a folder of pictures or a camera.

A source tells of every frame whether it is whole. What cannot be decoded, or
not without gaps that the decoder painted over, arrives as damaged, with its
number and the reason, so that nothing is ever missing or wrong in silence.
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
# Seconds for which a picture that cannot be read may still be being written.
_SETTLE = 1.0
_POLL = 0.05
# Calls in a row after which a camera without pictures counts as gone.
_CAMERA_FAILURES = 25


class Shot(NamedTuple):
  """A frame of a stream, or the reason why there is none."""

  frame: Image | None
  damage: str = ''


@runtime_checkable
class Source(Protocol):
  """Where frames come from.

  Attributes:
    name: what to call results after.
    frame_rate: frames per second, for the video that is written.
    num_frames: about how many there are; None where nobody knows.
    repeatable: whether the same frames come when it is opened again.
  """

  name: str
  frame_rate: float
  num_frames: int | None
  repeatable: bool

  def open(
      self, stopped: threading.Event
  ) -> contextlib.AbstractContextManager[Iterator[Shot]]:
    """Yields the frames, and waits for none when told to stop."""
    ...


def find_source(
    place: str, *, frame_rate: float | None = None, patience: float = 5.0
) -> Source:
  """Returns the source that a user means.

  Args:
    place: a video file, a folder of pictures, or the number of a camera.
    frame_rate: of pictures and of a camera that states none.
    patience: seconds after which a folder without new pictures has ended.

  Raises FileNotFoundError or ValueError where there is none.
  """
  if re.fullmatch(r'\d+', place) and not pathlib.Path(place).exists():
    return Camera(int(place), frame_rate)
  if pathlib.Path(place).is_dir():
    return Folder(place, frame_rate or _FRAME_RATE, patience)
  return VideoFile(place)


class VideoFile:
  """A video file, whose damaged frames are told from whole ones."""

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
  def open(self, stopped: threading.Event) -> Iterator[Iterator[Shot]]:
    """Yields the frames, one after the other."""
    del stopped  # They come without waiting.
    with video_files.decode(self._path, '-debug_ts') as process:
      assert process.stderr is not None
      log = _DecoderLog(process.stderr)
      try:
        yield self._list_shots(process, log)
      finally:
        process.kill()
        log.join()

  def _list_shots(
      self, process: subprocess.Popen[bytes], log: '_DecoderLog'
  ) -> Iterator[Shot]:
    height, width = self._size
    count = 0
    assert process.stdout is not None
    for frame in video_files.read_ppm_frames(process.stdout):
      decoded = log.take()
      for _ in range(decoded.missing):
        count += 1
        yield Shot(None, log.reason)
      count += 1
      if decoded.corrupt:
        yield Shot(None, log.reason)
      else:
        yield Shot(np.ascontiguousarray(frame[:height, :width]))
    code = process.wait()
    log.join()
    missing = log.held - count
    if missing > 0 or code or log.cut_short:
      yield from (Shot(None, log.reason) for _ in range(max(missing, 1)))


class _Decoded(NamedTuple):
  """What a decoder says of a frame, and of those missing just before it."""

  corrupt: bool = False
  missing: int = 0


class _DecoderLog:
  """Reads what ffmpeg says while it decodes, and keeps what is needed of it.

  The decoder says of every frame that it let go, and before that whether it had
  to paint over gaps in it; of every packet, the time that its frame will have.
  So frames are known that never came.
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
    """The latest complaint."""
    return self._reason or 'it could not be decoded whole'

  def take(self) -> _Decoded:
    """Returns what was said of the next frame."""
    with self._arrived:
      self._arrived.wait_for(lambda: self._decoded or self._ended)
      return self._decoded.popleft() if self._decoded else _Decoded()

  def join(self) -> None:
    """Waits until all was said."""
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
      # Of a whole file, some packets may be meant to be left out.
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
  """A folder in which pictures appear; their names are in the order of time."""

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
  def open(self, stopped: threading.Event) -> Iterator[Iterator[Shot]]:
    """Yields the pictures, as long as new ones appear."""
    yield self._list_shots(stopped)

  def _list_shots(self, stopped: threading.Event) -> Iterator[Shot]:
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
        shot = _read_when_whole(path)
        if shot.frame is not None:
          size = size or shot.frame.shape[:2]
          if shot.frame.shape[:2] != size:
            shot = Shot(
                None,
                f'{path.name} is {shot.frame.shape[1]}x{shot.frame.shape[0]}, '
                f'the first picture {size[1]}x{size[0]} pixels',
            )
        yield shot
      waited = time.monotonic()


def _make_key(name: str) -> tuple[Any, ...]:
  """Sorts numbers in names by value, so that frame_10 is behind frame_9."""
  parts = re.split(r'(\d+)', name)
  numbers = tuple(
      (0, int(part), '') if part.isdigit() else (1, 0, part) for part in parts
  )
  return (*numbers, (1, 0, name))


def _read_when_whole(path: pathlib.Path) -> Shot:
  """Reads a picture; one that is still being written is waited for."""
  start = time.monotonic()
  seen = None
  while True:
    try:
      state = path.stat().st_size, path.stat().st_mtime_ns
      if state != seen:
        seen, start = state, time.monotonic()
      picture = video_files.read_picture(path, whole=True)
      return Shot(np.ascontiguousarray(picture[..., :3]))
    except (ValueError, OSError) as error:
      if time.monotonic() - start > _SETTLE:
        return Shot(None, str(error))
    time.sleep(_POLL)


class Camera:
  """A camera, through OpenCV."""

  num_frames: int | None = None
  repeatable = False

  def __init__(self, index: int, frame_rate: float | None = None):
    self._index = index
    self._capture = _open_camera(index)
    stated = self._capture.get(_import_opencv().CAP_PROP_FPS)
    self.name = f'camera{index}'
    self.frame_rate = frame_rate or (stated if stated > 0 else _FRAME_RATE)

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[Shot]]:
    """Yields pictures until the camera is gone."""
    del stopped  # They come without waiting long.
    try:
      yield self._list_shots()
    finally:
      self._capture.release()

  def _list_shots(self) -> Iterator[Shot]:
    failures = 0
    while failures < _CAMERA_FAILURES:
      is_whole, picture = self._capture.read()
      if is_whole:
        failures = 0
        yield Shot(np.ascontiguousarray(picture[..., ::-1]))
      else:
        failures += 1
        yield Shot(None, f'camera {self._index} gave no picture')


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
  """Frames from any function that yields them, such as another program's."""

  def __init__(
      self,
      make_shots: Callable[[], Iterator[Shot]],
      name: str = 'frames',
      frame_rate: float = _FRAME_RATE,
      *,
      repeatable: bool = True,
  ):
    self._make_shots = make_shots
    self.name = name
    self.frame_rate = frame_rate
    self.num_frames: int | None = None
    self.repeatable = repeatable

  @contextlib.contextmanager
  def open(self, stopped: threading.Event) -> Iterator[Iterator[Shot]]:
    """Yields the frames, one after the other."""
    del stopped  # They come without waiting.
    yield self._make_shots()
