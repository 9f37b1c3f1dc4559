"""Training loop: batches, updates, evaluation and snapshots.

draw(step) ──► update(state, batch) ──► state
                                          ├─ every `report_every`    scalars
                                          ├─ every `evaluate_every`  score
                                          └─ every `save_every`      snapshot
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import math
import time
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from tqdm import tqdm

from tapjax.models.contract import Params
from tapjax.settings import check_at_least
from tapjax.training.snapshots import Snapshots
from tapjax.training.step import TrainState
from tapjax.types import PyTree

# Number of metrics on the progress bar, the first ones.
_NUM_SHOWN = 2


class TrainingStoppedError(ValueError):
  """Training was stopped by consecutive non-finite updates."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
  """Intervals of the loop, in updates.

  Attributes:
    report_every: interval of scalars.
    evaluate_every: interval of evaluations; each is followed by a snapshot.
    save_every: interval of snapshots.
    num_latest: number of latest snapshots to keep, besides the best one.
  """

  report_every: int = 20
  evaluate_every: int = 500
  save_every: int = 250
  num_latest: int = 2

  def __post_init__(self):
    check_at_least(1, self, [field.name for field in dataclasses.fields(self)])


@runtime_checkable
class UpdateMetrics(Protocol):
  """Metrics of an update, the most important ones first."""

  @property
  def bad_updates(self) -> Any:
    """Number of latest consecutive non-finite updates."""

  def _asdict(self) -> dict[str, Any]:
    """Returns all metrics by name."""


class Evaluation(NamedTuple):
  """Score of the weights, for comparison, and further scalars."""

  score: float
  scalars: Mapping[str, float]


def train(
    state: TrainState,
    update: Callable[[TrainState, Any], tuple[TrainState, Any]],
    draw: Callable[[int], PyTree],
    *,
    num_steps: int,
    max_bad_steps: int,
    config: LoopConfig,
    snapshots: Snapshots,
    write_scalars: Callable[[int, Mapping[str, float]], None],
    evaluate: Callable[[int, Params], Evaluation],
    keep_best: Callable[[int, Params, Evaluation], None],
) -> TrainState:
  """Trains up to `num_steps` updates, including those of `state`.

  Args:
    state: initial state, which is donated.
    update: function from a state and a batch to the next state and
      `UpdateMetrics`.
    draw: function from a step to its batch.
    num_steps: number of updates of the whole training.
    max_bad_steps: number of consecutive non-finite updates at which training
      stops, as in the optimizer, which skips them.
    config: intervals of the loop.
    snapshots: snapshots of states, of the last one as well.
    write_scalars: called with a step and its scalars by name.
    evaluate: function from a step and weights to their `Evaluation`.
    keep_best: called with the weights at each new best score.

  Raises:
    TrainingStoppedError: `max_bad_steps` consecutive updates were not finite.
    SnapshotError: a snapshot could not be written.
  """
  first = step = int(state.num_updates)
  best = snapshots.best_score
  reported, since = first, time.monotonic()
  with tqdm(
      total=num_steps, initial=first, unit='step', dynamic_ncols=True
  ) as bar:
    while step < num_steps:
      state, metrics = update(state, draw(step))
      step += 1
      bar.update()
      ends = step == num_steps
      reports = ends or step % config.report_every == 0
      evaluates = ends or step % config.evaluate_every == 0
      saves = ends or step % config.save_every == 0
      if reports or evaluates or saves:
        measured = _fetch(metrics)
        bad_updates = int(measured['bad_updates'])
        _check_finite(bad_updates, step, max_bad_steps, snapshots)
        now = time.monotonic()
        speed = (step - reported) / max(now - since, 1e-9)
        reported, since = step, now
        scalars = {f'train/{k}': v for k, v in measured.items()}
        write_scalars(step, scalars | {'steps_per_second': speed})
        bar.set_postfix_str(_list_numbers(list(measured.items())[:_NUM_SHOWN]))
      score = None
      if evaluates:
        evaluation = evaluate(step, state.params)
        write_scalars(step, evaluation.scalars)
        score = evaluation.score
        bar.write(_describe(step, evaluation))
        if score > best:
          best = score
          keep_best(step, state.params, evaluation)
      if evaluates or saves:
        snapshots.save(step, state, score)
      if evaluates:
        since = time.monotonic()
  snapshots.wait()
  return state


def _fetch(metrics: UpdateMetrics) -> dict[str, float]:
  scalars = metrics._asdict()
  values = jax.device_get(list(scalars.values()))
  return dict(zip(scalars, map(float, values), strict=True))


def _check_finite(
    bad_updates: int, step: int, max_bad_steps: int, snapshots: Snapshots
) -> None:
  """Raises TrainingStoppedError after `max_bad_steps` consecutive bad steps."""
  if bad_updates < max_bad_steps:
    return
  snapshots.wait()
  kept = snapshots.latest_step
  raise TrainingStoppedError(
      f'{bad_updates} steps in a row, up to step {step}, had a loss or '
      'gradient that is not finite - lower the learning rate, or look at the '
      'data; '
      + (
          'nothing was saved'
          if kept is None
          else f'the snapshot of step {kept} is as it was'
      )
  )


def _describe(step: int, evaluation: Evaluation) -> str:
  numbers = _list_numbers(
      (name, value)
      for name, value in evaluation.scalars.items()
      if math.isfinite(value)
  )
  return f'step {step}: {numbers}'


def _list_numbers(numbers: Iterable[tuple[str, float]]) -> str:
  return '  '.join(f'{name} {value:.4g}' for name, value in numbers)
