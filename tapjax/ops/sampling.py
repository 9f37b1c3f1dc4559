"""Interpolated sampling of grids.

Points are in cells with (0, 0) at the outer corner of the first cell, so cell
centers sit at halves.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int


def read_at_time(
    grids: Float[Array, 't h w c'],
    points_tyx: Float[Array, 'n 3'],
) -> Float[Array, 'n c']:
  """Samples `grids` trilinearly at (t, y, x), with the border value outside.

  Time counts frames: 0 is the first frame and 0.5 halfway to the second, so
  that `read_at_time(grids, [[0, 0.5, 0.5]])` is `grids[0, 0, 0]`. The cells of
  the taps are clipped to the border; the weights are those of the given point.
  """
  size = jnp.asarray(grids.shape[:3])[None]
  offset = jnp.asarray([0.0, 0.5, 0.5], points_tyx.dtype)[None]
  corner = points_tyx - offset
  base = jnp.floor(corner)
  fraction = corner - base
  base = base.astype(jnp.int32)

  total = jnp.zeros((points_tyx.shape[0], grids.shape[-1]), grids.dtype)
  for step_t in (0, 1):
    for step_y in (0, 1):
      for step_x in (0, 1):
        step = jnp.asarray([[step_t, step_y, step_x]])
        t, y, x = jnp.clip(base + step, 0, size - 1).T
        weights = jnp.where(step == 1, fraction, 1 - fraction)
        total += grids[t, y, x] * jnp.prod(weights, axis=-1, keepdims=True)
  return total


def read_in_frames(
    grids: Float[Array, 't h w c'],
    frames: Int[Array, 'n'],
    points_yx: Float[Array, 'n 2'],
) -> Float[Array, 'n c']:
  """Samples one grid for each point bilinearly, with the border value outside.

  `frames` are indices of grids, clipped to those that exist.
  """
  size = jnp.asarray(grids.shape[1:3])[None]
  frames = jnp.clip(frames, 0, grids.shape[0] - 1)
  # Values beyond the border are constant; clipping avoids integer overflow.
  corner = jnp.clip(points_yx - 0.5, -1.0, size.astype(points_yx.dtype))
  base = jnp.floor(corner)
  fraction = corner - base
  base = base.astype(jnp.int32)

  total = jnp.zeros((points_yx.shape[0], grids.shape[-1]), grids.dtype)
  for step_y in (0, 1):
    for step_x in (0, 1):
      step = jnp.asarray([[step_y, step_x]])
      y, x = jnp.clip(base + step, 0, size - 1).T
      weights = jnp.where(step == 1, fraction, 1 - fraction)
      total += grids[frames, y, x] * jnp.prod(weights, axis=-1, keepdims=True)
  return total


def read_neighborhoods_at_time(
    grids: Float[Array, 't h w c'],
    points_tyx: Float[Array, 'n 3'],
    radius: int,
) -> Float[Array, 'n p p c']:
  """Samples `grids` at all cell offsets of at most `radius` around each point.

  Entry `[n, i, j]` is `read_at_time` at the n-th point moved by
  `(0, i - radius, j - radius)`. Each whole cell is read once.
  """
  time, fraction = _split_coordinates(points_tyx[:, 0])

  def read_cells(rows: Array, columns: Array) -> Array:
    now, following = (
        grids[
            jnp.clip(time + step, 0, len(grids) - 1)[:, None, None],
            rows,
            columns,
        ]
        for step in (0, 1)
    )
    return _blend(now, following, fraction[:, None, None, None])

  return _blend_cells(
      read_cells, grids.shape[1:3], points_tyx[:, 1:] - 0.5, radius
  )


def read_neighborhoods(
    grid: Float[Array, 'h w c'], points_yx: Float[Array, 'n 2'], radius: int
) -> Float[Array, 'n p p c']:
  """Samples one grid at all cell offsets, as `read_neighborhoods_at_time`."""
  # Values beyond the border are constant; clipping avoids integer overflow.
  limit = jnp.asarray([grid.shape[:2]], points_yx.dtype) + radius
  corner = jnp.clip(points_yx - 0.5, -radius - 1.0, limit)
  return _blend_cells(
      lambda rows, columns: grid[rows, columns], grid.shape[:2], corner, radius
  )


def _blend_cells(
    read_cells: Callable[[Array, Array], Array],
    size: tuple[int, ...],
    corners_yx: Float[Array, 'n 2'],
    radius: int,
) -> Float[Array, 'n p p c']:
  """Interpolates neighborhoods between cells, reading each cell once."""
  base, fraction = _split_coordinates(corners_yx)
  offsets = jnp.arange(-radius, radius + 2)[None]
  rows = jnp.clip(base[:, :1] + offsets, 0, size[0] - 1)
  columns = jnp.clip(base[:, 1:] + offsets, 0, size[1] - 1)
  patch = read_cells(rows[:, :, None], columns[:, None])
  row, column = fraction.T[:, :, None, None, None]
  patch = _blend(patch[:, :-1], patch[:, 1:], row)
  return _blend(patch[:, :, :-1], patch[:, :, 1:], column)


def _split_coordinates(
    coordinates: Float[Array, 'n *d'],
) -> tuple[Int[Array, 'n *d'], Float[Array, 'n *d']]:
  """Returns the integer and the fractional part of each coordinate."""
  base = jnp.floor(coordinates)
  return base.astype(jnp.int32), coordinates - base


def _blend(first: Array, second: Array, fraction: Array) -> Array:
  return first * (1 - fraction) + second * fraction
