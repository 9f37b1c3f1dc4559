"""Opening of media files and addresses through PyAV, with errors in one line.

PyAV holds FFmpeg's libraries. Properties of a video come from the fields of its
streams, never from a text such as a title or a comment.
"""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
from typing import Any, NamedTuple

import av
from av.stream import Disposition

# Formats that name further files, read devices, or render text.
_REFERRING = {
    *('concat', 'dash', 'hls', 'imf', 'lavfi', 'rtsp', 'sap', 'sdp', 'tty'),
    *('alsa', 'fbdev', 'image2pipe', 'kmsgrab', 'oss', 'video4linux2,v4l2'),
    *('webm_dash_manifest', 'x11grab', 'xbin', 'bin', 'adf', 'idf'),
}
# A name such as a%03d.png is that of one file.
_FILE_OPTIONS = {
    'format_whitelist': ','.join(sorted(av.formats_available - _REFERRING)),
    'pattern_type': 'none',
}
# An address never leads to a file of this machine.
_ADDRESS_OPTIONS = {
    'protocol_whitelist': (
        'http,https,httpproxy,tcp,tls,udp,udplite,rtp,srtp,rtsp,rtmp,rtmps,'
        'rtmpt,rtmpts,srt,crypto,mmsh,mmst,ftp,gopher,gophers'
    ),
    'rtsp_transport': 'tcp',
}
# Later versions of PyAV escape what is no UTF-8, without being asked.
_METADATA: dict[str, Any] = (
    {'metadata_errors': 'replace'}
    if int(av.__version__.partition('.')[0]) < 19
    else {}
)
# Seconds to wait for an address.
_TIMEOUT = 20.0
_DEFAULT_RATE = 25.0
# Key of a file's metadata that only `write_video` writes.
SIZE_KEY = 'tapjax_size'
# (first bytes, explanation) of files that are often taken for videos.
_MISTAKEN = (
    (b'version https://git-lfs', 'a Git LFS pointer; run git lfs pull'),
    (b'<!doctype html', 'a web page, not the video; download it again'),
    (b'<html', 'a web page, not the video; download it again'),
    (b'#EXTM3U', 'a playlist, not a video; name a video file'),
    (b'ffconcat', 'a playlist, not a video; name a video file'),
)


class VideoInfo(NamedTuple):
  """Properties of a video; the size is that of displayed frames.

  `num_frames` is approximate, and None if unknown.
  """

  height: int
  width: int
  frame_rate: float
  num_frames: int | None


def is_address(place: str | os.PathLike[str]) -> bool:
  """Returns whether a text is an address such as rtsp://host/path."""
  return bool(re.match(r'[A-Za-z][A-Za-z0-9+.-]+://', str(place)))


def check_file(
    path: str | os.PathLike[str], kind: str = 'video'
) -> pathlib.Path:
  """Returns the path of an existing file with content.

  Raises FileNotFoundError for a missing file, and ValueError for a folder or an
  empty file.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{str(path)!r} is a folder; name one {kind} file in it')
  if not path.exists():
    raise FileNotFoundError(f'no {kind} file {str(path)!r}; is the path right?')
  if not path.is_file():
    raise ValueError(f'{str(path)!r} is no regular file; name a {kind} file')
  if path.stat().st_size == 0:
    raise ValueError(f'{str(path)!r} is empty (0 bytes); copy it again')
  return path


@contextlib.contextmanager
def open_container(
    place: str | os.PathLike[str],
) -> Iterator[tuple[Any, Any]]:
  """Opens a file or an address: yields its container and its video stream.

  Cover art is no video. Raises FileNotFoundError for a missing file, and
  ValueError for an unreadable one.
  """
  if is_address(place):
    name, options = str(place), _ADDRESS_OPTIONS
    timeout = _TIMEOUT
  else:
    name = os.path.abspath(check_file(place))
    options, timeout = _FILE_OPTIONS, None
  try:
    container = av.open(name, options=options, timeout=timeout, **_METADATA)
  except (av.FFmpegError, OSError) as error:
    raise ValueError(_explain_unopened(place, error)) from None
  with container:
    yield container, _choose_stream(place, container)


def get_frame_rate(container: Any, stream: Any) -> float:
  """Returns the average frame rate, or FFmpeg's guess where that is better.

  Without a duration there is no average, and one above the guess is the clock
  of a container (DV).
  """
  average, guess = stream.average_rate, stream.guessed_rate
  is_timed = bool(stream.duration or container.duration)
  if not average or (guess and (not is_timed or average > 2 * guess)):
    average = guess
  return float(average or 0) or _DEFAULT_RATE


def count_frames(container: Any, stream: Any, frame_rate: float) -> int | None:
  """Returns the approximate number of frames, None if there is no duration."""
  if stream.duration:
    return round(float(stream.duration * stream.time_base) * frame_rate)
  if container.duration:
    return round(container.duration / av.time_base * frame_rate)
  return stream.frames or None


def get_written_size(container: Any) -> tuple[int, int] | None:
  """Returns (height, width) as stored by `write_video`."""
  match = re.fullmatch(r'(\d+)x(\d+)', container.metadata.get(SIZE_KEY, ''))
  return (int(match[1]), int(match[2])) if match else None


def describe_error(error: BaseException) -> str:
  """Returns the text of an error of FFmpeg, without file and number."""
  return getattr(error, 'strerror', None) or str(error) or repr(error)


def _choose_stream(place: str | os.PathLike[str], container: Any) -> Any:
  streams = [
      stream
      for stream in container.streams.video
      if not stream.disposition & Disposition.attached_pic
  ]
  if not streams:
    raise ValueError(
        f'{str(place)!r} holds no pictures, only sound? Name a video file'
    )
  if streams[0].codec_context is None:
    raise ValueError(
        f'the pictures of {str(place)!r} have a kind of compression that '
        'FFmpeg cannot decode; convert it to an H.264 .mp4'
    )
  return streams[0]


def _explain_unopened(place: str | os.PathLike[str], error: Exception) -> str:
  reason = describe_error(error)
  if is_address(place):
    return (
        f'{place} cannot be read: {reason} - is the address right, and its '
        'server up?'
    )
  try:
    with open(place, 'rb') as file:
      head = file.read(64)
  except OSError as failure:
    return f'{str(place)!r} cannot be read: {describe_error(failure)}'
  for beginning, explanation in _MISTAKEN:
    if head.lstrip().lower().startswith(beginning.lower()):
      return f'{str(place)!r} is {explanation}'
  if head[4:8] in (b'ftyp', b'moov', b'mdat', b'wide', b'free'):
    return (
        f'{str(place)!r} is no complete video: its index is missing, so it was '
        'cut short; copy or record it again'
    )
  return (
      f'{str(place)!r} is not a video that FFmpeg can read, or its beginning '
      f'is damaged; convert it to an H.264 .mp4 (FFmpeg says: {reason})'
  )
