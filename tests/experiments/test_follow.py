"""Evaluation that follows a training run, with weights that appear."""

from absl import flags
from absl.testing import flagsaver
import pytest

import experiments.run  # noqa: F401 - defines the flags.
from experiments.tasks import follow
from tests.support import small_trackers


@pytest.fixture(autouse=True)
def parsed_flags():
  with flagsaver.flagsaver(poll_seconds=0.0):
    flags.FLAGS(['run', '--task=follow'])
    yield
  flags.FLAGS.unparse_flags()


def save(folder, step, num_steps=None):
  metadata = {'steps': str(step)}
  if num_steps is not None:
    metadata['num_steps'] = str(num_steps)
  tracker = small_trackers.make_tracker('tapnet')
  tracker.save(folder / follow.LATEST, metadata)


def test_steps_are_read_from_weights(tmp_path):
  assert follow.read_steps(tmp_path / follow.LATEST) is None
  save(tmp_path, 3)
  assert follow.read_steps(tmp_path / follow.LATEST) == (3, None)
  save(tmp_path, 4, 9)
  assert follow.read_steps(tmp_path / follow.LATEST) == (4, 9)


def test_each_step_is_evaluated_once_until_the_last(tmp_path, monkeypatch):
  done = []

  def evaluate(folder, step):
    done.append(step)
    save(folder, step + 2, 6)  # The training goes on meanwhile.
    return {'score': 1.0}

  monkeypatch.setattr(follow, 'evaluate_weights', evaluate)
  save(tmp_path, 2, 6)
  monkeypatch.setattr(follow.time, 'sleep', lambda seconds: None)
  follow.run(str(tmp_path))
  assert done == [2, 4, 6]
  assert list((tmp_path / 'summaries' / 'follow').iterdir())


def test_waiting_has_an_end(tmp_path, monkeypatch):
  slept = []
  monkeypatch.setattr(follow.time, 'sleep', slept.append)
  with flagsaver.flagsaver(most_polls=3, poll_seconds=5.0):
    follow.run(str(tmp_path))
  assert slept == [5.0] * 3


def test_nothing_is_measured_without_a_benchmark(tmp_path):
  assert follow.make_measure(str(tmp_path)) is None
