"""The loop and its snapshots, around an update whose outcome is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.contract import Params
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.training.loop import train
from tapjax.training.loop import TrainingStoppedError
from tapjax.training.snapshots import Snapshots
from tapjax.training.step import Metrics
from tapjax.training.step import TrainState

CONFIG = LoopConfig(report_every=1, evaluate_every=2, save_every=3)


def make_state(size=3):
  weights = {'net/~/layer': {'w': jnp.arange(size, dtype=jnp.float32)}}
  optimizer = (jnp.zeros(()), {'mean': weights})
  return TrainState(jnp.zeros((), jnp.int32), Params(weights, {}), optimizer)


@jax.jit
def move(state, batch):
  weights = jax.tree.map(lambda array: 1.1 * array + batch, state.params.params)
  return TrainState(state.num_updates + 1, Params(weights, {}), state.optimizer)


class Run:
  """A training run that notes what it is asked for."""

  def __init__(self, folder, scores=None, bad_from=None):
    self.snapshots = Snapshots(folder)
    self.scores = scores or {}
    self.bad_from = bad_from
    self.kept = []
    self.scalars = {}

  def update(self, state, batch):
    state = move(state, batch)
    step = int(state.num_updates)
    bad = max(step - self.bad_from + 1, 0) if self.bad_from else 0
    zero = jnp.zeros(())
    return state, Metrics(*[zero] * 6, bad_updates=jnp.asarray(bad))

  def evaluate(self, step, params):
    score = self.scores.get(step, 0.0)
    return Evaluation(score, {'validation/score': score})

  def keep_best(self, step, params, evaluation):
    self.kept.append(step)

  def write_scalars(self, step, scalars):
    self.scalars.setdefault(step, {}).update(scalars)

  def go(self, state, num_steps):
    return train(
        state,
        self.update,
        lambda step: jnp.float32(step),
        num_steps=num_steps,
        max_bad_steps=5,
        config=CONFIG,
        snapshots=self.snapshots,
        write_scalars=self.write_scalars,
        evaluate=self.evaluate,
        keep_best=self.keep_best,
    )


def assert_equal(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def list_steps(folder):
  return sorted(int(path.name) for path in folder.iterdir())


def test_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
  whole = Run(tmp_path / 'whole').go(make_state(), 8)
  first = Run(tmp_path / 'parts')
  first.go(make_state(), 5)
  first.snapshots.close()
  second = Run(tmp_path / 'parts')
  state = second.snapshots.restore(make_state())
  assert int(state.num_updates) == 5
  assert_equal(second.go(state, 8), whole)
  assert min(second.scalars) == 6


def test_latest_and_best_are_kept(tmp_path):
  run = Run(tmp_path, scores={2: 1.0, 4: 3.0, 6: 2.0, 8: 3.0, 10: 0.0})
  run.go(make_state(), 11)
  assert run.kept == [2, 4]
  assert run.snapshots.best_score == 3.0
  run.snapshots.close()
  # The last two, 10 and 11, and one of those with the best score.
  kept = list_steps(tmp_path)
  assert kept[-2:] == [10, 11]
  assert len(kept) == 3
  assert kept[0] in (4, 8)
  assert Run(tmp_path).snapshots.best_score == 3.0


def test_stops_after_several_bad_steps(tmp_path):
  run = Run(tmp_path, bad_from=5)
  with pytest.raises(TrainingStoppedError, match='5 steps in a row') as caught:
    run.go(make_state(), 30)
  assert 'snapshot of step' in str(caught.value)
  run.snapshots.close()
  restored = Run(tmp_path).snapshots.restore(make_state())
  assert int(restored.num_updates) == 8


def test_settings_that_cannot_be():
  with pytest.raises(ValueError, match='evaluate_every must be at least 1'):
    LoopConfig(evaluate_every=0)
