"""Positions and maxima of heatmaps over cells."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


def soft_argmax(
    logits: Float[Array, 'n h w'],
    radius: float,
) -> Float[Array, 'n 2']:
  """Returns the mean (x, y) near the largest cell, in cells.

  Only cells with a center closer than `radius` to the center of the largest
  cell (the first in row-major order among equals) count, weighted by the
  softmax of `logits`; only their logits are exponentiated.
  """
  num, height, width = logits.shape
  # An argmax of all cells takes a CPU several times as long.
  row = jnp.argmax(jnp.max(logits, axis=2), axis=1)
  column = jnp.argmax(logits[jnp.arange(num), row], axis=1)
  reach = math.ceil(radius) - 1
  offsets = jnp.arange(-reach, reach + 1)
  rows = row[:, None] + offsets[None]
  columns = column[:, None] + offsets[None]
  near = logits[
      jnp.arange(num)[:, None, None],
      jnp.clip(rows, 0, height - 1)[:, :, None],
      jnp.clip(columns, 0, width - 1)[:, None],
  ]
  counts = (jnp.square(offsets)[:, None] + jnp.square(offsets)[None])[
      None
  ] < radius**2
  counts &= ((rows >= 0) & (rows < height))[:, :, None]
  counts &= ((columns >= 0) & (columns < width))[:, None]
  # The peak cancels in the mean, and so does its gradient.
  peak = jax.lax.stop_gradient(jnp.max(near, axis=(1, 2), keepdims=True))
  weights = jnp.where(counts, jnp.exp(near - peak), 0)
  total = jnp.sum(weights, axis=(1, 2))
  mean_x = jnp.sum(weights * (columns + 0.5)[:, None], axis=(1, 2)) / total
  mean_y = jnp.sum(weights * (rows + 0.5)[:, :, None], axis=(1, 2)) / total
  return jnp.stack([mean_x, mean_y], axis=-1)


@jax.custom_jvp
def find_largest(costs: Float[Array, 'n h w']) -> Float[Array, 'n']:
  """Returns the largest value of each map.

  The gradient is divided among values equal to the largest, as in `jnp.max`.
  Compilers may compute values twice with different rounding, so that no value
  equals the largest: the gradient of `jnp.max` is then NaN, and here zero.
  """
  return jnp.max(costs, axis=(1, 2))


@find_largest.defjvp
def _find_largest_jvp(
    primals: tuple[Float[Array, 'n h w']],
    tangents: tuple[Float[Array, 'n h w']],
) -> tuple[Float[Array, 'n'], Float[Array, 'n']]:
  (costs,), (changes,) = primals, tangents
  largest = find_largest(costs)
  equal = (costs == largest[:, None, None]).astype(costs.dtype)
  count = jnp.maximum(jnp.sum(equal, axis=(1, 2), keepdims=True), 1)
  return largest, jnp.sum(changes * (equal / count), axis=(1, 2))
