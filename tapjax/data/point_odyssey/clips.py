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

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.benchmarks.point_tracks import find_inside
from tapjax.data.benchmarks.point_tracks import limit_positions
from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.point_odyssey.color_augmentation import ColorConfig
from tapjax.data.point_odyssey.color_augmentation import recolor_clip
from tapjax.data.point_odyssey.files import clean_annotations
from tapjax.data.point_odyssey.files import list_frames
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.geometry import Resolution

# Largest distance of a valid point to the frame, in pixels.
_MARGIN = 64.0
# Step between starts of clips, in frames.
_CLIP_STEP = 2
# Largest first, second and third difference of a track's positions, as
# fractions of the longer side of the frame.
_LARGEST_DIFFERENCES = (0.4, 0.3, 0.1)
# Holes of a mask are filled if it has more zeros than this.
_MOST_ZEROS = 128
_MEDIAN_SIDE = 7
# tan(22.5 degrees) in units of 1 / 2^15, as in edge detection.
_TANGENT = 13573
_TANGENT_BITS = 15


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


@dataclasses.dataclass(frozen=True)
class AugmentationConfig:
  """Probabilities and strengths of the augmentation of clips.

  Attributes:
    resize: frames are resized to at least this (height, width), and to slightly
      more than the crop, before padding and scaling.
    spatial: probability of scales and crops that drift over time.
    largest_padding: largest black padding on each side, in pixels.
    smallest_scale: smallest scale of the first frame.
    largest_scale: largest scale of the first frame.
    reversal: probability of reversal in time.
    occluder_clip: probability that a clip has occluding rectangles.
    occluder_frame: probability for each frame of such a clip.
    flip: probability of mirroring, for each axis.
    color: color changes, applied first; None disables them.
  """

  resize: Resolution = (432, 560)
  spatial: float = 0.7
  largest_padding: int = 63
  smallest_scale: float = 0.25
  largest_scale: float = 1.5
  reversal: float = 0.5
  occluder_clip: float = 0.2
  occluder_frame: float = 0.2
  flip: float = 0.5
  color: ColorConfig | None = dataclasses.field(default_factory=ColorConfig)


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
      frames, tracks = _cover_parts(
          frames, tracks, augmentation.occluder_frame, generator
      )
    if generator.random() < augmentation.reversal:
      frames = frames[::-1]
      tracks = PointTracks(*(array[:, ::-1] for array in tracks))
  if augmentation is not None and generator.random() < augmentation.spatial:
    frames, tracks = _move_around(
        frames, tracks, config.crop, augmentation, generator
    )
  elif generator.random() < 0.5:
    frames, tracks = _crop_at_random(frames, tracks, config.crop, generator)
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


