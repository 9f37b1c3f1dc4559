"""Norms over the frames of tracks."""

import jax.numpy as jnp
import numpy as np

from tapjax.models.pips_plus_plus.network import make_small_frame
from tapjax.models.pips_plus_plus.network import normalize_frames_of_tracks
from tests.support import narrow


def test_only_valid_frames_count():
  x = np.random.default_rng(0).normal(3, 2, (2, 9, 4)).astype(np.float32)
  valid = np.arange(9)[None] < np.asarray([[9], [6]])
  whole = normalize_frames_of_tracks(jnp.asarray(x), jnp.asarray(valid))
  cut = normalize_frames_of_tracks(
      jnp.asarray(x[1:, :6]), jnp.ones((1, 6), bool)
  )
  np.testing.assert_allclose(whole[1:, :6], cut, atol=1e-5)
  np.testing.assert_allclose(np.mean(whole[0], axis=0), 0, atol=1e-5)
  np.testing.assert_allclose(np.std(whole[0], axis=0), 1, atol=1e-4)


def test_tracks_without_a_valid_frame_are_finite():
  x = jnp.ones((1, 3, 2))
  assert np.isfinite(
      normalize_frames_of_tracks(x, jnp.zeros((1, 3), bool))
  ).all()


def test_the_initial_frame_has_the_smallest_side():
  config = narrow.PIPS_PLUS_PLUS
  side = config.smallest_side
  assert make_small_frame(config).shape == (side, side, 3)
