"""Snapshots of training states on disk, written atomically.

A folder of Orbax checkpoints, one for each saved step: the latest ones, for
resumed runs, and the one with the best score.
"""

import os
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from tapjax.models.contract import Params
from tapjax.training.step import TrainState

_SCORE = 'score'


class _StoredParams(NamedTuple):
  """Parameters under the names that they have in snapshots."""

  weights: Any
  statistics: Any


class SnapshotError(ValueError):
  """A snapshot cannot be written or read."""


class Snapshots:
  """Folder with a bounded number of training states."""

  def __init__(self, directory: str | os.PathLike[str], num_latest: int = 2):
    """Opens or creates a folder.

    Args:
      directory: folder of only snapshots.
      num_latest: number of latest snapshots to keep, besides the best one.
    """
    self._directory = pathlib.Path(directory).absolute()
    policies = [
        preservation_policy.LatestN(num_latest),
        preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics[_SCORE],
            n=1,
            keep_checkpoints_without_metrics=False,
        ),
    ]
    try:
      self._manager = ocp.CheckpointManager(
          self._directory,
          options=ocp.CheckpointManagerOptions(
              preservation_policy=preservation_policy.AnyPreservationPolicy(
                  policies
              ),
              best_fn=lambda metrics: metrics[_SCORE],
              cleanup_tmp_directories=True,
          ),
      )
    except OSError as error:
      raise SnapshotError(
          f'{self._directory} cannot hold snapshots: {error}'
      ) from None

  @property
  def latest_step(self) -> int | None:
    """Last saved step; None without snapshots."""
    return self._manager.latest_step()

  @property
  def best_score(self) -> float:
    """Highest score of all snapshots; minus infinity without any."""
    step = self._manager.best_step()
    if step is None:
      return -np.inf
    return float((self._manager.metrics(step) or {}).get(_SCORE, -np.inf))

  def save(
      self, step: int, state: TrainState, score: float | None = None
  ) -> None:
    """Writes a state asynchronously.

    A snapshot appears under its step once it is complete.

    Raises:
      SnapshotError: this or the previous snapshot cannot be written; earlier
        ones are unchanged.
    """
    # The next update donates the state's arrays, so they are copied first.
    copied = jax.tree.map(lambda array: np.array(array), state)
    try:
      self._manager.save(
          step,
          args=ocp.args.StandardSave(_to_stored(copied)),
          metrics=None if score is None else {_SCORE: score},
      )
    except Exception as error:
      raise self._explain_save(error) from error

  def wait(self) -> None:
    """Waits for pending writes; raises SnapshotError if one failed."""
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise self._explain_save(error) from error

  def close(self) -> None:
    """Waits for pending writes and closes the folder."""
    self.wait()
    self._manager.close()

  def restore(self, template: TrainState) -> TrainState | None:
    """Returns the latest state, in the structure of `template`, or None.

    Raises:
      SnapshotError: it cannot be read, or is of another network.
    """
    step = self.latest_step
    if step is None:
      return None
    abstract = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(
            array.shape, array.dtype, sharding=array.sharding
        ),
        template,
    )
    try:
      restored: Any = self._manager.restore(
          step, args=ocp.args.StandardRestore(_to_stored(abstract))
      )
    except Exception as error:
      reason = str(error).strip().split('\n', 1)[0]
      raise SnapshotError(
          f'snapshot {self._directory / str(step)} cannot be read '
          f'({type(error).__name__}: {reason}) - if the network was changed, '
          'use another folder; if the files are damaged, delete that snapshot '
          'to go on from the one before'
      ) from error
    return _from_stored(restored)

  def _explain_save(self, error: Exception) -> SnapshotError:
    reason = str(error).strip().split('\n', 1)[0]
    kept = self.latest_step
    return SnapshotError(
        f'a snapshot cannot be written to {self._directory} ({reason}) - is '
        'the disk full? '
        + (
            'there is none yet'
            if kept is None
            else f'the last good one is of step {kept}'
        )
    )


def _to_stored(state: TrainState) -> dict[str, Any]:
  return jax.tree.map(
      lambda part: _StoredParams(*part) if isinstance(part, Params) else part,
      state._asdict(),
      is_leaf=lambda part: isinstance(part, Params),
  )


def _from_stored(stored: dict[str, Any]) -> TrainState:
  parts = jax.tree.map(
      lambda part: Params(*part) if isinstance(part, _StoredParams) else part,
      stored,
      is_leaf=lambda part: isinstance(part, _StoredParams),
  )
  return TrainState(**parts)
