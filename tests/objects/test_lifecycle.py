"""Objects from detection to removal, on points that move as is set here."""

import numpy as np

from tapjax.objects.detections import Detections
from tapjax.objects.lifecycle import ObjectLifecycle
from tapjax.objects.settings import ObjectSettings
from tapjax.objects.sources import Reading

SPEED = np.float32([2, 1])
BOX = np.float32([10, 12, 30, 36])


class Points:
  """Points that move at one speed, and are hidden on some frames."""

  def __init__(self, hidden=()):
    self.frame = 0
    self.hidden = hidden
    self.known = {}
    self.removed = []

  def add(self, points):
    first = len(self.known)
    for i, point in enumerate(points):
      self.known[first + i] = self.frame, np.asarray(point)
    return np.arange(first, first + len(points))

  def remove(self, numbers):
    self.removed += numbers.tolist()

  def read(self, numbers, frame):
    places = [
        point + SPEED * (frame - begin)
        for begin, point in (self.known[int(number)] for number in numbers)
    ]
    seen = np.full(len(numbers), frame not in self.hidden)
    return Reading(np.asarray(places, np.float32).reshape(-1, 2), seen)

  def get_first_frame(self):
    return self.frame


def detect(frame):
  return Detections(BOX[None] + np.tile(SPEED * frame, 2))


def run(num_frames, detected, hidden=(), **settings):
  """Returns the source, the lifecycle and the shown numbers of each frame."""
  source = Points(hidden)
  lifecycle = ObjectLifecycle(source, ObjectSettings(**settings), (200, 200))
  shown = []
  for frame in range(num_frames):
    source.frame = frame
    found = detected.get(frame)
    shown.append([item.number for item in lifecycle.step(frame, found)])
  return source, lifecycle, shown


def test_points_move_the_box():
  _, lifecycle, shown = run(6, {0: detect(0)})
  assert shown == [[1]] * 6
  (item,) = lifecycle.objects
  for frame, state in item.shown.items():
    np.testing.assert_allclose(
        state.box, BOX + np.tile(SPEED * frame, 2), atol=1e-3
    )
    assert state.detected == (frame == 0)


def test_a_hidden_object_keeps_its_number():
  detected = {frame: detect(frame) for frame in (0, 8)}
  _, lifecycle, shown = run(10, detected, hidden=range(3, 8))
  assert shown == [[1]] * 3 + [[]] * 5 + [[1]] * 2
  assert len(lifecycle.list_reported()) == 1


def test_objects_hidden_for_long_are_removed():
  source, lifecycle, _ = run(9, {0: detect(0)}, range(2, 9), max_hidden=3)
  assert source.removed == list(source.known)
  assert len(lifecycle.objects) == 1
  # A detection afterwards begins another object.
  detected = {frame: detect(frame) for frame in (0, 8)}
  _, lifecycle, shown = run(9, detected, range(2, 8), max_hidden=3)
  assert shown[8] == [2]


def test_one_detection_may_be_too_few():
  detected = {frame: detect(frame) for frame in (0, 2)}
  _, _, shown = run(4, detected, min_detections=2)
  assert shown == [[], [], [1], [1]]
