"""Inputs of PIPs++'s update network: correlations and motion of tracks.

The network counts pixel centers as integers, tapjax has raster coordinates:
they differ by half a pixel, in whole frames as in cells of any size.
"""

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.models.pips_plus_plus.config import STRIDE
from tapjax.ops.correlation import correlate_patches_in_frames
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_in_frames

_HALF_PIXEL = 0.5

# Features of frames at stride 8 and then 16, 32, ...
Pyramid = tuple[Float[Array, 't _ _ c'], ...]
# (x, y) in cells of the finest grid, with the first center at (0, 0).
Cells = Float[Array, '*n 2']


def correlate_tracks(
    pyramid: Pyramid,
    frames: Int[Array, 'n w'],
    positions: Float[Array, 'n w 2'],
    vectors: Float[Array, 'n w k c'],
    radius: int,
    platform: str,
) -> Float[Array, 'n w p']:
  """Correlates vectors of tracks with the grids around their positions.

  Args:
    pyramid: features of frames.
    frames: of the positions, as indices of the grids.
    positions: in cells.
    vectors: `k` of every track on every frame, of which each gets a patch on
      every level in turn.
    radius: of a patch.
    platform: see `map_frames`.
  """
  return map_frames(
      functools.partial(_correlate_frame, pyramid, radius=radius),
      frames.swapaxes(0, 1),
      positions.swapaxes(0, 1),
      vectors.swapaxes(0, 1),
      platform=platform,
  ).swapaxes(0, 1)


def _correlate_frame(
    pyramid: Pyramid,
    frames: Int[Array, 'n'],
    positions: Float[Array, 'n 2'],
    vectors: Float[Array, 'n k c'],
    radius: int,
) -> Float[Array, 'n p']:
  """Returns the correlations of every track on one frame of its window."""
  patches = []
  for level, grids in enumerate(pyramid):
    points_yx = jnp.flip(positions / 2**level + _HALF_PIXEL, axis=-1)
    scores = correlate_patches_in_frames(
        grids, frames, points_yx, vectors, radius
    )
    # PARITY: columns before rows (test_pips_plus_plus_parity).
    patches.append(scores.swapaxes(2, 3).reshape(*scores.shape[:2], -1))
  scores = jnp.concatenate(patches, axis=-1) / math.sqrt(vectors.shape[-1])
  return scores.reshape(scores.shape[0], -1)


def embed_motion(
    motion: Float[Array, 'n t 2'], frequencies: int
) -> Float[Array, 'n t c']:
  """Returns sines and cosines of each coordinate, then the motion itself."""
  exponents = np.arange(frequencies) / (frequencies - 1)
  omega = (10000.0**-exponents).astype(np.float32)
  angles = motion[..., None] * omega[None, None, None]
  waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-2)
  waves = waves.reshape(*motion.shape[:-1], -1)
  return jnp.concatenate([waves, motion], axis=-1)


def read_features(
    grids: Float[Array, 't h w c'],
    frames: Int[Array, 'n'],
    positions: Float[Array, 'n 2'],
) -> Float[Array, 'n c']:
  """Reads features at positions in cells."""
  return read_in_frames(
      grids, frames, jnp.flip(positions + _HALF_PIXEL, axis=-1)
  )


def pixels_to_cells(positions: Cells) -> Cells:
  """Moves raster pixels to cells whose first center is at (0, 0)."""
  return (positions - _HALF_PIXEL) / STRIDE


def cells_to_pixels(cells: Cells) -> Cells:
  """Undoes `pixels_to_cells`."""
  return cells * STRIDE + _HALF_PIXEL


def get_query_cells(query_points: Float[Array, '*b 3']) -> Cells:
  """Returns the positions of query points (t, y, x) in cells."""
  return pixels_to_cells(jnp.flip(query_points[..., 1:], axis=-1))
