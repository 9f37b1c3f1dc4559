"""Correlation of query vectors with the neighborhood of a position."""

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.ops.loops import add_all


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
  scores = _dot_cells(grid, vectors, rows, columns)
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


@jax.custom_vjp
def _dot_cells(
    grid: Float[Array, 'h w c'],
    vectors: Float[Array, 'n c'],
    rows: Int[Array, 'n y'],
    columns: Int[Array, 'n x'],
) -> Float[Array, 'n y x']:
  """Dots each vector with the cells in its rows and columns of the grid.

  The gradient with respect to the grid is a matrix product. Adding the vectors
  of patches, which overlap, to the grid one by one takes a CPU longer.
  """
  patches = grid[rows[:, :, None], columns[:, None, :]]
  return jnp.einsum('nyxc,nc->nyx', patches, vectors)


def _dot_cells_forward(
    *arguments: Array,
) -> tuple[Float[Array, 'n y x'], tuple[Array, ...]]:
  return _dot_cells(*arguments), arguments


def _dot_cells_backward(
    arguments: tuple[Array, ...], cotangent: Float[Array, 'n y x']
) -> tuple[Array | None, ...]:
  grid, vectors, rows, columns = arguments
  num = vectors.shape[0]
  cells = rows[:, :, None], columns[:, None, :]
  by_vectors = jnp.einsum('nyx,nyxc->nc', cotangent, grid[cells])
  scores = jnp.zeros((num, *grid.shape[:2]), cotangent.dtype)
  scores = scores.at[jnp.arange(num)[:, None, None], *cells].add(cotangent)
  by_grid = jnp.einsum('nhw,nc->hwc', scores, vectors)
  return by_grid, by_vectors, None, None


_dot_cells.defvjp(_dot_cells_forward, _dot_cells_backward)


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
) -> Float[Array, 'n q p p']:
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
  # The vectors lead: a CPU is fast where the last axis is a multiple of 16.
  num, side = rows.shape
  scores = jnp.einsum(
      'nqc,npc->nqp', supports, patches.reshape(num, side**2, -1)
  )
  row_weights = _weigh_cells(row_inside, row_fraction)
  column_weights = _weigh_cells(column_inside, column_fraction)
  # A step down is one of `side` places. What the last row and column read in
  # the next ones, or behind the end, has no weight.
  padded = jnp.pad(scores, ((0, 0), (0, 0), (0, side + 1)))
  scores = add_all(
      padded[:, :, down * side + right : down * side + right + side**2]
      * (
          row_weights[down][:, :, None] * column_weights[right][:, None]
      ).reshape(num, 1, side**2)
      for down in (0, 1)
      for right in (0, 1)
  )
  # What has weight is picked by a product: a CPU would read the slice, which is
  # no array of its own, wherever it goes, and interpolate as many times.
  picked = np.pad(np.eye(side - 1, dtype=np.float32), ((0, 1), (0, 0)))
  scores = jnp.matmul(
      scores.reshape(-1, side**2), np.kron(picked, picked), precision='highest'
  )
  return scores.reshape(num, -1, side - 1, side - 1)


def _weigh_cells(
    inside: Bool[Array, 'n cells'], fraction: Float[Array, 'n']
) -> tuple[Float[Array, 'n cells'], ...]:
  """Returns weights of the cell before and of the one after each offset.

  Cells outside have none, nor has the offset after the last one.
  """
  fraction = fraction[:, None]
  before = jnp.where(inside[:, :-1], 1 - fraction, 0)
  after = jnp.where(inside[:, 1:], fraction, 0)
  return tuple(jnp.pad(x, ((0, 0), (0, 1))) for x in (before, after))
