"""Normalized coordinates of TAPTRv2, from 0 to 1."""

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from tapjax import geometry
from tapjax.models.taptr.config import TaptrConfig


def pixels_to_normalized(
    positions: Float[Array, '*n 2'], config: TaptrConfig
) -> Float[Array, '*n 2']:
  """Returns raster (x, y) in the network's coordinates, about 0 to 1."""
  if config.ends == 'edges':
    return geometry.pixels_to_normalized(positions, config.resolution)
  return (positions - 0.5) / (config.resolution[0] - 1)


def normalized_to_pixels(
    normalized: Float[Array, '*n 2'], config: TaptrConfig
) -> Float[Array, '*n 2']:
  """Undoes `pixels_to_normalized`."""
  if config.ends == 'edges':
    return geometry.normalized_to_pixels(normalized, config.resolution)
  return normalized * (config.resolution[0] - 1) + 0.5


def align_corners(
    normalized: Float[Array, 'n 2'], config: TaptrConfig
) -> Float[Array, 'n k l p 2']:
  """Returns where 0 and 1 are the centers of each level's outermost cells."""
  # PARITY: attention reads the same coordinates as between the frame's edges
  # (test_taptr_parity).
  sizes_xy = np.asarray(config.sizes, np.float32)[None, :, ::-1]
  inside = jnp.clip(normalized, 0.0, 1.0)[:, None]
  aligned = (inside * (sizes_xy - 1) + 0.5) / sizes_xy
  return aligned[:, None, :, None]
