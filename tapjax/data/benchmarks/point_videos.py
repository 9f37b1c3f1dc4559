"""Benchmarks of PIPs++: TAP-Vid-DAVIS, CroHD and PointOdyssey.

Tracks begin at points visible on the first frame and end with the video. Frames
of CroHD and PointOdyssey stay on disk.

The protocol is that of the published tests, with coordinates that count from
the center of the first pixel and scale with the sides of the frame, although
resized frames, and the annotations of DAVIS, are shifted by half a pixel. The
raster coordinates here are half a pixel larger: the network has the same input.
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
from tapjax.data.point_odyssey.images import read_image
from tapjax.data.point_odyssey.images import resize_image
from tapjax.data.point_odyssey.images import resize_values
from tapjax.geometry import Resolution
from tapjax.media.lazy import LazyFrames

# From coordinates of the data sets to raster coordinates, in pixels.
_SHIFT = 0.5


class PointVideo(NamedTuple):
  """A video at the resolution of the evaluation.

  Attributes:
    name: of the video.
    frames: floats in [-1, 1], or uint8 frames that stay on disk.
    positions: (x, y) in raster pixels of the frames; those on the first frame
      are the queries.
    valid: mask of the known positions.
  """

  name: str
  frames: LazyFrames | Float[np.ndarray, 't h w 3']
  positions: Float[np.ndarray, 'n t 2']
  valid: Bool[np.ndarray, 'n t']


class PointEntry(NamedTuple):
  """A video of these benchmarks, at any resolution.

  Attributes:
    name: of the video.
    resize: from (height, width) to the resized video; None keeps its size.
  """

  name: str
  resize: Callable[[Resolution | None], PointVideo]


def open_davis(path: pathlib.Path) -> Source:
  """Opens TAP-Vid-DAVIS: `tapvid_davis.pkl`, its folder or its zip."""

  def list_entries() -> Iterator[Entry]:
    for entry in tapvid.open_davis(path).entries():
      yield entry._replace(read=functools.partial(_take_annotated, entry))

  return Source(list_entries)


def open_point_odyssey(path: pathlib.Path) -> Source:
  """Opens the scenes of a split of PointOdyssey, such as its folder `test`."""

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
  """Opens CroHD, the folder that has `HT21`, in clips of 1000 frames."""

  def list_entries() -> Iterator[Entry]:
    for folder in crohd.list_sequences(path):
      for sequence in crohd.read_clips(folder):

        def read(sequence: PointSequence = sequence) -> PointEntry:
          return _take_sequence(sequence)

        yield Entry(sequence.name, len(sequence.frame_paths), read)

  return Source(list_entries)


def _take_annotated(entry: Entry) -> PointEntry:
  """Reads a video of TAP-Vid; its frames are resized without rounding."""
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
  """Rescales tracks to raster pixels of resized frames."""
  if not len(tracks.positions):
    raise ValueError(f'{name}: no point is visible on the first frame')
  scale = np.asarray([resolution[1] / native[1], resolution[0] / native[0]])
  return PointVideo(
      name, frames, tracks.positions * scale + _SHIFT, tracks.valid
  )
