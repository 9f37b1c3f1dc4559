"""Queries and states of tracks, apart from any tracker."""

import jax.numpy as jnp
import numpy as np

from tapjax.models import arrows
from tapjax.types import TrackState

QUERIES = jnp.asarray([[0, 5.0, 7.0], [2.4, 1.0, 2.0], [9.0, 3.0, 4.0]])


def make_state(*shape):
  zeros = jnp.zeros(shape)
  return TrackState(jnp.full((*shape, 2), -1.0), zeros, zeros)


def test_queries_belong_to_the_nearest_frame_of_the_video():
  np.testing.assert_array_equal(arrows.round_query_times(QUERIES), [0, 2, 9])
  np.testing.assert_array_equal(arrows.get_query_frames(QUERIES, 4), [0, 2, 3])


def test_tracks_pass_through_their_queries_and_nowhere_else():
  state = arrows.pass_through_queries(make_state(3, 4), QUERIES)
  expected = np.full((3, 4, 2), -1.0)
  expected[0, 0] = 7, 5
  expected[1, 2] = 2, 1
  np.testing.assert_array_equal(state.positions, expected)


def test_a_single_frame_is_as_one_of_all():
  whole = arrows.pass_through_queries(make_state(3, 4), QUERIES)
  for frame in range(4):
    now = arrows.pass_through_queries(
        make_state(3), QUERIES, jnp.asarray(frame)
    )
    np.testing.assert_array_equal(now.positions, whole.positions[:, frame])


def test_the_guess_comes_first_and_has_the_probabilities():
  guess = make_state(2, 3)._replace(target_log_probs=jnp.ones((2, 3)))
  refined = TrackState(
      *[jnp.stack([2 + a, 3 + a]) for a in make_state(2, 3)[:3]]
  )
  states = arrows.prepend_guess(guess, refined)
  np.testing.assert_array_equal(states.positions[:, 0, 0, 0], [-1, 1, 2])
  np.testing.assert_array_equal(states.target_log_probs, jnp.ones((1, 2, 3)))
