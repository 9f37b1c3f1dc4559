"""The motion prior."""

import jax.numpy as jnp
import numpy as np

from tapjax.models.tapir_tiny.motion import compute_motion_prior
from tapjax.models.tapir_tiny.motion import MotionState


def test_cells_lose_by_their_distance_from_where_a_track_was_going():
  motion = MotionState(
      templates=jnp.zeros((2, 8)),
      # Going to the middle of a cell, that at row 2 and column 3.
      positions=jnp.asarray([[27.0, 20], [27, 20]]),
      velocities=jnp.asarray([[1.0, 0], [1, 0]]),
      shown=jnp.asarray([0.5, 0.0]),
  )
  prior = compute_motion_prior(motion, (64, 64), (8, 8), weight=6.0, reach=2.0)
  assert prior[0, 2, 3] == 0
  # Two cells away it is half of 6 times 0.5, and far away nearly all of it.
  np.testing.assert_allclose(prior[0, 2, [1, 5]], -1.5, rtol=1e-5)
  np.testing.assert_allclose(prior[0, [0, 4], 3], -1.5, rtol=1e-5)
  assert -3 < prior[0, 7, 7] < -2.7
  np.testing.assert_array_equal(prior[1], 0)
