"""Points sampled on objects."""

import numpy as np

from tapjax import objects
from tapjax.objects import boxes
from tapjax.objects import sampling


def make_box(*sides):
  return np.asarray(sides, np.float32)


def test_points_lie_on_the_object():
  settings = objects.ObjectSettings()
  box = make_box(10, 20, 50, 60)
  points = sampling.sample_points(box, None, settings)
  assert 25 <= len(points) <= 64
  assert boxes.are_inside(points, box).all()
  mask = np.zeros((80, 80), bool)
  mask[20:60, 10:30] = True
  points = sampling.sample_points(box, mask, settings)
  assert len(points) >= 16
  # As eroded by two pixels.
  assert (points >= [12, 22]).all()
  assert (points <= [28, 58]).all()
  thin = np.zeros((80, 80), bool)
  thin[41, 33] = True
  np.testing.assert_array_equal(
      sampling.sample_points(box, thin, settings), [[33.5, 41.5]]
  )
  few = objects.ObjectSettings(max_points=7)
  assert len(sampling.sample_points(box, None, few)) == 7


def test_outliers_are_steps_of_unusual_length():
  positions = np.zeros((2, 10, 2))
  positions[..., 0] = np.arange(10)
  positions[1, 6:] += 12
  expected = np.zeros((2, 10), bool)
  expected[1, 6] = True
  outliers = sampling.find_outliers(positions, 1.0)
  np.testing.assert_array_equal(outliers, expected)
  assert not sampling.find_outliers(positions[:, 5:8], 0.0).any()
