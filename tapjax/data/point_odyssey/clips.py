"""Training clips of PointOdyssey, selected and augmented as for PIPs++.

scene ──list_clips──► frame numbers ──read_clip──► RawClip
──make_training_clip──► TrainingClip, or `ClipRejectedError`

Positions are (x, y) in pixels, with (0, 0) at the center of the upper-left one.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
import pathlib
from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.benchmarks.point_tracks import find_inside
from tapjax.data.benchmarks.point_tracks import limit_positions
from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.point_odyssey.clip_augmentation import AugmentationConfig
from tapjax.data.point_odyssey.clip_augmentation import cover_parts
from tapjax.data.point_odyssey.clip_augmentation import crop_at_random
from tapjax.data.point_odyssey.clip_augmentation import move_around
from tapjax.data.point_odyssey.clip_augmentation import resize_clip
from tapjax.data.point_odyssey.color_augmentation import recolor_clip
from tapjax.data.point_odyssey.files import clean_annotations
from tapjax.data.point_odyssey.files import list_frames
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.images import read_image
from tapjax.data.point_odyssey.segment_edges import fill_holes
from tapjax.data.point_odyssey.segment_edges import find_edges
from tapjax.geometry import Resolution

# Largest distance of a valid point to the frame, in pixels.
_MARGIN = 64.0
# Step between starts of clips, in frames.
_CLIP_STEP = 2
# Largest first, second and third difference of a track's positions, as
# fractions of the longer side of the frame.
_LARGEST_DIFFERENCES = (0.4, 0.3, 0.1)


class ClipRejectedError(ValueError):
  """Too few tracks of a clip are usable, at the named stage."""

  def __init__(self, stage: str, found: int, needed: int, what: str = 'tracks'):
    super().__init__(f'{stage}: {found} {what}, {needed} are needed')
    self.stage = stage
    self.found = found
    self.needed = needed


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Settings of training clips.

  Attributes:
    num_frames: frames per clip.
    num_points: tracks per clip.
    crop: (height, width) of the frames.
    strides: steps between frames of a clip; scenes have clips of all strides.
    least_share: a clip is rejected if less than this fraction of `num_points`
      tracks is usable; tracks are repeated to fill up `num_points`.
  """

  num_frames: int = 36
  num_points: int = 128
  crop: Resolution = (384, 512)
  strides: tuple[int, ...] = (1, 2, 4)
  least_share: float = 1.0


class RawClip(NamedTuple):
  """Unchanged frames of a scene, with segments: 0 is no segment, or fog."""

  frames: UInt8[np.ndarray, 't h w 3']
  masks: UInt8[np.ndarray, 't h w']
  annotations: PointAnnotations


class TrainingClip(NamedTuple):
  """A clip whose tracks are all visible on the first frame."""

  frames: UInt8[np.ndarray, 't h w 3']
  tracks: PointTracks


def list_clips(
    num_frames: int, config: ClipConfig
) -> Iterator[Int[np.ndarray, 't']]:
  """Yields the frame numbers of all clips of a scene."""
  for stride in config.strides:
    last = num_frames - config.num_frames * stride
    for start in range(0, last + 1, _CLIP_STEP):
      yield start + stride * np.arange(config.num_frames)


def read_clip(
    scene: pathlib.Path,
    annotations: PointAnnotations,
    numbers: Sequence[int] | Int[np.ndarray, 't'],
) -> RawClip:
  """Reads frames of a scene by number; `annotations` are of the whole scene.

  Needs Pillow. Raises ValueError for an unreadable image.
  """
  rows = np.asarray(numbers)
  frames, masks = (
      [read_image(list_frames(scene, kind)[row], mode) for row in rows]
      for kind, mode in (('rgb', 'RGB'), ('mask', 'L'))
  )
  return RawClip(
      np.stack(frames),
      np.stack(masks),
      PointAnnotations(*(array[rows] for array in annotations)),
  )


