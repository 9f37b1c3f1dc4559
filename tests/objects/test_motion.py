"""Detection of motion before a moving camera."""

import numpy as np
import pytest

from tapjax import objects
from tapjax.objects import boxes


def make_box(*sides):
  return np.asarray(sides, np.float32)


def test_motion_is_detected_before_a_moving_camera():
  pytest.importorskip('cv2')
  generator = np.random.default_rng(0)
  cells = generator.uniform(40, 200, (80, 100, 3))
  ground = np.kron(cells, np.ones((4, 4, 1)))
  patch = np.kron(
      generator.uniform(0, 255, (15, 15, 3)) * [1, 0.2, 0.2],
      np.ones((4, 4, 1)),
  )
  detector = objects.MotionDetector()
  found = []
  for t in range(3):
    view = ground[2 * t : 2 * t + 240, 3 * t : 3 * t + 320].copy()
    left = 100 + 6 * t
    view[80:140, left : left + 60] = patch
    found.append(detector(view.astype(np.uint8)))
  assert not len(found[0].boxes)
  for t in (1, 2):
    truth = make_box(100 + 6 * t, 80, 160 + 6 * t, 140)
    assert len(found[t].boxes) == 1
    assert boxes.measure_overlaps(found[t].boxes, truth[None])[0, 0] > 0.8
    assert found[t].masks.shape == (1, 240, 320)
  # Nothing moves on its own now.
  still = ground[:240, :320].astype(np.uint8)
  moved = ground[4:244, 4:324].astype(np.uint8)
  detector = objects.MotionDetector()
  detector(still)
  assert not len(detector(moved).boxes)
