"""Sampling of feature pyramids at free positions, for deformable attention.

Zhu et al., "Deformable DETR", arXiv 2010.04159. Every cell of every level is a
token: levels in order, and each level row by row. A position is (x, y) in
normalized coordinates: (0, 0) is the outer corner of the first cell of every
level and (1, 1) the outer corner of the last cell, so that cell centers sit at
halves of a cell. Interpolation is bilinear, with zeros outside of a level.

The functions are gathers and products, differentiable and portable.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.geometry import Resolution
from tapjax.ops.loops import add_all


class Samples(NamedTuple):
  """Sampled values, and the interpolation weight inside of the level.

  `inside` is 1 except for positions less than half a cell from the border, or
  beyond it. A linear layer before the sampling equals a linear layer after it
  whose bias is multiplied by `inside`.
  """

  values: Float[Array, 'n k l p c']
  inside: Float[Array, 'n k l p']


def count_tokens(sizes: Sequence[Resolution]) -> int:
  """Returns the number of cells of all levels, each (height, width)."""
  return sum(height * width for height, width in sizes)


def read_samples(
    tokens: Float[Array, 's c'],
    sizes: Sequence[Resolution],
    points: Float[Array, 'n k l p 2'],
    first_tokens: Int[Array, 'n'],
) -> Samples:
  """Samples all channels of a pyramid at every point.

  Args:
    tokens: of one pyramid, or of several, concatenated.
    sizes: (height, width) of each level.
    points: (x, y) in normalized coordinates, `p` points in each of `l` levels.
    first_tokens: index of the first token of the pyramid of each row.
  """
  starts = first_tokens[:, None, None]
  values, inside = [], []
  for i, (first, size) in enumerate(_list_levels(sizes)):
    taps = list(_list_taps(size, points[:, :, i]))
    values.append(
        add_all(
            tokens[starts + first + tap.cells] * tap.weights[..., None]
            for tap in taps
        )
    )
    inside.append(add_all(tap.weights for tap in taps))
  return Samples(jnp.stack(values, axis=2), jnp.stack(inside, axis=2))


def sum_samples(
    tokens: Float[Array, 's k c'],
    sizes: Sequence[Resolution],
    points: Float[Array, 'n k l p 2'],
    weights: Float[Array, 'n k l p'],
) -> Float[Array, 'n k c']:
  """Returns the weighted sum of samples of each head, in its own channels.

  One sample of each head is in memory at a time; gradients recompute samples.

  Args:
    tokens: of one pyramid, with an axis of `k` heads before the channels.
    sizes: (height, width) of each level.
    points: (x, y) in normalized coordinates, `p` points in each of `l` levels.
    weights: attention weight of each point.
  """
  total = jnp.zeros((points.shape[0], *tokens.shape[1:]), tokens.dtype)
  for i, (first, size) in enumerate(_list_levels(sizes)):
    total = _add_level(
        total,
        tokens[first : first + count_tokens([size])],
        size,
        points[:, :, i],
        weights[:, :, i],
    )
  return total


def _add_level(
    total: Float[Array, 'n k c'],
    tokens: Float[Array, 's k c'],
    size: Resolution,
    points: Float[Array, 'n k p 2'],
    weights: Float[Array, 'n k p'],
) -> Float[Array, 'n k c']:
  """Adds weighted samples of one level, one point of each head at a time."""
  heads = jnp.arange(tokens.shape[1])[None]

  @jax.checkpoint
  def add(
      total: Float[Array, 'n k c'],
      sample: tuple[Float[Array, 'n k 2'], Float[Array, 'n k']],
  ) -> tuple[Float[Array, 'n k c'], None]:
    points, weights = sample
    for tap in _list_taps(size, points):
      weight = (tap.weights * weights)[..., None]
      total += tokens[tap.cells, heads] * weight
    return total, None

  samples = jnp.moveaxis(points, 2, 0), jnp.moveaxis(weights, 2, 0)
  total, _ = jax.lax.scan(add, total, samples)
  return total


class _Tap(NamedTuple):
  """One of the four cells around every position, and its bilinear weight."""

  cells: Int[Array, '*n']
  weights: Float[Array, '*n']


def _list_levels(
    sizes: Sequence[Resolution],
) -> Iterator[tuple[int, Resolution]]:
  """Yields the index of the first token of each level, and the level's size."""
  first = 0
  for size in sizes:
    yield first, size
    first += count_tokens([size])


def _list_taps(
    size: Resolution, points: Float[Array, '*n 2']
) -> Iterator[_Tap]:
  """Yields the four taps of each position; cells count from the level's first.

  Positions are clipped to a range beyond which all weights are zero, so that a
  diverging position cannot overflow an integer.
  """
  height, width = size
  leading = (1,) * (points.ndim - 1)
  size_xy = np.asarray([width, height], np.float32).reshape(*leading, 2)
  corner = jnp.clip(points * size_xy - 0.5, -2.0, size_xy + 1.0)
  base = jnp.floor(corner)
  fraction = corner - base
  base = base.astype(jnp.int32)
  for step_y in (0, 1):
    for step_x in (0, 1):
      x = base[..., 0] + step_x
      y = base[..., 1] + step_y
      inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
      weight_x = fraction[..., 0] if step_x else 1 - fraction[..., 0]
      weight_y = fraction[..., 1] if step_y else 1 - fraction[..., 1]
      yield _Tap(
          jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1),
          jnp.where(inside, weight_x * weight_y, 0),
      )