def make_training_clip(
    clip: RawClip,
    config: ClipConfig,
    augmentation: AugmentationConfig | None,
    generator: np.random.Generator,
) -> TrainingClip:
  """Selects and augments the tracks of a clip.

  Without augmentation the frames are resized, or cropped, to `config.crop`.
  Raises ClipRejectedError for too few usable tracks.
  """
  frames, height = clip.frames, clip.frames.shape[1]
  tracks = choose_clear_tracks(
      clip,
      config,
      augmentation.resize[0] if augmentation is not None else height,
  )
  if augmentation is not None:
    if augmentation.color is not None:
      frames = recolor_clip(frames, augmentation.color, generator)
    if generator.random() < augmentation.occluder_clip:
      frames, tracks = cover_parts(
          frames, tracks, augmentation.occluder_frame, generator
      )
    if generator.random() < augmentation.reversal:
      frames = frames[::-1]
      tracks = PointTracks(*(array[:, ::-1] for array in tracks))
  if augmentation is not None and generator.random() < augmentation.spatial:
    frames, tracks = move_around(
        frames, tracks, config.crop, augmentation, generator
    )
  elif generator.random() < 0.5:
    frames, tracks = crop_at_random(frames, tracks, config.crop, generator)
  else:
    frames, tracks = resize_clip(frames, tracks, config.crop)
  tracks = filter_tracks(tracks, config)
  first = int(generator.integers(len(tracks.positions)))
  rows = choose_spread_tracks(
      tracks.positions, config.num_points, first, generator
  )
  tracks = limit_positions(
      tracks.take(generator.permutation(rows)), config.crop, _MARGIN
  )
  return TrainingClip(np.ascontiguousarray(frames), tracks)


def choose_clear_tracks(
    clip: RawClip, config: ClipConfig, resized_height: int
) -> PointTracks:
  """Returns tracks visible on the first frame, away from segment edges.

  At edges the object of a point is ambiguous. Edges are thicker in frames that
  will be resized to a smaller `resized_height`.
  """
  tracks = clean_annotations(clip.annotations)
  tracks = tracks.take((tracks.visible & tracks.valid)[:, 0])
  _check_number(tracks, config, 'before cropping')
  height, width = clip.masks.shape[1:]
  inside = find_inside(
      tracks.positions, (0.0, 0.0), (width - 1.0, height - 1.0)
  )
  tracks = tracks._replace(visible=tracks.visible & inside)
  tracks = tracks.take(tracks.visible[:, 0])
  thickness = max(height // resized_height, 1)
  edges = find_edges(fill_holes(clip.masks[0]), thickness)
  x, y = tracks.positions[:, 0].astype(int).T
  tracks = tracks.take(~edges[y, x])
  _check_number(tracks, config, 'after edge check')
  return tracks


def filter_tracks(tracks: PointTracks, config: ClipConfig) -> PointTracks:
  """Returns tracks that are visible long enough in the crop, and smooth."""
  height, width = config.crop
  positions = tracks.positions
  seen = find_inside(positions, (1.0, 1.0), (width - 2.0, height - 2.0))
  near = find_inside(
      positions,
      (-_MARGIN, -_MARGIN),
      (width + _MARGIN, height + _MARGIN),
  )
  tracks = tracks._replace(
      visible=tracks.visible & seen, valid=tracks.valid & near
  )
  good = tracks.visible & tracks.valid
  num_frames = good.shape[1]
  kept = good[:, 0] & good[:, 1]
  kept &= good.sum(axis=1) >= max(math.sqrt(num_frames), 2)
  differences = positions / max(height, width)
  for largest in _LARGEST_DIFFERENCES:
    differences = np.diff(differences, axis=1)
    lengths = np.linalg.norm(differences, axis=-1)
    kept &= np.max(lengths, axis=1, initial=0) < largest
  tracks = tracks.take(kept)
  _check_number(tracks, config, 'after cropping')
  return tracks


def choose_spread_tracks(
    positions: Float[np.ndarray, 'n t 2'],
    num_points: int,
    first: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, 'k']:
  """Selects tracks with diverse first positions and mean motions.

  Farthest-point sampling from the track `first`. Of too few tracks, random ones
  are repeated.
  """
  steps = np.diff(positions, axis=1).mean(axis=1)
  places = np.concatenate([positions[:, 0], steps], axis=-1)
  noise = generator if num_points > len(places) else None
  return choose_farthest(places, num_points, first, noise)


def choose_farthest(
    places: Float[np.ndarray, 'n c'],
    num_points: int,
    first: int,
    noise: np.random.Generator | None = None,
) -> Int[np.ndarray, 'k']:
  """Farthest-point sampling: each row is the farthest from those before.

  `noise` adds normal noise to the squared distances.
  """
  chosen = [first]
  nearest = np.full(len(places), np.inf)
  for _ in range(num_points - 1):
    distances = np.sum(np.square(places - places[chosen[-1]]), axis=-1)
    if noise is not None:
      distances = distances + noise.standard_normal(len(places))
    nearest = np.minimum(nearest, distances)
    chosen.append(int(np.argmax(nearest)))
  return np.asarray(chosen)


def _check_number(tracks: PointTracks, config: ClipConfig, stage: str) -> None:
  needed = int(config.least_share * config.num_points)
  if len(tracks.positions) < max(needed, 1):
    raise ClipRejectedError(stage, len(tracks.positions), max(needed, 1))
