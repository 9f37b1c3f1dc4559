"""Augmentation of clips: occluders, crops, and drifting scales."""

import dataclasses

from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.point_odyssey.color_augmentation import ColorConfig
from tapjax.data.point_odyssey.images import resize_image
from tapjax.data.point_odyssey.images import resize_values
from tapjax.geometry import Resolution


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


def cover_parts(
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


def crop_at_random(
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


def move_around(
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
