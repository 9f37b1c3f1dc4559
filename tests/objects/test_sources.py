"""Points of a stream, of a tracker that moves them to the right."""

import types

import numpy as np

from tapjax.objects.sources import StreamedPoints
from tapjax.tracker import Tracker

FRAME = np.zeros((32, 48, 3), np.uint8)


class MovingTracker(Tracker):
  """Moves points by 3 pixels per frame; every other one is hidden."""

  def __init__(self):
    pass

  def start(self, frame, points_yx):
    return self.add(
        types.SimpleNamespace(
            ids=np.zeros(0, int), num_added=0, places=np.zeros((0, 2))
        ),
        frame,
        points_yx,
    )

  def add(self, session, frame, points_yx):
    count = len(points_yx)
    new = np.arange(session.num_added, session.num_added + count)
    return types.SimpleNamespace(
        ids=np.concatenate([session.ids, new]),
        num_added=session.num_added + count,
        places=np.concatenate([session.places, points_yx[:, ::-1]]),
    )

  def step(self, session, frame):
    session.places = session.places + np.asarray([3, 0])
    return session, types.SimpleNamespace(
        positions=session.places[:, None], visible=session.ids[:, None] % 2 == 0
    )

  def remove(self, session, ids):
    kept = ~np.isin(session.ids, ids)
    session.ids, session.places = session.ids[kept], session.places[kept]
    return session


def test_points_are_read_where_the_tracker_moves_them():
  points = StreamedPoints(MovingTracker())
  points.step(FRAME)
  first = points.add(np.float32([[5, 9], [7, 2]]))
  points.step(FRAME)
  second = points.add(np.float32([[20, 20]]))
  assert [*first, *second] == [0, 1, 2]
  points.step(FRAME)
  reading = points.read(np.asarray([2, 0, 1]), 2)
  np.testing.assert_allclose(reading.positions, [[23, 20], [11, 9], [13, 2]])
  np.testing.assert_array_equal(reading.visible, [True, True, False])
  assert points.get_first_frame() == 2


def test_new_points_are_visible_at_once_where_they_were_put():
  points = StreamedPoints(MovingTracker())
  points.step(FRAME)
  numbers = points.add(np.float32([[5, 9], [7, 2]]))
  reading = points.read(numbers, 0)
  np.testing.assert_allclose(reading.positions, [[5, 9], [7, 2]])
  assert reading.visible.all()


def test_numbers_of_removed_points_are_not_given_again():
  points = StreamedPoints(MovingTracker())
  points.step(FRAME)
  numbers = points.add(np.float32([[5, 9], [7, 2]]))
  points.remove(numbers)
  points.step(FRAME)
  assert points.add(np.float32([[1, 1]])).tolist() == [2]
