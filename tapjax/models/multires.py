"""Refinement over resolutions, which TAPIR and LocoTrack share.

Tracks are initialized at one resolution and refined at one resolution after the
other, from coarse to fine. The refinement counts in pixels of the initial
resolution; the last iterations of all resolutions are averaged.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import list_growing_resolutions
from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.types import PyTree
from tapjax.types import TrackState


class Refinement(NamedTuple):
  """State that one iteration of refinement passes to the next.

  Positions are (x, y) pixels of the initial resolution. Features are those of a
  track on every frame; None for a network that does not read them.
  """

  positions: Float[Array, 'n t 2']
  occlusion_logits: Float[Array, 'n t']
  uncertainty_logits: Float[Array, 'n t']
  features: Float[Array, 'n t c'] | None

  def change(
      self,
      changes: Float[Array, 'n t o'],
      resolution: Resolution,
      initial: Resolution,
      features: Float[Array, 'n t c'] | None,
  ) -> 'Refinement':
    """Adds the output of a network: position, occlusion, uncertainty.

    Positions change by pixels of `resolution`.
    """
    return Refinement(
        positions=self.positions
        + rescale_positions(changes[..., :2], resolution, initial),
        occlusion_logits=self.occlusion_logits + changes[..., 2],
        uncertainty_logits=self.uncertainty_logits + changes[..., 3],
        features=features,
    )

  @property
  def state(self) -> TrackState:
    """The state that a loss compares."""
    return TrackState(*self[:3])


# Refines tracks at the level of an index, from tracks and a memory.
RefineLevel = Callable[
    [int, Float[Array, 'n t 2'], TrackState, PyTree], tuple[TrackState, PyTree]
]


def list_levels(
    initial: Resolution,
    resolution: Resolution,
    given: tuple[Resolution, ...] | None,
    multiple: int,
) -> tuple[Resolution, ...]:
  """Returns the resolutions of the refinement, in order.

  Unless given, they grow geometrically from the initial one to that of the
  video, which is rounded down to a multiple.
  """
  if given is not None:
    return given
  return list_growing_resolutions(initial, resolution, multiple)


def refine_levels(
    refine: RefineLevel,
    num_levels: int,
    state: TrackState,
    memories: Sequence[PyTree],
    resolution: Resolution,
    initial: Resolution,
) -> tuple[TrackState, PyTree]:
  """Refines tracks at one level after the other.

  Args:
    refine: from the index of a level, positions in pixels of `initial`, the
      first guess and the memory of the level to states after each iteration and
      the new memory.
    num_levels: number of resolutions.
    state: first guess, in pixels of `resolution`.
    memories: of each level.
    resolution: of the video.
    initial: in whose pixels the refinement counts.

  Returns:
    States `[i, n, t]` of all iterations, in pixels of `resolution`, and the
    memories, joined along their first axis.
  """
  positions = rescale_positions(state.positions, resolution, initial)
  states, new_memories = [], []
  for level in range(num_levels):
    # PARITY: each level starts from the first guess of the logits, but from the
    # last level's positions (test_tapir_parity, multires).
    level_states, memory = refine(level, positions, state, memories[level])
    positions = level_states.positions[-1]
    states.append(level_states)
    new_memories.append(memory)
  joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *states)
  positions = rescale_positions(joined.positions, initial, resolution)
  memory = jax.tree.map(lambda *parts: jnp.concatenate(parts), *new_memories)
  return joined._replace(positions=positions), memory


def average_levels(states: TrackState, num_iterations: int) -> TrackState:
  """Returns the mean of the last iterations of all levels.

  The states `[1 + i, ...]` begin with the first guess.
  """
  return jax.tree.map(
      lambda array: jnp.mean(array[num_iterations::num_iterations], axis=0),
      states._replace(target_log_probs=None),
  )


def get_logits(
    state: TrackState,
) -> tuple[Float[Array, '*nt'], Float[Array, '*nt']]:
  """Returns the logits of occlusion and of uncertainty."""
  assert state.occlusion_logits is not None, 'both logits are estimated'
  assert state.uncertainty_logits is not None, 'both logits are estimated'
  return state.occlusion_logits, state.uncertainty_logits


def estimate_confidence(state: TrackState) -> Float[Array, '*nt']:
  """Returns the probability that a point is visible and its position right."""
  occlusion, uncertainty = get_logits(state)
  return jax.nn.sigmoid(-occlusion) * jax.nn.sigmoid(-uncertainty)
