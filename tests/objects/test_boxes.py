"""Boxes: overlaps, motion and smoothing."""

import numpy as np
import pytest

from tapjax.objects import boxes


def make_box(*sides):
  return np.asarray(sides, np.float32)


def test_overlaps():
  box = make_box(0, 0, 4, 4)[None]
  others = np.asarray([[0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8.0]])
  np.testing.assert_allclose(
      boxes.measure_overlaps(box, others), [[1, 1 / 3, 0]]
  )


@pytest.mark.parametrize('angle', [0.0, 0.4, np.pi / 2])
def test_a_box_moves_with_most_of_its_points(angle):
  generator = np.random.default_rng(0)
  points = generator.uniform([10, 20], [50, 40], (60, 2))
  cos, sin = 1.3 * np.cos(angle), 1.3 * np.sin(angle)
  matrix = np.asarray([[cos, -sin], [sin, cos]])
  moved = points @ matrix.T + [7, -3]
  moved[:20] += generator.uniform(30, 90, (20, 2))
  motion = boxes.fit_similarity(points, moved, 3.0)
  np.testing.assert_allclose(motion.matrix, matrix, atol=0.02)
  assert motion.is_inlier[20:].all()
  assert not motion.is_inlier[:20].any()
  box = boxes.move_box(make_box(10, 20, 50, 40), motion)
  # The box of an ellipse that was turned.
  turn = np.linspace(0, 2 * np.pi, 2000)
  ellipse = np.stack([30 + 20 * np.cos(turn), 30 + 10 * np.sin(turn)], -1)
  ellipse = ellipse @ matrix.T + [7, -3]
  expected = np.concatenate([ellipse.min(0), ellipse.max(0)])
  np.testing.assert_allclose(box, expected, atol=0.5)


def test_one_point_shifts_a_box():
  motion = boxes.fit_similarity(
      np.asarray([[5.0, 5]]), np.asarray([[8.0, 4]]), 1.0
  )
  moved = boxes.move_box(make_box(0, 0, 10, 10), motion)
  np.testing.assert_allclose(moved, [3, -1, 13, 9])


def test_smoothing_keeps_what_moves_evenly_and_takes_noise_away():
  t = np.arange(30)
  even = np.stack([2 * t, 3 * t, 2 * t + 20, 3 * t + 10], -1).astype(float)
  known = np.ones(30, bool)
  known[14:17] = False
  smooth = boxes.smooth_boxes(even, known, 2.0)
  np.testing.assert_allclose(smooth, even, atol=1e-9)
  noise = np.random.default_rng(0).normal(size=even.shape)
  left = boxes.smooth_boxes(even + noise, known, 2.0) - even
  assert np.abs(left[known]).mean() < 0.6 * np.abs(noise[known]).mean()
  np.testing.assert_array_equal(left[~known], (even + noise - even)[~known])


def test_only_short_holes_are_filled():
  t = np.arange(12)
  even = np.stack([t, t, t + 9, t + 9], -1).astype(float)
  known = np.ones(12, bool)
  known[2:4] = known[6:10] = known[11] = False
  given = np.where(known[:, None], even, np.nan)
  filled, present = boxes.fill_holes(given, known, 2)
  assert np.flatnonzero(~present).tolist() == [6, 7, 8, 9, 11]
  np.testing.assert_allclose(filled[present], even[present])
