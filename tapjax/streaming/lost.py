"""Points that a session has lost from view, and found again."""

from typing import NamedTuple

from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Int
import numpy as np


class LostRule(NamedTuple):
  """Rule by which a point counts as lost, and as found again.

  Attributes:
    threshold: a point is seen on a frame where its confidence is above it; None
      takes the tracker's own visibility.
    lost_after: consecutive frames on which a point is not seen.
    found_after: consecutive frames on which a lost point is seen.
  """

  threshold: float | None = None
  lost_after: int = 25
  found_after: int = 3


DEFAULT_RULE = LostRule()


class LostState(NamedTuple):
  """Lost points, and the evidence against their state.

  Attributes:
    streaks: consecutive frames, up to the last one, that contradict `lost`.
    lost: whether the point is lost.
  """

  streaks: Int[np.ndarray | Array, 's']
  lost: Bool[np.ndarray | Array, 's']


def make_lost_state(num_slots: int) -> LostState:
  """Returns the state in which no point is lost."""
  return LostState(np.zeros(num_slots, np.int32), np.zeros(num_slots, bool))


def update_lost_state(
    state: LostState, seen: Bool[np.ndarray, 's'], rule: LostRule
) -> LostState:
  """Returns the state after a frame on which some points were seen."""
  lost = np.asarray(state.lost)
  streaks = np.where(seen == lost, np.asarray(state.streaks) + 1, 0)
  changed = streaks >= np.where(lost, rule.found_after, rule.lost_after)
  return LostState(
      np.where(changed, 0, streaks).astype(np.int32),
      np.where(changed, ~lost, lost),
  )


def check_rule(rule: object) -> None:
  """Raises ValueError for a rule without frames or with a bad threshold."""
  if not isinstance(rule, LostRule):
    raise ValueError(
        f'rule must be a LostRule; got {type(rule).__name__} - pass '
        'tapjax.streaming.LostRule(...)'
    )
  if min(rule.lost_after, rule.found_after) < 1:
    raise ValueError(
        'lost_after and found_after must be at least one frame; got '
        f'{rule.lost_after} and {rule.found_after}'
    )
  if rule.threshold is not None and not 0 <= rule.threshold < 1:
    raise ValueError(
        f'threshold must be at least 0 and less than 1; got {rule.threshold}'
    )
