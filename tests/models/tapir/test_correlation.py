"""Correlation of tracks with grids of several sizes."""

import jax.numpy as jnp
import numpy as np

from tapjax.models.tapir.correlation import correlate_tracks
from tapjax.models.tapir.correlation import FeatureGrids
from tapjax.models.tapir.network import halve


def test_pooled_grids_of_odd_size():
  """An odd last row is dropped, and positions follow what is left."""
  # Each cell of the coarse grid holds its row, pooled cells the mean of two.
  rows = jnp.broadcast_to(jnp.arange(37.0)[:, None, None], (37, 37, 1))
  pooled = halve(rows[None])
  assert pooled.shape == (1, 18, 18, 1)
  np.testing.assert_allclose(pooled[0, :, 0, 0], np.arange(18) * 2 + 0.5)

  y = 100.0
  correlations = correlate_tracks(
      FeatureGrids(jnp.zeros((1, 74, 74, 1)), rows[None], (pooled,)),
      positions=jnp.full((1, 1, 2), y),
      features=jnp.ones((1, 1, 2)),
      initial=(256, 256),
      radius=0,
      platform='cpu',
  )
  correlation = np.concatenate(correlations, axis=-1)
  pooled_y = y * 18 / 256 - 0.5
  expected = [0, y * 37 / 256 - 0.5, 2 * pooled_y + 0.5]
  np.testing.assert_allclose(correlation[0, 0], expected, rtol=1e-5)
