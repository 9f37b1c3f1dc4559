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
  cells around a point are read and correlated, and the resulting scalars are
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

  The gradient with respect to the grid is a matrix product, which is faster on
  a CPU than a scatter of overlapping patches of vectors.
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
  """Correlates k vectors of each point with a patch of the point's own frame.

  As `correlate_patches`, with `frames` as the index of each point's grid. The
  last two axes of the scores are rows and columns of the patch.
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
  """Returns cells to read, a mask of those in the grid, and the fraction.

  Coordinates are clipped to a range beyond which the patch has no cell of the
  grid, so that a diverging position cannot overflow an integer.
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
    query_patch: Float[Array, 'n q c'],
    radius: int,
) -> Float[Array, 'n q p p']:
  """Correlates `q` vectors of each point with the grid around the point.

  As `correlate_patches`, for a patch of `q` vectors of each point; the last two
  axes of the scores are rows and columns of the offsets.
  """
  height, width, _ = grid.shape
  rows, row_inside, row_fraction = _cells_around(
      points_yx[:, 0], height, radius
  )
  columns, column_inside, column_fraction = _cells_around(
      points_yx[:, 1], width, radius
  )
  patches = grid[rows[:, :, None], columns[:, None, :]]
  # Vectors come first: a CPU is fast where the last axis is a multiple of 16.
  num, side = rows.shape
  scores = jnp.einsum(
      'nqc,npc->nqp', query_patch, patches.reshape(num, side**2, -1)
  )
  row_weights = _weigh_cells(row_inside, row_fraction)
  column_weights = _weigh_cells(column_inside, column_fraction)
  # A step down is a shift by `side` entries. Values that the last row and
  # column read from the next ones, or from beyond the end, have zero weight.
  padded = jnp.pad(scores, ((0, 0), (0, 0), (0, side + 1)))
  scores = add_all(
      padded[:, :, down * side + right : down * side + right + side**2]
      * (
          row_weights[down][:, :, None] * column_weights[right][:, None]
      ).reshape(num, 1, side**2)
      for down in (0, 1)
      for right in (0, 1)
  )
  # A product selects the entries with weight: XLA on a CPU would fuse a slice
  # into each of its consumers and repeat the interpolation there.
  picked = np.pad(np.eye(side - 1, dtype=np.float32), ((0, 1), (0, 0)))
  scores = jnp.matmul(
      scores.reshape(-1, side**2), np.kron(picked, picked), precision='highest'
  )
  return scores.reshape(num, -1, side - 1, side - 1)


def _weigh_cells(
    inside: Bool[Array, 'n cells'], fraction: Float[Array, 'n']
) -> tuple[Float[Array, 'n cells'], ...]:
  """Returns weights of the cells before and after each offset.

  Weights of cells outside, and of the entry after the last offset, are zero.
  """
  fraction = fraction[:, None]
  before = jnp.where(inside[:, :-1], 1 - fraction, 0)
  after = jnp.where(inside[:, 1:], fraction, 0)
  return tuple(jnp.pad(x, ((0, 0), (0, 1))) for x in (before, after))
