"""Decoded frames of a video stream, with their times and their damage.

```
container ──demux──► packets ──decode──► frames ──turn──► StreamFrame
```

Every frame that the file holds becomes one `StreamFrame`. A frame that cannot
be decoded has no pixels but a reason, and one with gaps concealed by the
decoder has both. Frames predicted from a damaged one are not marked.
"""

from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import os
import pathlib
from typing import Any, NamedTuple

import av
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8
import numpy as np

from tapjax.media import completeness
from tapjax.media import containers
from tapjax.media import orientation

Image = UInt8[np.ndarray, 'h w 3']

# Codecs whose packets each have exactly one shown frame.
_ONE_FRAME_A_PACKET = ('libdav1d', 'av1', 'vp9')
# A file of which more than this share never comes was cut short.
_MISSING_SHARE = 0.25
_CONCEALED = 'it could not be decoded whole'
_CUT = 'the file was cut short'


class StreamFrame(NamedTuple):
  """A frame of a stream.

  Attributes:
    frame: RGB pixels, upright; None if nothing could be decoded.
    damage: why pixels are missing or wrong; empty for a whole frame.
    time: seconds on the clock of the stream; None if unknown.
  """

  frame: Image | None
  damage: str = ''
  time: float | None = None


@contextlib.contextmanager
def open_frames(
    place: str | os.PathLike[str],
) -> Iterator[tuple[Any, Any, Iterator[StreamFrame]]]:
  """Opens a file or an address: container, video stream and decoded frames.

  The end of a file is checked; that of an address cannot be. Errors are those
  of `containers.open_container`.
  """
  path = None if containers.is_address(place) else pathlib.Path(place)
  with (
      containers.open_container(place) as (container, stream),
      contextlib.closing(iterate_frames(container, stream, path)) as frames,
  ):
    yield container, stream, frames


def iterate_frames(
    container: Any, stream: Any, path: pathlib.Path | None = None
) -> Generator[StreamFrame, None, None]:
  """Decodes a stream frame by frame.

  Args:
    container: open container.
    stream: its video stream.
    path: of the file, whose end is checked; None for an address.
  """
  stream.thread_type = 'AUTO'
  size = containers.get_written_size(container)
  reformatter = VideoReformatter()
  rotation: int | None = None
  matrix: orientation.Matrix | None = None
  ledger = _Ledger(stream)
  count = 0
  for frame in _decode(container, stream, ledger):
    for gap in ledger.find_missing(frame.pts):
      count += 1
      yield gap
    count += 1
    # Side data hold their frame in a cycle, and so are read when they change.
    if frame.rotation != rotation:
      rotation, matrix = frame.rotation, orientation.read_matrix(frame)
    yield _convert(frame, stream, size, matrix, reformatter)
  missing = ledger.count_missing(count)
  is_cut = path is not None and completeness.is_cut_short(path)
  if is_cut or ledger.is_cut(container):
    ledger.reason = ledger.reason or _CUT
    missing = max(missing, 1)
  for _ in range(missing):
    yield StreamFrame(None, ledger.reason or _CONCEALED)


