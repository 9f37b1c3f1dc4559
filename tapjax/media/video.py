"""Reading and writing of video files, through the ffmpeg of imageio-ffmpeg.

Frames pass through a pipe, one at a time, so a video of any length needs the
memory of a few frames. ffmpeg decodes to PPM images, each of which has its own
size: rotated videos (phones) arrive upright, in the displayed size.

H.264 with 4:2:0, which every player decodes, has even sizes only. Frames of an
odd size are written with their last row or column repeated, and the true size
is stored in the comment of the file, so that `read_video` can crop them.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import itertools
import math
import os
import pathlib
import re
import secrets
import subprocess
import tempfile
from typing import BinaryIO, IO, NamedTuple

from jaxtyping import UInt8
import numpy as np

Frame = UInt8[np.ndarray, 'h w 3']

# Formats that ffmpeg may open. Excluded are formats that refer to further files
# or addresses (concat, hls, dash), and those that render text files (tty).
_CONTAINERS = (
    'mov,matroska,avi,gif,apng,mpegts,mpeg,mpegvideo,asf,flv,ogg,ivf,nut,'
    'h264,hevc,av1,yuv4mpegpipe'
)
_PICTURES = 'png_pipe,jpeg_pipe,webp_pipe,bmp_pipe'
# One tick per frame keeps all frames, with uneven or equal time stamps too.
_KEEP_EVERY_FRAME = (
    *('-vf', 'settb=1/25,setpts=N'),
    *('-fps_mode', 'passthrough', '-enc_time_base', '1/25'),
)
_BT709 = (
    *('-vf', 'scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd'),
    *('-colorspace', 'bt709', '-color_primaries', 'bt709'),
    *('-color_trc', 'bt709', '-color_range', 'tv'),
)
_ENCODER = ('-c:v', 'libx264', '-preset', 'fast', '-crf')
_QUALITY = 16
_SIZE_NOTE = 'tapjax frames of height {} width {}'
# The static ffmpeg crashes where it loads character tables (MPEG-TS titles).
_NO_ICONV = {'GCONV_PATH': os.devnull}
_JPEG_START = b'\xff\xd8'
CUT_SHORT = ('partial file', 'ended prematurely', 'LZW decode failed')


class VideoInfo(NamedTuple):
  """Properties of a video file; the size is that of decoded frames.

  `num_frames` is duration times frame rate, which can be wrong (a soundtrack
  longer than the pictures), or None if the file has no duration.
  """

  height: int
  width: int
  frame_rate: float
  num_frames: int | None


class VideoReader:
  """Frames of an open video, in order, to be iterated once."""

  def __init__(self, info: VideoInfo, frames: Iterator[Frame]):
    self.info = info
    self._frames = frames

  def __iter__(self) -> Iterator[Frame]:
    return self._frames

  def read_blocks(self, block: int) -> Iterator[UInt8[np.ndarray, 't h w 3']]:
    """Yields the remaining frames, at most `block` at a time."""
    if block < 1:
      raise ValueError(f'block must be at least 1 frame; got {block}')
    while frames := list(itertools.islice(self._frames, block)):
      yield np.stack(frames)


@contextlib.contextmanager
def open_video(path: str | os.PathLike[str]) -> Iterator[VideoReader]:
  """Opens a video for reading frame by frame.

  Raises FileNotFoundError for a missing file and ValueError for an unreadable
  one. A truncated or damaged video raises ValueError after its last readable
  frame: frames are never missing in silence.
  """
  path = _check_source(path)
  with (
      tempfile.TemporaryFile() as log,
      _decode(path, log=log) as process,
  ):
    assert process.stdout is not None
    frames = read_ppm_frames(process.stdout)
    first = next(frames, None)
    if first is None:
      process.wait()
      raise ValueError(_explain_unreadable(path, _read_log(log)))
    text = _read_log(log)
    height, width = _find_true_size(text, *first.shape[:2])
    info = _parse_info(text, height, width)
    whole = _check_complete(
        itertools.chain([first], frames), path, info, process, log
    )
    yield VideoReader(
        info, (np.ascontiguousarray(f[:height, :width]) for f in whole)
    )


@contextlib.contextmanager
def decode(
    path: str | os.PathLike[str], *options: str
) -> Iterator[subprocess.Popen[bytes]]:
  """Runs ffmpeg on a video: `read_ppm_frames` of stdout, its log on stderr."""
  with _decode(_check_source(path), *options, log=subprocess.PIPE) as process:
    yield process


def _decode(
    path: pathlib.Path, *options: str, log: BinaryIO | int
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
  return _run_ffmpeg(
      *options,
      *('-format_whitelist', _CONTAINERS, '-i', f'file:{path}'),
      *('-map', '0:V:0', *_KEEP_EVERY_FRAME),
      *('-c:v', 'ppm', '-pix_fmt', 'rgb24', '-f', 'image2pipe', '-'),
      log=log,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
  )


def read_video(path: str | os.PathLike[str]) -> UInt8[np.ndarray, 't h w 3']:
  """Reads a whole video into memory as RGB frames; errors as `open_video`."""
  with open_video(path) as reader:
    shape = (reader.info.height, reader.info.width, 3)
    return np.fromiter(reader, dtype=np.dtype((np.uint8, shape)))


def read_jpeg_images(
    path: str | os.PathLike[str], frame_rate: int, most: int
) -> list[bytes]:
  """Reads a video as JPEG images, with the default quality of ffmpeg.

  Frames are repeated or dropped to match `frame_rate`; at most `most` are
  returned. Raises FileNotFoundError for a missing file and ValueError for an
  unreadable one.
  """
  path = _check_source(path)
  with (
      tempfile.TemporaryFile() as log,
      _run_ffmpeg(
          *('-format_whitelist', _CONTAINERS, '-i', f'file:{path}'),
          *('-map', '0:V:0', '-vf', f'fps={frame_rate}'),
          *('-frames:v', f'{most}', '-c:v', 'mjpeg', '-f', 'image2pipe', '-'),
          log=log,
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
      ) as process,
  ):
    output, _ = process.communicate()
    # These two bytes occur only at the start of an image.
    images = [_JPEG_START + part for part in output.split(_JPEG_START)[1:]]
    if not images or process.returncode:
      raise ValueError(_explain_unreadable(path, _read_log(log)))
  return images


def read_picture(
    path: str | os.PathLike[str], *, whole: bool = False
) -> UInt8[np.ndarray, 'h w 4']:
  """Reads a picture (.png, .jpg, .webp, .bmp) as RGBA.

  With `whole`, a picture decoded with errors, such as a truncated one, counts
  as unreadable.

  Raises FileNotFoundError for a missing file and ValueError for an unreadable
  one.
  """
  path = _check_source(path, 'picture')
  with (
      tempfile.TemporaryFile() as log,
      _run_ffmpeg(
          *('-format_whitelist', _PICTURES, '-i', f'file:{path}'),
          *('-frames:v', '1', '-c:v', 'pam', '-pix_fmt', 'rgba'),
          *('-f', 'image2pipe', '-'),
          log=log,
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
      ) as process,
  ):
    assert process.stdout is not None
    header, _, content = process.stdout.read().partition(b'ENDHDR\n')
    process.wait()
    has_errors = whole and '[error]' in _read_log(log)
    fields = dict(line.split() for line in header.splitlines()[1:])
    shape = tuple(int(fields.get(n, 0)) for n in (b'HEIGHT', b'WIDTH'))
    expected = 4 * shape[0] * shape[1]
    if has_errors or not all(shape) or len(content) < expected:
      reason = _find_reason(_read_log(log))
      raise ValueError(
          f'{str(path)!r} is not a readable picture ({reason}) - save it as '
          '.png'
      )
  picture = np.frombuffer(content, np.uint8, 4 * shape[0] * shape[1])
  return picture.reshape(*shape, 4)


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    frame_rate: float | int,
    *,
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
  checked = _check_frames(frames)
  first = next(checked, None)
  if first is None:
    raise ValueError('frames must hold at least one frame; got none')
  temporary = path.with_name(f'.{secrets.token_hex(8)}.mp4')
  try:
    settings = (f'{quality}', '-threads', f'{num_threads}')
    _encode(temporary, itertools.chain([first], checked), frame_rate, settings)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def _encode(
    path: pathlib.Path,
    frames: Iterator[np.ndarray],
    frame_rate: float | int,
    settings: tuple[str, ...],
) -> None:
  """Encodes frames into a temporary file."""
  first = next(frames)
  height, width, _ = first.shape
  padding = ((0, height % 2), (0, width % 2), (0, 0))
  with (
      tempfile.TemporaryFile() as log,
      _run_ffmpeg(
          *('-f', 'rawvideo', '-pix_fmt', 'rgb24', '-r', f'{frame_rate}'),
          *('-s', f'{width + width % 2}x{height + height % 2}', '-i', '-'),
          *(*_BT709, *_ENCODER, *settings, '-pix_fmt', 'yuv420p'),
          *('-metadata', f'comment={_SIZE_NOTE.format(height, width)}'),
          *('-movflags', '+faststart', f'file:{path}'),
          log=log,
          stdin=subprocess.PIPE,
          stdout=subprocess.DEVNULL,
      ) as process,
  ):
    assert process.stdin is not None
    try:
      for frame in itertools.chain([first], frames):
        padded = np.pad(frame, padding, mode='edge')
        try:
          process.stdin.write(padded.tobytes())
        except BrokenPipeError:
          break  # ffmpeg failed; the reason is in its log.
    finally:
      with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    if process.wait() != 0:
      reason = _find_reason(_read_log(log))
      raise OSError(f'could not write a video in {path.parent}: {reason}')


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


def _check_source(
    path: str | os.PathLike[str], kind: str = 'video'
) -> pathlib.Path:
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{str(path)!r} is a folder; name one {kind} file in it')
  if not path.is_file():
    raise FileNotFoundError(f'no {kind} file {str(path)!r}; is the path right?')
  if path.stat().st_size == 0:
    raise ValueError(f'{str(path)!r} is empty (0 bytes); copy it again')
  return path


def read_ppm_frames(stream: IO[bytes]) -> Iterator[np.ndarray]:
  """Yields the PPM images of a pipe until its end or a partial image."""
  while stream.readline() == b'P6\n':
    width, height = (int(number) for number in stream.readline().split())
    stream.readline()
    frame = np.empty((height, width, 3), np.uint8)
    if stream.readinto(frame) < frame.nbytes:  # type: ignore[attr-defined]
      return
    yield frame


def _check_complete(
    frames: Iterator[np.ndarray],
    path: pathlib.Path,
    info: VideoInfo,
    process: subprocess.Popen,
    log: BinaryIO,
) -> Iterator[np.ndarray]:
  """Yields the frames; ValueError at their end if the file has more.

  Decoders report errors for complete files too, so an error counts only if it
  reports a truncation, or if the file has more packets than decoded frames.
  """
  count = 0
  for count, frame in enumerate(frames, start=1):  # noqa: B007
    yield frame
  code = process.wait()
  text = _read_log(log)
  if code == 0 and '[error]' not in text:
    return
  counts = re.search(r'(\d+) packets read .*?; (\d+) frames decoded', text)
  held, decoded = map(int, counts.groups()) if counts else (0, count)
  if code or held > decoded or any(words in text for words in CUT_SHORT):
    promised = max(info.num_frames or 0, held, count)
    raise ValueError(
        f'{str(path)!r} is damaged or cut short: {count} frames could be'
        f' decoded of about {promised} promised; copy it again, or repair it by'
        f' re-encoding (ffmpeg says: {_find_reason(text)})'
    )


def _find_true_size(text: str, height: int, width: int) -> tuple[int, int]:
  """Returns the size stored by `write_video` if it fits, else the decoded."""
  match = re.search(_SIZE_NOTE.format(r'(\d+)', r'(\d+)'), text)
  if match:
    noted = int(match[1]), int(match[2])
    if (noted[0] + noted[0] % 2, noted[1] + noted[1] % 2) == (height, width):
      return noted
  return height, width


def _parse_info(text: str, height: int, width: int) -> VideoInfo:
  rate = re.search(r'Video: .*?, ([\d.]+)(k?) (?:fps|tbr)', text)
  frame_rate = float(rate[1]) * (1000 if rate[2] else 1) if rate else 25.0
  # ffmpeg prints zero for less than a frame in 200 seconds.
  frame_rate = frame_rate or 25.0
  broadcast = round(frame_rate * 1.001) / 1.001  # 29.97 means 30 / 1.001.
  if frame_rate % 1 and abs(broadcast - frame_rate) < 0.005:
    frame_rate = broadcast
  length = re.search(r'Duration: (\d+):(\d+):([\d.]+)', text)
  if not length:
    return VideoInfo(height, width, frame_rate, None)
  seconds = int(length[1]) * 3600 + int(length[2]) * 60 + float(length[3])
  return VideoInfo(height, width, frame_rate, round(seconds * frame_rate))


def _explain_unreadable(path: pathlib.Path, text: str) -> str:
  if 'moov atom not found' in text:
    return (
        f'{str(path)!r} is no complete video: its index is missing, so it was'
        ' cut short, or is not a video at all; copy or record it again'
    )
  if 'matches no streams' in text:
    return f'{str(path)!r} holds no pictures, only sound? Name a video file'
  if 'not on whitelist' in text:
    return (
        f'{str(path)!r} is no video but some other kind of file (sound, a'
        ' playlist?); name a video file'
    )
  return (
      f'no frame of {str(path)!r} could be decoded: it is not a video, is'
      ' damaged, or of a kind this ffmpeg cannot read; convert it to an H.264'
      f' .mp4 (ffmpeg says: {_find_reason(text)})'
  )


def _find_reason(text: str) -> str:
  """Returns the first error in ffmpeg's log, without its memory address."""
  match = re.search(r'\[(?:error|fatal)\] (.+)', text)
  return match[1].strip().rstrip('.') if match else 'nothing: it crashed'


def _read_log(log: BinaryIO) -> str:
  """Returns the log so far, without moving the position of its writer."""
  size = os.fstat(log.fileno()).st_size
  return os.pread(log.fileno(), size, 0).decode('utf-8', errors='replace')


@contextlib.contextmanager
def _run_ffmpeg(
    *arguments: str, log: BinaryIO | int, stdin: int, stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
  """Runs ffmpeg within the context, and kills it at the end."""
  import imageio_ffmpeg

  settings = ('-hide_banner', '-nostats', '-loglevel', 'level+verbose', '-y')
  with subprocess.Popen(
      [imageio_ffmpeg.get_ffmpeg_exe(), *settings, *arguments],
      stdin=stdin,
      stdout=stdout,
      stderr=log,
      env={**os.environ, **_NO_ICONV},
      # Ctrl-C is for the calling process, which may have frames to write yet.
      start_new_session=True,
  ) as process:
    try:
      yield process
    finally:
      process.kill()
