"""Videos named by `--video`: a file, or the demo clip by default."""

from collections.abc import Iterator
import contextlib
from typing import NamedTuple

from jaxtyping import UInt8
import numpy as np

from tapjax.data.procedural import demo
from tapjax.media import video as video_files
from tapjax.tracking import prepare


class VideoSource(NamedTuple):
  """A video file or the demo clip.

  Attributes:
    path: the file; None for the demo clip.
    clip: the demo clip; None for a file.
    info: size, frame rate and number of frames.
  """

  path: str | None
  clip: demo.DemoClip | None
  info: video_files.VideoInfo

  @contextlib.contextmanager
  def open_blocks(self) -> Iterator[Iterator[UInt8[np.ndarray, '_ h w 3']]]:
    """Yields an iterator over blocks of a few frames."""
    if self.clip is not None:
      yield prepare.split_frames(self.clip.frames)
      return
    assert self.path is not None
    with video_files.open_video(self.path) as reader:
      yield reader.read_blocks(prepare.FRAME_CHUNK)


def find_video(path: str | None) -> VideoSource:
  """Returns a video file, or the demo clip for None.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file is not a video.
  """
  if path is None:
    clip = demo.make_demo_clip()
    num_frames, height, width, _ = clip.frames.shape
    info = video_files.VideoInfo(height, width, demo.FRAME_RATE, num_frames)
    return VideoSource(None, clip, info)
  with video_files.open_video(path) as reader:
    return VideoSource(path, None, reader.info)
