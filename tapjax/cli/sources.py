"""Videos named by `--video`, or the demo clip by default."""

from collections.abc import Iterator
import contextlib
from typing import NamedTuple

from tapjax.data.procedural import demo
from tapjax.media import video as video_files
from tapjax.tracking import prepare

VIDEO_HELP = (
    'Video file, folder of pictures, pattern such as seq/%05d.png, or address'
)


class VideoSource(NamedTuple):
  """A video that can be read more than once, or the demo clip.

  Attributes:
    name: stem of the names of result files.
    info: size, frame rate and number of frames.
    place: the file, address or folder; None for the demo clip.
    clip: the demo clip; None for any other video.
  """

  name: str
  info: video_files.VideoInfo
  place: str | None
  clip: demo.DemoClip | None = None

  @property
  def block(self) -> int:
    """Number of frames to read and resize at once."""
    return prepare.count_block_frames((self.info.height, self.info.width))

  @contextlib.contextmanager
  def open(self) -> Iterator[video_files.VideoReader]:
    """Yields a reader of the frames and their times."""
    if self.clip is not None:
      frames = ((frame, None) for frame in self.clip.frames)
      yield video_files.VideoReader(self.info, frames)
      return
    assert self.place is not None
    with video_files.open_video(self.place) as reader:
      yield reader


def find_video(place: str | None) -> VideoSource:
  """Returns a video, or the demo clip for None.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file is not a video.
  """
  if place is None:
    clip = demo.make_demo_clip()
    num_frames, height, width, _ = clip.frames.shape
    info = video_files.VideoInfo(height, width, demo.FRAME_RATE, num_frames)
    return VideoSource('demo', info, None, clip)
  with video_files.open_video(place) as reader:
    return VideoSource(video_files.get_name(place), reader.info, place)
