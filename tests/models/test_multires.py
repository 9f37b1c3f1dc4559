"""Refinement over resolutions, with levels whose outcome is known."""

import jax.numpy as jnp
import numpy as np

from tapjax.models import multires
from tapjax.types import TrackState

INITIAL, FINAL = (8, 8), (16, 32)


def make_state(value):
  shape = 2, 3
  return TrackState(
      jnp.full((*shape, 2), value), jnp.full(shape, value), jnp.full(shape, 0.0)
  )


def refine(level, positions, state, memory):
  """Two iterations that add 1 to positions, and 10 to logits."""
  states = [
      TrackState(positions + i, state.occlusion_logits + 10 * i, state[2])
      for i in (1, 2)
  ]
  return (
      TrackState(
          *[
              jnp.stack(parts)
              for parts in zip(*[s[:3] for s in states], strict=True)
          ]
      ),
      memory + level,
  )


def test_positions_go_on_and_logits_begin_anew_at_each_level():
  memories = [jnp.zeros((1, 1)), jnp.zeros((1, 1))]
  states, memory = multires.refine_levels(
      refine, 2, make_state(4.0), memories, FINAL, INITIAL
  )
  # In pixels of the initial resolution x began at 1 and y at 2.
  np.testing.assert_allclose(states.positions[:, 0, 0, 0], [8, 12, 16, 20])
  np.testing.assert_allclose(states.positions[:, 0, 0, 1], [6, 8, 10, 12])
  np.testing.assert_allclose(states.occlusion_logits[:, 0, 0], [14, 24] * 2)
  np.testing.assert_array_equal(memory[:, 0], [0, 1])


def test_the_last_iterations_are_averaged():
  values = jnp.arange(5.0).reshape(5, 1, 1)
  states = TrackState(jnp.stack([values] * 2, axis=-1), values, values)
  average = multires.average_levels(states, 2)
  np.testing.assert_allclose(average.occlusion_logits, [[(2 + 4) / 2]])


def test_changes_count_in_pixels_of_their_resolution():
  now = multires.Refinement(
      jnp.zeros((1, 1, 2)), jnp.ones((1, 1)), jnp.ones((1, 1)), None
  )
  changed = now.change(
      jnp.asarray([[[8.0, 4.0, 2.0, 3.0]]]), FINAL, INITIAL, None
  )
  np.testing.assert_allclose(changed.positions, [[[2, 2]]])
  np.testing.assert_allclose(changed.occlusion_logits, [[3]])
  np.testing.assert_allclose(changed.uncertainty_logits, [[4]])


def test_given_levels_are_taken():
  given = ((16, 16), (32, 32))
  assert multires.list_levels((8, 8), (64, 64), given, 8) == given
  grown = multires.list_levels((64, 64), (256, 256), None, 8)
  assert grown[-1] == (256, 256)
  assert list(grown) == sorted(grown)


def test_confidence_needs_both():
  logits = jnp.asarray([[-20.0, -20.0, 20.0, 20.0]])
  other = jnp.asarray([[-20.0, 20.0, -20.0, 20.0]])
  state = TrackState(jnp.zeros((1, 4, 2)), logits, other)
  np.testing.assert_allclose(
      multires.estimate_confidence(state), [[1, 0, 0, 0]], atol=1e-6
  )
