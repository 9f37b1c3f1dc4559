"""Correlation of query vectors with the neighborhood of a position."""

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int


def correlate_patches(
    grid: Float[Array, 'h w c'],
    points_yx: Float[Array, 'n 2'],
    vectors: Float[Array, 'n c'],
    radius: int,
) -> Float[Array, 'n p']:
  """Dots each vector with the grid at every cell offset around its point.

  Offsets run over `-radius..radius` in both axes, rows first, and points lie
  between cells as in `read_at_time`, except that the grid is zero outside.

  Interpolation and dot product commute, so only the `2 * radius + 2` whole
  cells around a point are read and correlated, and it is those scalars that are
  interpolated.
  """
  height, width, _ = grid.shape
  rows, row_inside, row_fraction = _cells_around(
      points_yx[:, 0], height, radius
  )
  columns, column_inside, column_fraction = _cells_around(
      points_yx[:, 1], width, radius
  )
  patches = grid[rows[:, :, None], columns[:, None, :]]
  scores = jnp.einsum('nyxc,nc->nyx', patches, vectors)
  inside = row_inside[:, :, None] & column_inside[:, None, :]
  scores = jnp.where(inside, scores, 0)

  row_fraction = row_fraction[:, None, None]
  column_fraction = column_fraction[:, None, None]
  scores = scores[:, :-1] * (1 - row_fraction) + scores[:, 1:] * row_fraction
  scores = (
      scores[:, :, :-1] * (1 - column_fraction)
      + scores[:, :, 1:] * column_fraction
  )
  return scores.reshape(scores.shape[0], -1)


def correlate_patches_in_frames(
    grids: Float[Array, 't h w c'],
    frames: Int[Array, 'n'],
    points_yx: Float[Array, 'n 2'],
    vectors: Float[Array, 'n k c'],
    radius: int,
) -> Float[Array, 'n k p p']:
  """As `correlate_patches`, in a grid of each point's own, with k vectors each.

  Scores come as rows and columns of a patch for each vector.
  """
  _, height, width, _ = grids.shape
  rows, row_inside, row_fraction = _cells_around(
      points_yx[:, 0], height, radius
  )
  columns, column_inside, column_fraction = _cells_around(
      points_yx[:, 1], width, radius
  )
  patches = grids[frames[:, None, None], rows[:, :, None], columns[:, None, :]]
  scores = jnp.einsum('nyxc,nkc->nkyx', patches, vectors)
  inside = row_inside[:, :, None] & column_inside[:, None, :]
  scores = jnp.where(inside[:, None], scores, 0)

  fraction = row_fraction[:, None, None, None]
  scores = scores[:, :, :-1] * (1 - fraction) + scores[:, :, 1:] * fraction
  fraction = column_fraction[:, None, None, None]
  return scores[..., :-1] * (1 - fraction) + scores[..., 1:] * fraction


def _cells_around(
    coordinates: Float[Array, 'n'], size: int, radius: int
) -> tuple[Int[Array, 'n p'], Array, Float[Array, 'n']]:
  """Returns the cells to read, which of them exist, and the fraction between.

  Coordinates are limited to where no cell of the patch exists, so that a
  runaway position cannot overflow an integer.
  """
  corner = jnp.clip(coordinates - 0.5, -radius - 2.0, size + radius + 1.0)
  base = jnp.floor(corner)
  cells = (
      base.astype(jnp.int32)[:, None] + jnp.arange(-radius, radius + 2)[None]
  )
  inside = (cells >= 0) & (cells < size)
  return jnp.clip(cells, 0, size - 1), inside, corner - base


def correlate_neighborhoods(
    grid: Float[Array, 'h w c'],
    points_yx: Float[Array, 'n 2'],
    supports: Float[Array, 'n q c'],
    radius: int,
) -> Float[Array, 'n p p q']:
  """Dots several vectors each with the grid at offsets around a point.

  As `correlate_patches`, for `q` vectors of every point.
  """
  height, width, _ = grid.shape
  rows, row_inside, row_fraction = _cells_around(
      points_yx[:, 0], height, radius
  )
  columns, column_inside, column_fraction = _cells_around(
      points_yx[:, 1], width, radius
  )
  patches = grid[rows[:, :, None], columns[:, None, :]]
  size = rows.shape[1]
  scores = jnp.einsum(
      'npc,nqc->npq', patches.reshape(len(rows), size**2, -1), supports
  ).reshape(len(rows), size, size, -1)

  # The weights of cells outside are zero.
  first, second = _weigh_cells(row_inside, row_fraction)
  scores = (
      scores[:, :-1] * first[:, :, None, None]
      + scores[:, 1:] * second[:, :, None, None]
  )
  first, second = _weigh_cells(column_inside, column_fraction)
  return (
      scores[:, :, :-1] * first[:, None, :, None]
      + scores[:, :, 1:] * second[:, None, :, None]
  )


def _weigh_cells(
    inside: Bool[Array, 'n cells'], fraction: Float[Array, 'n']
) -> tuple[Float[Array, 'n p'], Float[Array, 'n p']]:
  """Returns weights of the cell before and of the one after each offset."""
  fraction = fraction[:, None]
  return (
      jnp.where(inside[:, :-1], 1 - fraction, 0),
      jnp.where(inside[:, 1:], fraction, 0),
  )
