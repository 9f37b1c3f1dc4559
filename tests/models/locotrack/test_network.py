"""Costs and initial frame of LocoTrack's network."""

import jax.numpy as jnp
import numpy as np

from tapjax.models.locotrack.network import compute_costs
from tapjax.models.locotrack.network import make_small_frame


def test_costs_are_products_with_every_cell():
  generator = np.random.default_rng(0)
  grid = generator.normal(size=(3, 4, 5)).astype(np.float32)
  vectors = generator.normal(size=(2, 5)).astype(np.float32)
  costs = compute_costs(jnp.asarray(grid), jnp.asarray(vectors))
  assert costs.shape == (2, 3, 4)
  for n, i, j in np.ndindex(costs.shape):
    np.testing.assert_allclose(
        costs[n, i, j], vectors[n] @ grid[i, j], rtol=1e-5
    )


def test_the_initial_frame_is_square_and_black():
  frame = make_small_frame()
  assert frame.shape[0] == frame.shape[1]
  # A cell or more is left at stride 32, that of the deepest trunk.
  assert frame.shape[0] % 32 == 0
  assert not frame.any()
