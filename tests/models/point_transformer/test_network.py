"""Dropout of the point transformer."""

import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models.point_transformer.network import drop_values


def test_nothing_is_dropped_without_keys_or_rate():
  values = jnp.ones((2, 5))
  keys = jax.random.split(jax.random.key(0), 2)
  assert drop_values(None, 0.5, 0, values) is values
  assert drop_values(keys, 0.0, 0, values) is values


def test_a_share_is_dropped_and_the_mean_kept():
  keys = jax.random.split(jax.random.key(0), 2)
  dropped = np.asarray(drop_values(keys, 0.25, 0, jnp.ones((2, 4000))))
  assert set(np.unique(dropped).round(4)) == {0, np.float32(1.3333)}
  np.testing.assert_allclose(dropped.mean(axis=1), 1, atol=0.05)
  # Clips, and the places where values are dropped, have their own draws.
  assert np.any(dropped[0] != dropped[1])
  other = np.asarray(drop_values(keys, 0.25, 1, jnp.ones((2, 4000))))
  assert np.any(dropped != other)
