"""Correlation of tracks with the features around them."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.models.multires import Refinement
from tapjax.ops.correlation import correlate_patches
from tapjax.ops.loops import map_frames


class FeatureGrids(NamedTuple):
  """Features at one resolution, at strides 4, 8 and then 16, 32, ..."""

  fine: Float[Array, '*bt h4 w4 c4']
  coarse: Float[Array, '*bt h8 w8 c8']
  pooled: tuple[Float[Array, '*bt _ _ c8'], ...]


class QueryVectors(NamedTuple):
  """Features at the query points, at one resolution."""

  fine: Float[Array, '*b n c4']
  coarse: Float[Array, '*b n c8']


# The records above, or those of a tracker with more fields.
Grids = Any
Vectors = Any


def correlate_tracks(
    grids: Grids,
    positions: Float[Array, 'n t 2'],
    features: Float[Array, 'n t c'],
    initial: Resolution,
    radius: int,
    platform: str,
) -> list[Float[Array, 'n t p']]:
  """Correlates the features of each track with the grids around it.

  Args:
    grids: of all frames, at one resolution.
    positions: (x, y) in pixels of `initial`.
    features: of the track on every frame, fine ones before coarse ones.
    initial: resolution in which positions count.
    radius: of a patch, in cells of each grid.
    platform: see `map_frames`.

  Returns:
    Patches of the fine, the coarse and each pooled grid.
  """
  fine, coarse = jnp.split(features, [grids.fine.shape[-1]], axis=-1)
  correlate = functools.partial(
      correlate_around,
      correlate_patches,
      positions=positions,
      initial=initial,
      radius=radius,
      platform=platform,
  )
  return [
      correlate(grids.fine, fine),
      *(correlate(grid, coarse) for grid in (grids.coarse, *grids.pooled)),
  ]


def correlate_around(
    correlate_frame: Callable[..., Float[Array, 'n p']],
    grids: Float[Array, 't h w c'],
    *vectors: Float[Array, 'n t c'],
    positions: Float[Array, 'n t 2'],
    initial: Resolution,
    radius: int,
    platform: str,
) -> Float[Array, 'n t p']:
  """Applies a correlation to the frames of a grid, around each position.

  Args:
    correlate_frame: from a grid `[h, w, c]`, points (y, x) in its cells,
      vectors `[n, c]` and the keyword `radius` to a patch for each point.
    grids: of all frames.
    *vectors: of the track on every frame.
    positions: (x, y) in pixels of `initial`.
    initial: resolution in which positions count.
    radius: of a patch, in cells.
    platform: see `map_frames`.
  """
  points = rescale_positions(positions, initial, grids.shape[1:3])
  patches = map_frames(
      functools.partial(correlate_frame, radius=radius),
      grids,
      jnp.flip(points, axis=-1).swapaxes(0, 1),
      *(array.swapaxes(0, 1) for array in vectors),
      platform=platform,
  )
  return patches.swapaxes(0, 1)


def join_inputs(
    places: Float[Array, 'n t 2'],
    now: Refinement,
    correlations: list[Float[Array, 'n t _']],
) -> Float[Array, 'n t c']:
  """Joins the inputs of the mixer: places, logits, features, correlations.

  PARITY: published networks see zeros in place of positions
  (test_tapir_parity).
  """
  assert now.features is not None, 'TAPIR refines the features of tracks'
  logits = jnp.stack([now.occlusion_logits, now.uncertainty_logits], axis=-1)
  return jnp.concatenate(
      [places, logits, now.features, jnp.concatenate(correlations, axis=-1)],
      axis=-1,
  )


def count_cells(radius: int) -> int:
  """Returns the number of cells of a patch."""
  return (2 * radius + 1) ** 2
