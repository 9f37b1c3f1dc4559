"""Degradation of videos, with maps of points to and from degraded frames.

Every frame is scaled down and placed on a black canvas; position and scale
change linearly over time. JPEG compression of low quality is then simulated.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from tapjax.geometry import Resolution

_BLOCK = 8
# From red, green and blue to luma and two chroma channels.
_TO_YCC = np.asarray(
    [
        [0.299, 0.587, 0.114],
        [-0.168736, -0.331264, 0.5],
        [0.5, -0.418688, -0.081312],
    ]
)
_FROM_YCC = np.linalg.inv(_TO_YCC)
# Quantization steps of luma in the JPEG standard, at quality 50, by vertical
# and horizontal frequency; the steps of chroma are larger.
_STEPS = np.asarray(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
_COLOR_STEPS = np.full((_BLOCK, _BLOCK), 99)
_COLOR_STEPS[:4, :4] = [
    [17, 18, 24, 47],
    [18, 21, 26, 66],
    [24, 26, 56, 99],
    [47, 66, 99, 99],
]


@dataclasses.dataclass(frozen=True)
class DegradationConfig:
  """Settings of the degradation of videos.

  Attributes:
    least_scale: smallest scale of a frame on its canvas, at most 1.
    jpeg_chance: probability of JPEG compression.
    jpeg_quality: smallest and largest quality, in 1 to 100.
  """

  least_scale: float = 0.6
  jpeg_chance: float = 0.5
  jpeg_quality: tuple[float, float] = (15.0, 75.0)

  def __post_init__(self):
    if not 0 < self.least_scale <= 1:
      raise ValueError(
          'least_scale must be more than 0 and at most 1; got '
          f'{self.least_scale}'
      )
    low, high = self.jpeg_quality
    if not 1 <= low <= high <= 100:
      raise ValueError(
          'jpeg_quality must be two numbers of 1 to 100, the lower one first; '
          f'got {self.jpeg_quality}'
      )


class Motion(NamedTuple):
  """Placement on the canvas, of the first and of the last frame.

  Scales (x, y) are fractions of the canvas; offsets (x, y) of the upper-left
  corner are fractions of the free space, the canvas without the frame.
  """

  scales: Float[Array, '*b 2 2']
  offsets: Float[Array, '*b 2 2']


def draw_motion(key: Array, config: DegradationConfig) -> Motion:
  """Draws the placement of the frames of a video."""
  keys = jax.random.split(key, 2)
  scales = jax.random.uniform(keys[0], (2, 2), minval=config.least_scale)
  return Motion(scales, jax.random.uniform(keys[1], (2, 2)))


def _place(
    motion: Motion, num_frames: int, size: Resolution
) -> tuple[Float[Array, 't 2'], Float[Array, 't 2']]:
  """Returns the scale and the upper-left corner (x, y) in pixels by frame."""
  fraction = jnp.linspace(0, 1, num_frames)[:, None]

  def mix(ends: Float[Array, '2 2']) -> Float[Array, 't 2']:
    return ends[:1] + (ends[1:] - ends[:1]) * fraction

  canvas = jnp.asarray(size[::-1], jnp.float32)
  ends = motion.offsets * (1 - motion.scales) * canvas[None]
  return mix(motion.scales), mix(ends)


def to_canvas(
    positions: Float[Array, 'n t 2'], motion: Motion, size: Resolution
) -> Float[Array, 'n t 2']:
  """Maps (x, y) of the video to the canvas, in pixels of `size`."""
  scales, corners = _place(motion, positions.shape[1], size)
  return positions * scales[None] + corners[None]


def from_canvas(
    positions: Float[Array, 'n t 2'], motion: Motion, size: Resolution
) -> Float[Array, 'n t 2']:
  """Maps (x, y) of the canvas to the video; inverse of `to_canvas`."""
  scales, corners = _place(motion, positions.shape[1], size)
  return (positions - corners[None]) / scales[None]


def degrade_video(
    key: Array,
    video: Float[Array, 't h w 3'],
    motion: Motion,
    config: DegradationConfig,
) -> Float[Array, 't h w 3']:
  """Places a video in [-1, 1] on its canvas, and compresses it at random."""
  keys = jax.random.split(key, 2)
  moved = move_video(video, motion)
  low, high = config.jpeg_quality
  quality = jax.random.uniform(keys[0], (), minval=low, maxval=high)
  degraded = degrade_jpeg(moved, quality)
  coin = jax.random.bernoulli(keys[1], config.jpeg_chance)
  return jnp.where(coin, degraded, moved)


def move_video(
    video: Float[Array, 't h w 3'], motion: Motion
) -> Float[Array, 't h w 3']:
  """Scales every frame down and places it on a black canvas."""
  num_frames, height, width = video.shape[:3]
  scales, corners = _place(motion, num_frames, (height, width))

  def move(
      frame: Float[Array, 'h w 3'],
      scale: Float[Array, '2'],
      corner: Float[Array, '2'],
  ) -> Float[Array, 'h w 3']:
    return jax.image.scale_and_translate(
        frame, frame.shape, (0, 1), scale[::-1], corner[::-1], 'linear'
    )

  # Zero outside of the frame means black, which is -1 in the video.
  return jax.vmap(move)(video + 1, scales, corners) - 1


def degrade_jpeg(
    video: Float[Array, 't h w 3'], quality: Float[Array, '']
) -> Float[Array, 't h w 3']:
  """Simulates JPEG quantization, with a quality of 1 to 100.

  Chroma is not subsampled. Pixels at the lower and right borders that fill no
  block of 8x8 are unchanged.
  """
  num_frames, height, width = video.shape[:3]
  rows, columns = height // _BLOCK, width // _BLOCK
  inner = video[:, : rows * _BLOCK, : columns * _BLOCK]
  colors = jnp.einsum('thwc,dc->thwd', inner, jnp.asarray(_TO_YCC))
  blocks = colors.reshape(num_frames, rows, _BLOCK, columns, _BLOCK, 3)
  cosines = jnp.asarray(_make_cosines())
  spectrum = jnp.einsum(
      'tryclk,uy,vl->trcuvk', blocks * 127.5, cosines, cosines
  )
  factor = jnp.where(quality < 50, 50 / quality, 2 - quality / 50)
  tables = np.stack([_STEPS, _COLOR_STEPS, _COLOR_STEPS], axis=-1)
  steps = jnp.maximum(jnp.round(tables * factor), 1)[None, None, None]
  rounded = jnp.round(spectrum / steps) * steps / 127.5
  blocks = jnp.einsum('trcuvk,uy,vl->tryclk', rounded, cosines, cosines)
  colors = blocks.reshape(inner.shape)
  degraded = jnp.einsum('thwc,dc->thwd', colors, jnp.asarray(_FROM_YCC))
  degraded = jnp.clip(degraded, -1, 1)
  return video.at[:, : rows * _BLOCK, : columns * _BLOCK].set(degraded)


def _make_cosines() -> np.ndarray:
  """Returns the matrix of the orthonormal cosine transform of 8 values."""
  frequency, place = np.mgrid[:_BLOCK, :_BLOCK]
  waves = np.cos(np.pi * (2 * place + 1) * frequency / (2 * _BLOCK))
  waves *= np.sqrt(2 / _BLOCK)
  waves[0] /= np.sqrt(2)
  return waves.astype(np.float32)
