"""Shapes of TAPIR's network."""

import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models.haiku import make_network
from tapjax.models.tapir.config import TAPIR
from tapjax.models.tapir.network import halve
from tapjax.models.tapir.network import make_small_frame
from tapjax.models.tapir.network import Tapir


def test_grids_have_strides_of_powers_of_two():
  network = make_network(
      lambda: Tapir(TAPIR, 'cpu'),
      ('encode_frame',),
      lambda: (make_small_frame(TAPIR),),
  )
  params = jax.eval_shape(network.init, jax.random.key(0))
  frame = jax.ShapeDtypeStruct((64, 96, 3), np.float32)
  grids = jax.eval_shape(
      lambda params, frame: network.apply('encode_frame', params, frame),
      params,
      frame,
  )
  fine, coarse = TAPIR.feature_channels
  assert grids.fine.shape == (16, 24, fine)
  assert grids.coarse.shape == (8, 12, coarse)
  assert len(grids.pooled) == TAPIR.pooled_levels
  for level, grid in enumerate(grids.pooled):
    assert grid.shape == (8 >> level + 1, 12 >> level + 1, coarse)


def test_odd_rows_and_columns_are_dropped():
  grid = np.arange(30, dtype=np.float32).reshape(1, 5, 6, 1)[:, :, :5]
  expected = [
      [grid[0, i : i + 2, j : j + 2].mean() for j in (0, 2)] for i in (0, 2)
  ]
  np.testing.assert_allclose(halve(jnp.asarray(grid))[0, ..., 0], expected)