class _Ledger:
  """Packets that were read, against frames that were decoded.

  Some codecs have packets without a frame, so that a missing frame counts only
  after an error, or where the stream begins with a frame that depends on
  earlier ones.
  """

  def __init__(self, stream: Any):
    self.reason = ''
    self._stream = stream
    self._expected: set[int] = set()
    self._num_packets = 0
    self._num_discarded = 0
    self._end = 0.0
    self._last: int | None = None
    self._is_last_cut = False
    self._is_strict = stream.codec_context.name in _ONE_FRAME_A_PACKET

  def note_packet(self, packet: Any) -> None:
    """Counts a packet of any stream."""
    if packet.pts is not None:
      end = packet.pts + (packet.duration or 0)
      self._end = max(self._end, float(end * packet.time_base))
    if packet.stream_index != self._stream.index or not packet.size:
      return
    if not self._num_packets and not packet.is_keyframe:
      self.reason = 'the stream begins with a frame that needs earlier ones'
    self._num_packets += 1
    self._num_discarded += packet.is_discard
    self._is_last_cut = packet.is_corrupt
    if packet.is_corrupt:
      self.reason = self.reason or _CONCEALED
    if packet.pts is not None and not packet.is_discard:
      self._expected.add(packet.pts)

  def note_error(self, error: BaseException) -> None:
    """Keeps the first error as the reason of damage."""
    self.reason = self.reason or containers.describe_error(error)

  def find_missing(self, time: int | None) -> list[StreamFrame]:
    """Returns the frames between the last one and one of a given time."""
    if time is None:
      return []
    passed = {other for other in self._expected if other <= time}
    self._expected -= passed
    last, self._last = self._last, time
    if not (self.reason or self._is_strict):
      return []
    base = self._stream.time_base
    return [
        StreamFrame(None, self.reason or _CONCEALED, float(other * base))
        for other in sorted(passed)
        if other < time and (last is None or other > last)
    ]

  def count_missing(self, num_frames: int) -> int:
    """Returns the number of frames that did not come until the end."""
    if not (self.reason or self._is_strict):
      return 0
    return max(0, self._num_packets - self._num_discarded - num_frames)

  def is_cut(self, container: Any) -> bool:
    """Returns whether the container promised more than it held."""
    if self._is_last_cut or self._num_packets < self._stream.frames:
      return True
    if self._stream.duration or not container.duration:
      return False
    start = (container.start_time or 0) / av.time_base
    promised = container.duration / av.time_base
    frame = 1 / containers.get_frame_rate(container, self._stream)
    # The last packet may have no duration.
    missing = promised - (self._end - start) - frame
    return missing > max(_MISSING_SHARE * promised, frame)


def _decode(container: Any, stream: Any, ledger: _Ledger) -> Iterator[Any]:
  """Yields decoded frames in the order of time; notes packets and errors."""
  packets = container.demux()
  while True:
    try:
      packet = next(packets)
    except StopIteration:
      return
    except (av.FFmpegError, OSError) as error:
      ledger.note_error(error)
      # Frames that the decoder still holds.
      yield from _drain(stream.codec_context, ledger)
      return
    ledger.note_packet(packet)
    if packet.stream_index != stream.index:
      continue
    if not packet.size:
      yield from _drain(stream.codec_context, ledger)
      continue
    try:
      frames = packet.decode()
    except (av.FFmpegError, OSError) as error:
      ledger.note_error(error)
    else:
      yield from frames


def _drain(context: Any, ledger: _Ledger) -> Iterator[Any]:
  """Yields the last frames of a decoder; an error hides none after it."""
  while True:
    try:
      yield from context.decode(None)
    except EOFError:
      return
    except (av.FFmpegError, OSError) as error:
      ledger.note_error(error)
    else:
      return


def _convert(
    frame: Any,
    stream: Any,
    size: tuple[int, int] | None,
    matrix: orientation.Matrix | None,
    reformatter: VideoReformatter,
) -> StreamFrame:
  """Returns a decoded frame as upright RGB pixels.

  `size` crops a frame that was padded to an even size before it was encoded.
  """
  time = None
  if frame.pts is not None:
    time = float(frame.pts * (frame.time_base or stream.time_base))
  # Bicubic is FFmpeg's own choice. Decoding has threads already.
  image = reformatter.reformat(
      frame, format='rgb24', interpolation='BICUBIC', threads=1
  ).to_ndarray()
  if size is not None:
    height, width = size
    if (height + height % 2, width + width % 2) == image.shape[:2]:
      image = image[:height, :width]
  if matrix is not None:
    image = orientation.turn(image, matrix)
  damage = _CONCEALED if frame.is_corrupt else ''
  return StreamFrame(np.ascontiguousarray(image), damage, time)
