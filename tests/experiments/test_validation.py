"""Evaluation during training, of trackers whose score is known."""

import types

import numpy as np
import pytest

from experiments.recipes import validation
from tapjax.types import Example
from tapjax.types import Tracks

SHOWN = np.asarray([[False, False, False, False], [True, False, False, False]])


def make_example():
  """Two points that move to the right; the second is hidden at first."""
  positions = np.zeros((2, 4, 2), np.float32)
  positions[..., 0] = [[4], [20]] + np.arange(4)[None]
  positions[..., 1] = [[6], [30]]
  generator = np.random.default_rng(0)
  video = generator.uniform(-1, 1, (4, 48, 64, 3)).astype(np.float32)
  queries = np.float32([[0, 6, 4], [1, 30, 21]])
  return Example(video, queries, positions, SHOWN)


def evaluate(shift):
  """Evaluates a tracker that is off by some pixels of the video."""
  example = make_example()
  seen = []

  def track(frames, points):
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(points[:, 0], [0, 1])
    positions = np.asarray(example.target_points) + np.float32([shift, 0])
    return Tracks(positions, ~SHOWN, None, None)

  run = validation.make_evaluate_examples(
      lambda params: types.SimpleNamespace(track=track),
      [example],
      lambda step, name, picture: seen.append((step, name, picture)),
  )
  return run(7, None), seen


def test_a_perfect_tracker_scores_all():
  evaluation, _ = evaluate(0)
  assert evaluation.score == pytest.approx(100)
  assert set(evaluation.scalars.values()) == {100.0}


def test_distances_are_those_of_frames_of_256_pixels():
  """1.5 of 64 pixels are 6 of 256: within 8 and 16, of 1, 2, 4, 8 and 16."""
  evaluation, _ = evaluate(1.5)
  scalars = evaluation.scalars
  assert scalars['validation/position_accuracy'] == pytest.approx(40)
  assert scalars['validation/occlusion_accuracy'] == pytest.approx(100)


def test_the_first_video_is_drawn_above_the_truth():
  _, ((step, name, picture),) = evaluate(0)
  assert (step, name) == (7, 'validation/tracks')
  assert picture.shape == (2 * 48, 4 * 64, 3)
  np.testing.assert_array_equal(picture[:48], picture[48:])
  _, ((_, _, other),) = evaluate(9)
  assert np.any(other[:48] != other[48:])
