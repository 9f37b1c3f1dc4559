"""Distractors in training videos: occluding rectangles, colors and blur.

As in the training of CoTracker and TAPTRv2: on all frames except the first,
occluding rectangles of one color or of another, recolored frame; on whole
videos, color changes that differ from frame to frame, and blur. All computation
is on the device, and depends on the key alone.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.data.procedural.textures import Key
from tapjax.ops.loops import map_frames
from tapjax.types import Example

# Weights of red, green and blue in the luminance.
_LUMINANCE = np.asarray([0.2989, 0.587, 0.114], np.float32)
_BLUR_SIZE = 11


@dataclasses.dataclass(frozen=True)
class DistractorConfig:
  """Probabilities and strengths of distractors.

  Attributes:
    cover: probability that a frame has rectangles of their own mean color.
    replace: probability that a frame has rectangles of another frame.
    most_rectangles: largest number of each kind on a frame.
    smallest_side: smallest side of a rectangle, in pixels.
    largest_side: largest side of a rectangle, in pixels.
    recolor: probability that the colors of a video change.
    brightness: largest relative change of the brightness.
    contrast: largest relative change of the contrast.
    saturation: largest relative change of the saturation.
    hue: largest change of the hue, in full turns.
    blur: probability that a video is blurred.
    smallest_blur: smallest standard deviation, in pixels.
    largest_blur: largest standard deviation, in pixels.
  """

  cover: float = 0.5
  replace: float = 0.5
  most_rectangles: int = 10
  smallest_side: int = 2
  largest_side: int = 99
  recolor: float = 0.25
  brightness: float = 0.2
  contrast: float = 0.2
  saturation: float = 0.2
  hue: float = 0.25 / np.pi
  blur: float = 0.25
  smallest_blur: float = 0.1
  largest_blur: float = 2.0

  def __post_init__(self):
    for name in ('cover', 'replace', 'recolor', 'blur'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
            f'{name} must be a probability, from 0 to 1; got '
            f'{getattr(self, name)}'
        )
    if not 1 <= self.smallest_side <= self.largest_side:
      raise ValueError(
          'smallest_side must be at least 1, and at most largest_side; got '
          f'{self.smallest_side} and {self.largest_side}'
      )
    if self.most_rectangles < 1 or self.smallest_blur <= 0:
      raise ValueError(
          'most_rectangles must be at least 1 and smallest_blur positive; got '
          f'{self.most_rectangles} and {self.smallest_blur}'
      )


class _Rectangle(NamedTuple):
  """A rectangle in a frame, in pixels; bottom and right are exclusive."""

  top: Int[Array, '']
  left: Int[Array, '']
  bottom: Int[Array, '']
  right: Int[Array, '']

  def find(self, height: int, width: int) -> Bool[Array, 'h w']:
    """Returns the mask of its pixels in a frame."""
    rows, columns = jnp.arange(height)[:, None], jnp.arange(width)[None]
    inside = (rows >= self.top) & (rows < self.bottom)
    return inside & (columns >= self.left) & (columns < self.right)


def add_distractors(
    key: Key, example: Example, config: DistractorConfig
) -> Example:
  """Adds distractors to an example without a batch axis.

  Covered points are occluded. Queries of points that are covered on their query
  frame move to the first visible frame, or to the last frame of the video for
  points without one.
  """
  keys = jax.random.split(key, 5)
  colors = _draw_colors(keys[0], len(example.video), config)
  other = recolor_frames(example.video, *colors)
  video, covered = _cover_frames(keys[1], example.video, other, config)
  is_recolored, is_blurred = jax.random.bernoulli(
      keys[2], jnp.asarray([config.recolor, config.blur])
  )
  colors = _draw_colors(keys[3], len(video), config)
  video = jax.lax.cond(
      is_recolored,
      lambda video: recolor_frames(video, *colors),
      lambda video: video,
      video,
  )
  deviation = jax.random.uniform(
      keys[4], (), minval=config.smallest_blur, maxval=config.largest_blur
  )
  video = jax.lax.cond(
      is_blurred,
      lambda video: blur_frames(video, deviation),
      lambda video: video,
      video,
  )
  return hide_points(example._replace(video=video), covered)


def hide_points(example: Example, covered: Bool[Array, 't h w']) -> Example:
  """Marks points on covered pixels as occluded, and moves their queries."""
  num_frames, height, width = covered.shape
  x, y = jnp.moveaxis(jnp.floor(example.target_points).astype(jnp.int32), -1, 0)
  inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
  found = covered[
      jnp.arange(num_frames)[None],
      jnp.clip(y, 0, height - 1),
      jnp.clip(x, 0, width - 1),
  ]
  occluded = example.occluded | (found & inside)
  own = jnp.round(example.query_points[:, 0]).astype(jnp.int32)
  is_hidden = jnp.take_along_axis(found & inside, own[:, None], axis=1)[:, 0]
  first = find_first_seen(occluded)
  start = jnp.take_along_axis(
      example.target_points, first[:, None, None], axis=1
  )[:, 0]
  moved = jnp.concatenate(
      [first[:, None].astype(start.dtype), jnp.flip(start, axis=-1)], axis=-1
  )
  points = jnp.where(is_hidden[:, None], moved, example.query_points)
  return example._replace(query_points=points, occluded=occluded)


def find_first_seen(occluded: Bool[Array, 'n t']) -> Int[Array, 'n']:
  """Returns the first visible frame of each point; the last frame if none."""
  return jnp.where(
      jnp.all(occluded, axis=1),
      occluded.shape[1] - 1,
      jnp.argmin(occluded, axis=1),
  )


def recolor_frames(
    video: Float[Array, 't h w 3'],
    brightness: Float[Array, 't'],
    contrast: Float[Array, 't'],
    saturation: Float[Array, 't'],
    hue: Float[Array, 't'],
) -> Float[Array, 't h w 3']:
  """Multiplies brightness, contrast and saturation, and rotates the hue.

  Each frame has its own factors; `hue` is in full turns about the gray axis.
  """

  def widen(values: Float[Array, 't']) -> Float[Array, 't 1 1 1']:
    return values[:, None, None, None]

  levels = jnp.clip((video + 1) / 2 * widen(brightness), 0, 1)
  mean = jnp.mean(_take_gray(levels), axis=(1, 2), keepdims=True)
  levels = jnp.clip(mean + (levels - mean) * widen(contrast), 0, 1)
  gray = _take_gray(levels)
  levels = jnp.clip(gray + (levels - gray) * widen(saturation), 0, 1)
  angle = widen(hue) * (2 * np.pi)
  # Rodrigues' rotation about the gray axis.
  across = jnp.roll(levels, 1, axis=-1) - jnp.roll(levels, -1, axis=-1)
  mean = jnp.mean(levels, axis=-1, keepdims=True)
  turned = (
      mean
      + (levels - mean) * jnp.cos(angle)
      + across * (jnp.sin(angle) / np.sqrt(3))
  )
  return 2 * jnp.clip(turned, 0, 1) - 1


def blur_frames(
    video: Float[Array, 't h w 3'], deviation: Float[Array, '']
) -> Float[Array, 't h w 3']:
  """Blurs by a Gaussian of 11x11 pixels, with mirrored borders."""
  half = _BLUR_SIZE // 2
  weights = jnp.exp(-jnp.square(jnp.arange(-half, half + 1) / deviation) / 2)
  weights = weights / jnp.sum(weights)
  for axis in (1, 2):
    length = video.shape[axis]
    pad = [(half if i == axis else 0,) * 2 for i in range(4)]
    padded = jnp.pad(video, pad, mode='reflect' if length > half else 'edge')
    video = sum(
        weight * jax.lax.slice_in_dim(padded, i, i + length, axis=axis)
        for i, weight in enumerate(weights)
    )
  return video


def _take_gray(levels: Float[Array, '*n 3']) -> Float[Array, '*n 1']:
  weighted = levels * _LUMINANCE.reshape((1,) * (levels.ndim - 1) + (3,))
  return jnp.sum(weighted, axis=-1, keepdims=True)


def _draw_colors(
    key: Key, num_frames: int, config: DistractorConfig
) -> tuple[Array, Array, Array, Array]:
  """Draws the arguments of `recolor_frames` for every frame."""
  draws = jax.random.uniform(key, (4, num_frames), minval=-1.0)
  return (
      1 + config.brightness * draws[0],
      1 + config.contrast * draws[1],
      1 + config.saturation * draws[2],
      config.hue * draws[3],
  )


def _cover_frames(
    key: Key,
    video: Float[Array, 't h w 3'],
    other: Float[Array, 't h w 3'],
    config: DistractorConfig,
) -> tuple[Float[Array, 't h w 3'], Bool[Array, 't h w']]:
  """Covers parts of all frames except the first; returns video and mask."""
  num_frames, height, width = video.shape[:3]

  def cover(
      frame: Float[Array, 'h w 3'], key: Key, is_first: Bool[Array, '']
  ) -> tuple[Float[Array, 'h w 3'], Bool[Array, 'h w']]:
    keys = jax.random.split(key, 5)
    source = other[jax.random.randint(keys[0], (), 0, num_frames)]
    covered = jnp.zeros((height, width), bool)
    for kind, chance in enumerate((config.cover, config.replace)):
      draw_key, number_key = keys[1 + 2 * kind], keys[2 + 2 * kind]
      count_key, coin_key = jax.random.split(number_key)
      is_chosen = jax.random.bernoulli(coin_key, chance) & ~is_first
      number = jax.random.randint(count_key, (), 1, config.most_rectangles + 1)
      number = jnp.where(is_chosen, number, 0)

      def add(
          index: Array,
          state: tuple[Array, Array],
          kind: int = kind,
          draw_key: Key = draw_key,
      ) -> tuple[Array, Array]:
        frame, covered = state
        own_key, place_key = jax.random.split(
            jax.random.fold_in(draw_key, index)
        )
        rectangle = _draw_rectangle(own_key, height, width, config)
        inside = rectangle.find(height, width)
        if kind == 0:
          weights = inside[..., None] / jnp.maximum(jnp.sum(inside), 1)
          fill = jnp.sum(frame * weights, axis=(0, 1), keepdims=True)
        else:
          fill = _take_patch(place_key, source, rectangle)
        return (
            jnp.where(inside[..., None], fill, frame),
            covered | inside,
        )

      frame, covered = jax.lax.fori_loop(0, number, add, (frame, covered))
    return frame, covered

  keys = jax.random.split(key, num_frames)
  return map_frames(
      cover,
      video,
      keys,
      jnp.arange(num_frames) == 0,
      platform=jax.default_backend(),
  )


def _draw_rectangle(
    key: Key, height: int, width: int, config: DistractorConfig
) -> _Rectangle:
  """Draws a rectangle by center and sides, clipped to the frame."""
  place_key, size_key = jax.random.split(key)
  size = jnp.asarray([height, width])
  center = jax.random.randint(place_key, (2,), 0, size)
  sides = jax.random.randint(
      size_key, (2,), config.smallest_side, config.largest_side + 1
  )
  low = center - sides // 2
  top, left = jnp.maximum(low, 0)
  bottom, right = jnp.minimum(low + sides, size)
  return _Rectangle(top, left, bottom, right)


def _take_patch(
    key: Key, source: Float[Array, 'h w 3'], rectangle: _Rectangle
) -> Float[Array, 'h w 3']:
  """Moves a random patch of a frame to the position of a rectangle."""
  height, width = source.shape[:2]
  tall = rectangle.bottom - rectangle.top
  wide = rectangle.right - rectangle.left
  top_key, left_key = jax.random.split(key)
  top = jax.random.randint(top_key, (), 0, height - tall + 1)
  left = jax.random.randint(left_key, (), 0, width - wide + 1)
  rows = jnp.clip(jnp.arange(height) - rectangle.top + top, 0, height - 1)
  columns = jnp.clip(jnp.arange(width) - rectangle.left + left, 0, width - 1)
  return source[rows][:, columns]
