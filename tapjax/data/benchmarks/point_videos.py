"""What PIPs++ is evaluated on, one video at a time.

TAP-Vid-DAVIS, CroHD and PointOdyssey, from points that the first frame shows to
the end of the video. Frames of the last two stay on disk.

All is as in the published tests, where coordinates count from the center of the
first pixel and are multiplied by the change of the sides, though the resized
frames, and what DAVIS means, are half a pixel beside; ours are half a pixel
more, so that the network is given the same numbers.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
import pathlib
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.data.benchmarks import crohd
from tapjax.data.benchmarks import tapvid
from tapjax.data.benchmarks.point_tracks import PointSequence
from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.benchmarks.point_tracks import take_first_frame_tracks
from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import Entry
from tapjax.data.labeled import Source
from tapjax.data.point_odyssey import files as point_odyssey
from tapjax.data.point_odyssey.clips import read_image
from tapjax.data.point_odyssey.clips import resize_image
from tapjax.data.point_odyssey.clips import resize_values
from tapjax.geometry import Resolution
from tapjax.media.lazy import LazyFrames

# From the data sets' coordinates to raster ones.
_SHIFT = 0.5


class PointVideo(NamedTuple):
  """A video at the size at which it is evaluated.

  Attributes:
    name: of the video.
    frames: in [-1, 1], or levels of frames that stay on disk.
    positions: in raster pixels of the frames; those on the first one are where
      tracks begin.
    valid: where they are known.
  """

  name: str
  frames: LazyFrames | Float[np.ndarray, 't h w 3']
  positions: Float[np.ndarray, 'n t 2']
  valid: Bool[np.ndarray, 'n t']


class PointEntry(NamedTuple):
  """What a reader of these benchmarks returns: a video of any size.

  Attributes:
    name: of the video.
    resize: from a (height, width) to the video of that size, None being its
      own.
  """

  name: str
  resize: Callable[[Resolution | None], PointVideo]


def open_davis(path: pathlib.Path) -> Source:
  """Reads TAP-Vid-DAVIS: `tapvid_davis.pkl`, its folder or its zip."""

  def list_entries() -> Iterator[Entry]:
    for entry in tapvid.open_davis(path).entries():
      yield entry._replace(read=functools.partial(_take_annotated, entry))

  return Source(list_entries)


def open_point_odyssey(path: pathlib.Path) -> Source:
  """Reads the scenes of a split of PointOdyssey, such as its folder `test`."""

  def list_entries() -> Iterator[Entry]:
    for scene in point_odyssey.list_scenes(path):
      num_frames = len(point_odyssey.list_frames(scene, 'rgb'))

      def read(scene: pathlib.Path = scene) -> PointEntry:
        first, *_ = point_odyssey.list_frames(scene, 'rgb')
        size = read_image(first, 'RGB').shape[:2]
        return _take_sequence(
            point_odyssey.read_sequence(scene, resolution=size)
        )

      yield Entry(scene.name, num_frames, read)

  return Source(list_entries)


def open_crohd(path: pathlib.Path) -> Source:
  """Reads CroHD, the folder that has `HT21`, in clips of 1000 frames."""

  def list_entries() -> Iterator[Entry]:
    for folder in crohd.list_sequences(path):
      for sequence in crohd.read_clips(folder):

        def read(sequence: PointSequence = sequence) -> PointEntry:
          return _take_sequence(sequence)

        yield Entry(sequence.name, len(sequence.frame_paths), read)

  return Source(list_entries)


def _take_annotated(entry: Entry) -> PointEntry:
  """Takes a video of TAP-Vid; its frames are resized without rounding."""
  video = entry.read()
  assert isinstance(video, AnnotatedVideo)

  def resize(resolution: Resolution | None) -> PointVideo:
    height, width = video.frames.shape[1:3]
    tracks = take_first_frame_tracks(
        video.points_unit, video.occluded, (height, width)
    )
    size = resolution or (height, width)
    frames = np.stack(
        [resize_values(frame, size) / 127.5 - 1 for frame in video.frames]
    ).astype(np.float32)
    return _scale(video.name, frames, tracks, (height, width), size)

  return PointEntry(video.name, resize)


def _take_sequence(sequence: PointSequence) -> PointEntry:
  def resize(resolution: Resolution | None) -> PointVideo:
    native = read_image(sequence.frame_paths[0], 'RGB').shape[:2]
    size = resolution or native

    def read(row: int) -> UInt8[np.ndarray, 'h w 3']:
      return resize_image(read_image(sequence.frame_paths[row], 'RGB'), size)

    frames = LazyFrames(len(sequence.frame_paths), size, read)
    return _scale(sequence.name, frames, sequence.tracks, native, size)

  return PointEntry(sequence.name, resize)


def _scale(
    name: str,
    frames: LazyFrames | Float[np.ndarray, 't h w 3'],
    tracks: PointTracks,
    native: Resolution,
    resolution: Resolution,
) -> PointVideo:
  """Moves tracks to the pixels of resized frames."""
  if not len(tracks.positions):
    raise ValueError(f'{name}: no point is visible on the first frame')
  scale = np.asarray([resolution[1] / native[1], resolution[0] / native[0]])
  return PointVideo(
      name, frames, tracks.positions * scale + _SHIFT, tracks.valid
  )
