"""Slots of the points of a session."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.contract import describe_params
from tapjax.streaming import slots
from tapjax.tracking.shapes import count_bytes
from tests.support import sessions
from tests.support import small_trackers


@pytest.mark.parametrize(
    ('num_points', 'num_slots'),
    [(0, 8), (1, 8), (8, 8), (9, 16), (16, 16), (17, 32), (1000, 1024)],
)
def test_slots_are_powers_of_two(num_points, num_slots):
  assert slots.count_slots(num_points) == num_slots


def test_new_slots_are_replaced_and_the_others_stay():
  functions = sessions.make_tracker().functions
  queries, memory = jax.tree.map(
      lambda leaf: jnp.ones(leaf.shape, leaf.dtype),
      slots.describe_slots(functions, describe_params(functions), 8),
  )
  fresh = jax.tree.map(lambda array: 2 * array, queries)
  is_new = jnp.arange(8) % 3 == 0
  expected = np.where(is_new, 2, 1)
  found, cleared = slots.replace_slots(
      functions, queries, memory, fresh, is_new
  )
  for array in jax.tree.leaves(found):
    rows = np.asarray(array)[0].reshape(8, -1)
    np.testing.assert_array_equal(
        rows, np.tile(expected[:, None], rows.shape[1])
    )
  for array in jax.tree.leaves(cleared):
    assert np.sum(array) == array.size * (1 - 3 / 8)


def test_trackers_of_whole_videos_have_no_slots():
  functions = small_trackers.make_tracker('tapnet').functions
  with pytest.raises(ValueError, match='sees only the past'):
    slots.describe_slots(functions, describe_params(functions), 8)


@pytest.mark.slow
def test_memory_of_a_step_is_estimated():
  tracker = sessions.make_tracker()
  functions, params = tracker.functions, describe_params(tracker.functions)
  queries, memory = slots.describe_slots(functions, params, 256)
  frames = jax.ShapeDtypeStruct((1, 48, 64, 3), jnp.uint8)
  program = slots.track_frame.lower(functions, params, queries, memory, frames)
  analysis = program.compile().memory_analysis()
  measured = (
      analysis.temp_size_in_bytes
      + analysis.argument_size_in_bytes
      + analysis.output_size_in_bytes
      - count_bytes(params)
  )
  found = slots.estimate_bytes(functions, (48, 64), 200)
  assert found == pytest.approx(measured, rel=0.1)
