"""Augmentation of training videos: random crops and color changes.

NumPy draws the random parameters on the host; JAX applies them to the pixels on
the training device.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.kubric.query_choices import CropWindow
from tapjax.geometry import Resolution

_ASPECTS = (0.5, 2.0)
_LEAST_AREA = 0.3
_ATTEMPTS = 20

_COLOR_CHANCE = 0.8
_GRAY_CHANCE = 0.2
_BRIGHTNESS = 32 / 255
_FACTORS = (0.6, 1.4)
_HUE = 0.2
# Weights of red, green and blue in the luminance.
_LUMINANCE = (0.2989, 0.587, 0.114)


class Colors(NamedTuple):
  """Parameters of a color change, shared by all frames of a video.

  Attributes:
    brightness: added to colors in [0, 1].
    saturation: factor of the saturation.
    contrast: factor of the difference to a channel's mean over the frame.
    hue: added, in full turns.
    is_changed: whether the four changes are applied.
    is_gray: whether the result is converted to gray.
  """

  brightness: Float[Any, '*b']
  saturation: Float[Any, '*b']
  contrast: Float[Any, '*b']
  hue: Float[Any, '*b']
  is_changed: Bool[Any, '*b']
  is_gray: Bool[Any, '*b']


def draw_crop(
    resolution: Resolution, generator: np.random.Generator
) -> CropWindow:
  """Draws a crop with at least 30 % of the area of a frame.

  Its aspect ratio, width over height, is between 1/2 and 2. After twenty draws
  that do not fit, the crop is the whole frame.
  """
  height, width = resolution
  for _ in range(_ATTEMPTS):
    size = _draw_size(height, width, generator)
    if size is None:
      continue
    rows, columns = size
    top = int(generator.integers(height - rows)) if rows < height else 0
    left = int(generator.integers(width - columns)) if columns < width else 0
    return CropWindow(top, left, top + rows, left + columns)
  return CropWindow(0, 0, height, width)


def _draw_size(
    height: int, width: int, generator: np.random.Generator
) -> tuple[int, int] | None:
  """Draws (height, width) by aspect ratio; None if they do not fit."""
  aspect = generator.uniform(*_ASPECTS)
  area = height * width
  least = round((_LEAST_AREA * area / aspect) ** 0.5)
  most = min(round((area / aspect) ** 0.5), height)
  while most > 0 and round(most * aspect) > width:
    most -= 1
  rows = least
  if least < most:
    rows = int(generator.integers(least, most + 1))
  rows = min(rows, most)
  # One row more or less if rounding exceeds the allowed area.
  if rows * round(rows * aspect) < _LEAST_AREA * area:
    rows += 1
  if rows * round(rows * aspect) > area:
    rows -= 1
  columns = round(rows * aspect)
  fits = 0 < rows <= height and 0 < columns <= width
  if not fits or not _LEAST_AREA * area <= rows * columns <= area:
    return None
  return rows, columns


def draw_colors(generator: np.random.Generator) -> Colors:
  """Draws the color change of one video."""
  numbers = Colors(
      brightness=generator.uniform(-_BRIGHTNESS, _BRIGHTNESS),
      saturation=generator.uniform(*_FACTORS),
      contrast=generator.uniform(*_FACTORS),
      hue=generator.uniform(-_HUE, _HUE),
      is_changed=generator.random() < _COLOR_CHANCE,
      is_gray=generator.random() < _GRAY_CHANCE,
  )
  return Colors(
      *(np.float32(number) for number in numbers[:4]),
      *(np.bool_(coin) for coin in numbers[4:]),
  )


def resize_crop(
    frames: UInt8[Array, 't h w 3'],
    crop: Int[Array, '4'],
    resolution: Resolution,
    *,
    as_published: bool = False,
) -> Float[Array, 't _ _ 3']:
  """Resizes a crop bilinearly, without antialiasing, to colors in [-1, 1].

  `crop` is (top, left, bottom, right) in pixels, as `CropWindow`. With
  `as_published`, resizing keeps the center of the first pixel in place, while
  positions scale with the size: the picture is shifted against the positions by
  up to half a pixel.
  """
  video = frames.astype(jnp.float32)
  top, left, bottom, right = crop
  shift = 0.0 if as_published else 0.5
  video = _resize_axis(video, left, right, resolution[1], 2, shift)
  video = _resize_axis(video, top, bottom, resolution[0], 1, shift)
  return video / 127.5 - 1


def _resize_axis(
    video: Float[Array, 't _ _ 3'],
    start: Int[Array, ''],
    stop: Int[Array, ''],
    size: int,
    axis: int,
    shift: float,
) -> Float[Array, 't _ _ 3']:
  """Interpolates one axis of a crop, with the border value outside of it."""
  length = stop - start
  places = (jnp.arange(size) + shift) * (length / size) - shift
  base = jnp.floor(places)
  fraction = (places - base).reshape([-1 if i == axis else 1 for i in range(4)])
  low = jnp.clip(base.astype(jnp.int32), 0, length - 1) + start
  high = jnp.clip(base.astype(jnp.int32) + 1, 0, length - 1) + start
  below = jnp.take(video, low, axis=axis)
  return below + (jnp.take(video, high, axis=axis) - below) * fraction


def change_colors(
    video: Float[Array, 't h w 3'], colors: Colors
) -> Float[Array, 't h w 3']:
  """Applies a color change to a video in [-1, 1]."""
  changed = add_brightness((video + 1) / 2, colors.brightness)
  changed = scale_saturation(changed, colors.saturation)
  changed = scale_contrast(changed, colors.contrast)
  changed = shift_hue(changed, colors.hue)
  changed = 2 * jnp.clip(changed, 0, 1) - 1
  video = jnp.where(colors.is_changed, changed, video)
  gray = jnp.einsum('thwc,c->thw', video, jnp.asarray(_LUMINANCE))
  return jnp.where(colors.is_gray, gray[..., None], video)


def add_brightness(
    video: Float[Array, 't h w 3'], brightness: Float[Array, '']
) -> Float[Array, 't h w 3']:
  """Adds to the brightness, without clipping."""
  return video + brightness


def scale_saturation(
    video: Float[Array, 't h w 3'], factor: Float[Array, '']
) -> Float[Array, 't h w 3']:
  """Multiplies the saturation, clipped to 1; keeps hue and value."""
  value = jnp.max(video, axis=-1, keepdims=True)
  spread = value - jnp.min(video, axis=-1, keepdims=True)
  is_positive = value > 0
  saturation = jnp.where(
      is_positive, spread / jnp.where(is_positive, value, 1), 0
  )
  scaled = jnp.clip(factor * saturation, 0, 1)
  # Differences to the largest channel are proportional to the saturation.
  has_color = saturation > 0
  ratio = jnp.where(has_color, scaled / jnp.where(has_color, saturation, 1), 0)
  return value - (value - video) * ratio


def scale_contrast(
    video: Float[Array, 't h w 3'], factor: Float[Array, '']
) -> Float[Array, 't h w 3']:
  """Multiplies the difference to the mean of each frame and channel."""
  mean = jnp.mean(video, axis=(1, 2), keepdims=True)
  return (video - mean) * factor + mean


def shift_hue(
    video: Float[Array, 't h w 3'], turns: Float[Array, '']
) -> Float[Array, 't h w 3']:
  """Rotates the hue; keeps the largest and the smallest value."""
  low, high = jnp.min(video, axis=-1), jnp.max(video, axis=-1)
  spread = high - low
  red, green, blue = jnp.moveaxis(video, -1, 0)
  safe = jnp.where(spread > 0, spread, 1)
  sixth = jnp.where(
      red >= high,
      (green - blue) / safe,
      jnp.where(
          green >= high, 2 + (blue - red) / safe, 4 + (red - green) / safe
      ),
  )
  sixth = jnp.mod(sixth + 6 * turns, 6)
  weights = [
      jnp.abs(sixth - 3) - 1,
      2 - jnp.abs(sixth - 2),
      2 - jnp.abs(sixth - 4),
  ]
  return jnp.stack(
      [low + spread * jnp.clip(weight, 0, 1) for weight in weights], axis=-1
  )


def apply_augmentation(
    frames: UInt8[Array, 't h w 3'],
    crop: Int[Array, '4'],
    colors: Colors,
    resolution: Resolution,
    *,
    as_published: bool = False,
) -> Float[Array, 't _ _ 3']:
  """Crops, resizes and recolors a video; see `resize_crop`."""
  video = resize_crop(frames, crop, resolution, as_published=as_published)
  return change_colors(video, colors)
