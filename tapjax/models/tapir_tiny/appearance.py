"""Appearance of tracks: templates from earlier frames, and query patches.

A query is joined by a template of the track, a running mean r of features at
the refined positions p_t, each weighed by the probability that the position
shows the point,

  q_t = unit(q + template_weight * r_(t-1))
  r_t = r_(t-1) + template_rate * shown_t * (features_t at p_t - r_(t-1))

so that a point that turns, or grows, is known by its latest appearance; with a
`lone_template_weight`, by the template without the query as well:

  heatmap_t = softmax(temperature * conv(max(q_t . features_t,
      lone_template_weight * unit(r_(t-1)) . features_t)))
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import Resolution
from tapjax.models.tapir.correlation import correlate_around
from tapjax.nn.normalization import normalize_vectors
from tapjax.ops.correlation import correlate_neighborhoods
from tapjax.ops.sampling import read_in_frames
from tapjax.ops.sampling import read_neighborhoods

# Contrast of a patch of the stem without any, so that noise does not fill it.
_LEAST_CONTRAST = 0.02


class FeatureGrids(NamedTuple):
  """Features of TAPIR at one resolution, and of the stem at stride 2.

  The stem is None where no patch of it is compared.
  """

  fine: Float[Array, '*bt h4 w4 c4']
  coarse: Float[Array, '*bt h8 w8 c8']
  pooled: tuple[Float[Array, '*bt _ _ c8'], ...]
  stem: Float[Array, '*bt h2 w2 c2'] | None


class QueryVectors(NamedTuple):
  """Features at the query points, at one resolution, and of patches there.

  Patches are cells of the fine grid and of the stem around the query; all
  together have unit length. None where they are not compared. Session files and
  exported programs name their arrays after these fields.
  """

  fine: Float[Array, '*b n c4']
  coarse: Float[Array, '*b n c8']
  supports: Float[Array, '*b n q c4'] | None
  stem_supports: Float[Array, '*b n q c2'] | None


def join_template(
    vectors: Float[Array, 'n c'], templates: Float[Array, 'n c'], weight: float
) -> Float[Array, 'n c']:
  """Returns the vector to search for: the query joined by its template."""
  return normalize_vectors(vectors + weight * templates)


def pick_templates(
    vectors: Float[Array, 'n c'], templates: Float[Array, 'n c'], weight: float
) -> Float[Array, 'n c']:
  """Appearance templates; the query vector where a track was never visible."""
  was_seen = jnp.any(templates != 0, axis=-1, keepdims=True)
  return jnp.where(was_seen, weight * normalize_vectors(templates), vectors)


def update_templates(
    templates: Float[Array, 'n c'],
    grid: Float[Array, 'h w c'],
    points_yx: Float[Array, 'n 2'],
    share: Float[Array, 'n'],
) -> Float[Array, 'n c']:
  """Moves templates towards the features of a frame at points, in cells."""
  frames = jnp.zeros(points_yx.shape[:1], jnp.int32)
  appearance = read_in_frames(grid[None], frames, points_yx)
  return templates + share[:, None] * (appearance - templates)


def correlate_query_patches(
    grids: FeatureGrids,
    vectors: QueryVectors,
    positions: Float[Array, 'n t 2'],
    initial: Resolution,
    radius: int,
    platform: str,
) -> list[Float[Array, 'n t _']]:
  """Correlates the patch around each query with the patch around a position.

  Args:
    grids: of all frames, at one resolution.
    vectors: of the queries.
    positions: (x, y) in pixels of `initial`.
    initial: resolution in which positions count.
    radius: of the patch around a position, in cells.
    platform: see `map_frames`.
  """
  correlate = functools.partial(
      correlate_around,
      positions=positions,
      initial=initial,
      radius=radius,
      platform=platform,
  )
  correlations = []
  if (query_patch := vectors.supports) is not None:
    fine = functools.partial(_correlate_patch, patch=query_patch)
    correlations.append(correlate(fine, grids.fine))
  if (stem_patch := vectors.stem_supports) is not None:
    assert grids.stem is not None, 'patches of the stem are compared'
    stem = functools.partial(_correlate_contrasts, patch=stem_patch)
    correlations.append(correlate(stem, grids.stem))
  return correlations


def _correlate_patch(
    grid: Float[Array, 'h w c'],
    points_yx: Float[Array, 'n 2'],
    patch: Float[Array, 'n q c'],
    radius: int,
) -> Float[Array, 'n p']:
  """Dots the vectors of a patch with features at offsets around a point."""
  scores = correlate_neighborhoods(grid, points_yx, patch, radius)
  return jax.lax.collapse(scores, 1)


def _correlate_contrasts(
    grid: Float[Array, 'h w c'],
    points_yx: Float[Array, 'n 2'],
    patch: Float[Array, 'n q c'],
    radius: int,
) -> Float[Array, 'n p']:
  """Dots the vectors of a patch with contrasts at offsets around a point."""
  cells = read_neighborhoods(grid, points_yx, radius)
  contrasts = compute_contrasts(jax.lax.collapse(cells, 1, 3))
  scores = jnp.einsum('nqc,npc->nqp', patch, contrasts)
  return jax.lax.collapse(scores, 1)


def compute_contrasts(
    cells: Float[Array, '*n p c'],
) -> Float[Array, '*n p c']:
  """Returns contrasts to the mean of a patch, of about unit length each."""
  contrasts = cells - jnp.mean(cells, axis=-2, keepdims=True)
  squared = jnp.sum(jnp.square(contrasts), axis=-1, keepdims=True)
  variance = jnp.mean(squared, axis=-2, keepdims=True)
  return contrasts * jax.lax.rsqrt(variance + _LEAST_CONTRAST)