def fill_holes(mask: UInt8[np.ndarray, 'h w']) -> UInt8[np.ndarray, 'h w']:
  """Replaces zeros by the median of their neighborhood, if there are many."""
  rows, columns = np.nonzero(mask == 0)
  if len(rows) <= _MOST_ZEROS:
    return mask
  padded = np.pad(mask, _MEDIAN_SIDE // 2, mode='edge')
  around = np.arange(_MEDIAN_SIDE)
  windows = padded[
      rows[:, None, None] + around[None, :, None],
      columns[:, None, None] + around[None, None],
  ].reshape(-1, _MEDIAN_SIDE**2)
  filled = mask.copy()
  middle = _MEDIAN_SIDE**2 // 2
  filled[rows, columns] = np.partition(windows, middle, axis=1)[:, middle]
  return filled


def find_edges(
    mask: UInt8[np.ndarray, 'h w'], thickness: int
) -> Bool[np.ndarray, 'h w']:
  """Returns a mask of edges between segments, away from pixels without one."""
  edges = find_thin_edges(mask) & ~_dilate(mask == 0)
  for _ in range(thickness):
    edges = _dilate(edges)
  return edges


def find_thin_edges(
    image: UInt8[np.ndarray, 'h w'],
) -> Bool[np.ndarray, 'h w']:
  """Canny's edge detection with both thresholds at 1.

  With equal thresholds there is no hysteresis: edges are pixels with a gradient
  larger than that of their two neighbors across the edge.
  """
  padded = np.pad(image.astype(np.int64), 1, mode='edge')
  rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
  columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  dx = rows[:, 2:] - rows[:, :-2]
  dy = columns[2:] - columns[:-2]
  size = np.abs(dx) + np.abs(dy)
  outside = np.pad(size, 1)

  def shift(down: int, right: int) -> np.ndarray:
    height, width = size.shape
    return outside[1 + down : 1 + down + height, 1 + right : 1 + right + width]

  x, y = np.abs(dx), np.abs(dy) << _TANGENT_BITS
  low = x * _TANGENT
  high = low + (x << (_TANGENT_BITS + 1))
  is_upright = (size > shift(0, -1)) & (size >= shift(0, 1))
  is_level = (size > shift(-1, 0)) & (size >= shift(1, 0))
  falls = (size > shift(-1, -1)) & (size > shift(1, 1))
  rises = (size > shift(-1, 1)) & (size > shift(1, -1))
  is_slanted = np.where((dx ^ dy) < 0, rises, falls)
  across = np.where(y > high, is_level, is_slanted)
  return (size > 1) & np.where(y < low, is_upright, across)


def resize_clip(
    frames: UInt8[np.ndarray, 't h w 3'],
    tracks: PointTracks,
    resolution: Resolution,
) -> tuple[UInt8[np.ndarray, 't _ _ 3'], PointTracks]:
  """Resizes frames, and scales positions with the sides of the frame."""
  scale = np.asarray(
      [resolution[1] / frames.shape[2], resolution[0] / frames.shape[1]]
  )
  resized = np.stack([resize_image(frame, resolution) for frame in frames])
  positions = (tracks.positions * scale).astype(tracks.positions.dtype)
  return resized, tracks._replace(positions=positions)


def resize_image(
    image: UInt8[np.ndarray, 'h w c'], resolution: Resolution
) -> UInt8[np.ndarray, '_ _ c']:
  """Resizes as `resize_values`, rounded to uint8."""
  if image.shape[:2] == tuple(resolution):
    return image
  return np.rint(resize_values(image, resolution)).astype(np.uint8)


def resize_values(
    image: UInt8[np.ndarray, 'h w c'],
    resolution: Resolution,
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> Float[np.ndarray, '_ _ c']:
  """Resizes bilinearly, without antialiasing, to float32.

  `part` selects rows and columns of the result.
  """
  values = image.astype(np.float32)
  for axis, new in enumerate(resolution):
    old = values.shape[axis]
    places = (np.arange(new)[part[axis]] + 0.5) * (old / new) - 0.5
    places = np.clip(places, 0, old - 1)
    base = np.minimum(places.astype(int), max(old - 2, 0))
    shape = [1, 1, 1]
    shape[axis] = len(places)
    fraction = (places - base).astype(np.float32).reshape(shape)
    low = np.take(values, base, axis=axis)
    high = np.take(values, np.minimum(base + 1, old - 1), axis=axis)
    values = low + (high - low) * fraction
  return values


def _cover_parts(
    frames: UInt8[np.ndarray, 't h w 3'],
    tracks: PointTracks,
    probability: float,
    generator: np.random.Generator,
) -> tuple[UInt8[np.ndarray, 't h w 3'], PointTracks]:
  """Covers parts of frames, except the first, with their mean color."""
  frames, visible = frames.copy(), tracks.visible.copy()
  height, width = frames.shape[1:3]
  for t in range(1, len(frames)):
    if generator.random() >= probability:
      continue
    for _ in range(generator.integers(1, 11)):
      y, x = generator.integers([height, width])
      tall, wide = generator.integers(20, 300, size=2)
      top, bottom = np.clip([y - tall // 2, y + tall // 2], 0, height)
      left, right = np.clip([x - wide // 2, x + wide // 2], 0, width)
      part = frames[t, top:bottom, left:right]
      part[:] = part.reshape(-1, 3).mean(axis=0)
      at = tracks.positions[:, t]
      visible[:, t] &= ~(
          ((at >= [left, top]) & (at < [right, bottom])).all(axis=-1)
      )
  return frames, tracks._replace(visible=visible)


def _crop_at_random(
    frames: UInt8[np.ndarray, 't h w 3'],
    tracks: PointTracks,
    crop: Resolution,
    generator: np.random.Generator,
) -> tuple[UInt8[np.ndarray, 't _ _ 3'], PointTracks]:
  """Crops all frames at the same random position, without scaling."""
  height, width = frames.shape[1:3]
  if height < crop[0] or width < crop[1]:
    return resize_clip(frames, tracks, crop)
  top = generator.integers(height - crop[0] + 1)
  left = generator.integers(width - crop[1] + 1)
  cut = frames[:, top : top + crop[0], left : left + crop[1]]
  return cut, tracks._replace(positions=tracks.positions - [left, top])


def _move_around(
    frames: UInt8[np.ndarray, 't h w 3'],
    tracks: PointTracks,
    crop: Resolution,
    config: AugmentationConfig,
    generator: np.random.Generator,
) -> tuple[UInt8[np.ndarray, 't _ _ 3'], PointTracks]:
  """Pads, scales, crops and mirrors, with scale and crop drifting in time."""
  least = (crop[0] + 16, crop[1] + 16)
  size = (max(config.resize[0], least[0]), max(config.resize[1], least[1]))
  frames, tracks = resize_clip(frames, tracks, size)
  top, bottom, left, right = generator.integers(
      0, config.largest_padding + 1, size=4
  )
  frames = np.pad(frames, ((0, 0), (top, bottom), (left, right), (0, 0)))
  positions = tracks.positions + np.asarray([left, top])

  sizes = _draw_sizes(frames.shape[:3], least, config, generator)
  scales = sizes / np.asarray(frames.shape[1:3])
  positions = positions * scales[None, :, ::-1]
  first = positions[tracks.visible[:, 0], 0]
  middle = first.mean(axis=0) if len(first) else sizes[0, ::-1] / 2
  corners = _draw_corners(middle, sizes, crop, generator)
  cut = []
  for frame, new, (y, x) in zip(frames, sizes, corners, strict=True):
    part = slice(y, y + crop[0]), slice(x, x + crop[1])
    size = int(new[0]), int(new[1])
    cut.append(np.rint(resize_values(frame, size, part)).astype(np.uint8))
  frames = np.stack(cut)
  positions = positions - corners[None, :, ::-1]
  for axis, side in ((2, crop[1]), (1, crop[0])):
    if generator.random() < config.flip:
      frames = np.flip(frames, axis)
      column = 2 - axis
      positions[..., column] = side - 1 - positions[..., column]
  return frames, tracks._replace(positions=positions)


def _draw_sizes(
    shape: tuple[int, int, int],
    least: Resolution,
    config: AugmentationConfig,
    generator: np.random.Generator,
) -> Int[np.ndarray, 't 2']:
  """Draws the scaled size (height, width) of each frame."""
  num_frames, *full = shape
  scale = np.repeat(
      generator.uniform(config.smallest_scale, config.largest_scale), 2
  )
  drift = np.zeros(2)
  sizes = []
  for t in range(num_frames):
    if t:
      drift = 0.9 * drift * (t > 1) + 0.1 * generator.uniform(-0.1, 0.1, size=2)
    scale = scale + drift
    scale = np.clip((scale + scale.mean()) / 2, 0.2, 2.0)
    size = np.maximum((np.asarray(full) * scale).astype(int), least)
    # The scale of the next frame starts from the rounded size.
    scale = size / np.asarray(full)
    sizes.append(size)
  return np.stack(sizes)


def _draw_corners(
    middle: Float[np.ndarray, '2'],
    sizes: Int[np.ndarray, 't 2'],
    crop: Resolution,
    generator: np.random.Generator,
) -> Int[np.ndarray, 't 2']:
  """Draws the upper-left corner (y, x) of the crop of each frame."""
  corner = middle[::-1].astype(int) - np.asarray(crop) // 2
  offset = np.zeros(2, int)
  corners = []
  for t, size in enumerate(sizes):
    if t:
      step = generator.integers(-20, 20, size=2)
      offset = step if t == 1 else (0.8 * offset + 0.2 * step).astype(int)
    corner = np.clip(corner + offset, 0, size - np.asarray(crop) - 1)
    corners.append(corner)
  return np.stack(corners)


def _check_number(tracks: PointTracks, config: ClipConfig, stage: str) -> None:
  needed = int(config.least_share * config.num_points)
  if len(tracks.positions) < max(needed, 1):
    raise ClipRejectedError(stage, len(tracks.positions), max(needed, 1))


def _dilate(image: Bool[np.ndarray, 'h w']) -> Bool[np.ndarray, 'h w']:
  """Dilates a mask by one pixel in all eight directions."""
  padded = np.pad(image, 1)
  wide = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
  return wide[:-2] | wide[1:-1] | wide[2:]


def read_image(path: pathlib.Path, mode: str) -> UInt8[np.ndarray, 'h w *c']:
  """Reads a frame as 'RGB', or segments as 'L'; ValueError if damaged."""
  try:
    from PIL import Image
  except ImportError:
    raise ImportError(
        'reading frames of PointOdyssey needs Pillow - install it with pip '
        'install pillow'
    ) from None
  try:
    with Image.open(path) as image:
      return np.asarray(image.convert(mode))
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(f'{path} is no image that can be read: {error}') from None
