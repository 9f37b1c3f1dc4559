"""Matching of detections with visible and with hidden objects."""

import numpy as np

from tapjax.objects.detections import Detections
from tapjax.objects.matching import find_whole
from tapjax.objects.matching import match_detections
from tapjax.objects.settings import ObjectSettings
from tapjax.objects.sources import Reading
from tapjax.objects.tracked_object import Estimate
from tapjax.objects.tracked_object import ObjectState
from tapjax.objects.tracked_object import TrackedObject

SETTINGS = ObjectSettings()


def make_item(number, box, *, frame=0, label='', detector_id=None):
  """An object that was seen on a frame, with points all over its box."""
  box = np.asarray(box, np.float32)
  x, y = np.meshgrid(*np.linspace(box[:2] + 1, box[2:] - 1, 3).T)
  places = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)
  item = TrackedObject(
      number, label, detector_id, np.arange(9), box, places, 1.0, 0, frame
  )
  seen = np.ones(9, bool)
  item.shown[frame] = ObjectState(number, label, box, True, 1.0, places, seen)
  return item


def match(items, detections, frame=0, *, visible=True):
  estimates = {
      item.number: Estimate(
          Reading(item.places, np.full(9, visible)),
          np.full(9, visible),
          item.box,
          None,
      )
      for item in items
  }
  return match_detections(items, frame, detections, estimates, SETTINGS)


LEFT, RIGHT = np.float32([[0, 0, 20, 20], [30, 0, 50, 20]])


def test_boxes_are_matched_whatever_their_order():
  items = [make_item(1, LEFT), make_item(2, RIGHT)]
  assert match(items, Detections(np.stack([RIGHT + 2, LEFT + 2]))) == {
      0: 2,
      1: 1,
  }
  far = Detections(LEFT[None] + 100)
  assert match(items, far) == {}


def test_labels_must_agree():
  items = [make_item(1, LEFT, label='cat')]
  boxes = LEFT[None]
  assert match(items, Detections(boxes, labels=['cat'])) == {0: 1}
  assert match(items, Detections(boxes, labels=['dog'])) == {}


def test_ids_of_the_detector_decide():
  items = [make_item(1, LEFT, detector_id=7)]
  far = Detections(RIGHT[None], ids=np.asarray([7]))
  assert match(items, far) == {0: 1}
  near = Detections(LEFT[None], ids=np.asarray([8]))
  assert match(items, near) == {}


def test_points_that_reappear_outweigh_a_place():
  back, near = make_item(1, RIGHT), make_item(2, LEFT)
  back.shown = {0: back.shown[0]._replace(box=LEFT + 100)}
  found = Detections(np.stack([RIGHT]))
  assert match([back, near], found, frame=5) == {0: 1}
  # Without visible points the object that was last seen there is meant.
  assert match([back, make_item(3, RIGHT)], found, 5, visible=False) == {0: 3}


def test_parts_belong_to_the_object_around_them():
  items = [make_item(1, LEFT), make_item(2, RIGHT)]
  part = Detections(np.float32([[32, 2, 40, 10]]))
  assert find_whole(items, 0, part, 0, SETTINGS) is items[1]
  assert find_whole(items, 1, part, 0, SETTINGS) is None
  outside = Detections(np.float32([[60, 60, 70, 70]]))
  assert find_whole(items, 0, outside, 0, SETTINGS) is None
