"""Records of tracked objects."""

import numpy as np

from tapjax.objects.boxes import Similarity
from tapjax.objects.sources import Reading
from tapjax.objects.tracked_object import Estimate
from tapjax.objects.tracked_object import extrapolate
from tapjax.objects.tracked_object import ObjectState
from tapjax.objects.tracked_object import rebase
from tapjax.objects.tracked_object import TrackedObject


def make_item(frames):
  """An object whose box moves by (2, 1) per frame."""
  places = np.float64([[1, 1], [3, 1], [1, 3]])
  item = TrackedObject(
      1, '', None, np.arange(3), np.zeros(4), places, 1.0, 0, 0
  )
  for frame in frames:
    box = np.float32([0, 0, 8, 6]) + np.tile([2, 1], 2) * np.float32(frame)
    item.shown[frame] = ObjectState(
        1, '', box, False, 1.0, places, np.ones(3, bool)
    )
  return item


def test_hidden_objects_go_on_for_a_while():
  item = make_item(range(6))
  last = item.shown[5].box
  np.testing.assert_allclose(extrapolate(item, 8), last + np.tile([6, 3], 2))
  far = extrapolate(item, 15)
  np.testing.assert_allclose(far, last + np.tile([20, 10], 2))
  np.testing.assert_allclose(extrapolate(item, 90), far)


def test_an_object_seen_once_stays():
  item = make_item([4])
  np.testing.assert_allclose(extrapolate(item, 9), item.shown[4].box)


def test_outliers_follow_the_common_motion():
  item = make_item([0])
  inlier = np.asarray([True, True, False])
  shift = np.float64([10, 20])
  read = np.float64([[11, 21], [13, 21], [99, 99]])
  motion = Similarity(np.eye(2), shift, inlier)
  box = np.float64([1, 2, 3, 4])
  rebase(item, Estimate(Reading(read, inlier), inlier, box, motion), box)
  np.testing.assert_allclose(item.places, [[11, 21], [13, 21], [11, 23]])
  np.testing.assert_allclose(item.box, box)
