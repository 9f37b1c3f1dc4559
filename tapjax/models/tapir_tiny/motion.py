"""Motion of tracks: the last frame as a prior for the next one.

The logits of the heatmap fall with the distance d from the position that the
last two frames predict, more if the last one surely showed the point:

  heatmap_t = softmax(... - motion_weight * shown_(t-1) * d^2 / (d^2 + reach^2))
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.models.contract import DimSize


class MotionState(NamedTuple):
  """Tracks on the last frame, and their appearance templates.

  Positions are (x, y) pixels of the video's resolution, velocities pixels per
  frame. `shown` is the probability that the position shows the point; it is 0
  before the query, where nothing is known of the track.
  """

  templates: Float[Array, '*b n c8']
  positions: Float[Array, '*b n 2']
  velocities: Float[Array, '*b n 2']
  shown: Float[Array, '*b n']


def make_motion_state(
    batch: DimSize, num_queries: DimSize, channels: int
) -> MotionState:
  """Returns the zeros before the first frame."""
  shape = batch, num_queries
  return MotionState(
      templates=jnp.zeros((*shape, channels), jnp.float32),
      positions=jnp.zeros((*shape, 2), jnp.float32),
      velocities=jnp.zeros((*shape, 2), jnp.float32),
      shown=jnp.zeros(shape, jnp.float32),
  )


def compute_motion_prior(
    motion: MotionState,
    resolution: Resolution,
    cells: Resolution,
    weight: float,
    reach: float,
) -> Float[Array, 'n h w']:
  """Motion-prior penalty for each heatmap cell, from constant velocity.

  Args:
    motion: tracks on the last frame.
    resolution: of the video.
    cells: (height, width) of the heatmap.
    weight: of the prior, in logits.
    reach: cells after which the penalty is half of the weight.
  """
  expected = rescale_positions(
      motion.positions + motion.velocities, resolution, cells
  )
  y, x = (jnp.arange(side, dtype=jnp.float32)[None] + 0.5 for side in cells)
  squared = (
      jnp.square(y - expected[:, 1:])[:, :, None]
      + jnp.square(x - expected[:, :1])[:, None]
  )
  loss = (weight * motion.shown)[:, None, None]
  return -loss * (squared / (squared + reach**2))
