"""Points with tails over the frames of a stream."""

import numpy as np

from tapjax.live import painting
from tapjax.live import recording


def make_rows(frame, x, *, lost=False):
  rows = np.zeros(1, recording.ROW)
  rows['frame'], rows['x'], rows['y'] = frame, x, 16
  rows['visible'], rows['lost'] = True, lost
  return rows


def find_painted(frame, drawn):
  return np.flatnonzero((frame != drawn).any(axis=(0, 2)))


def test_a_tail_follows_the_point():
  painter = painting.Painter()
  frame = np.full((32, 64, 3), 90, np.uint8)
  for index, x in enumerate((10, 20, 30)):
    drawn = painter.draw(frame, make_rows(index, x))
  columns = find_painted(frame, drawn)
  assert columns.min() < 12
  assert 30 <= columns.max() < 40


def test_lost_points_are_not_drawn():
  painter = painting.Painter()
  frame = np.full((32, 64, 3), 90, np.uint8)
  drawn = painter.draw(frame, make_rows(0, 20, lost=True))
  np.testing.assert_array_equal(drawn, frame)


def test_no_points_are_a_copy():
  painter = painting.Painter()
  frame = np.full((8, 8, 3), 90, np.uint8)
  drawn = painter.draw(frame, np.zeros(0, recording.ROW))
  np.testing.assert_array_equal(drawn, frame)
  assert not np.shares_memory(drawn, frame)
