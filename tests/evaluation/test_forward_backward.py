import numpy as np
import pytest

from tapjax.evaluation.forward_backward import measure_forward_backward
from tapjax.types import Tracks

POINTS = np.array([[10.0, 20.0], [30.0, 5.0], [16.0, 16.0]])


def make_frames(num_frames):
  return np.zeros((num_frames, 40, 48, 3), np.uint8)


def make_track(steps, shown):
  """Moves points by the step of this call in each frame, as (x, y)."""
  calls = iter(steps)

  def track(frames, query_points):
    assert (query_points[:, 0] == 0).all()
    times = np.arange(len(frames))[None, :, None]
    moved = query_points[:, None, :0:-1] + times * np.array(next(calls))
    visible = np.ones(moved.shape[:2], bool)
    visible[: len(shown), -1] = shown[: len(moved)]
    return Tracks(moved, visible, None, None)

  return track


def test_error_is_how_far_a_point_misses_home():
  track = make_track([(2.0, 1.0), (-1.0, -1.0)], [True, True, True])
  errors = measure_forward_backward(track, make_frames(4), POINTS)
  assert errors == (3, 3, 3.0, 1.0)
  track = make_track([(2.0, 1.0), (0.0, -1.0)], [True, True, True])
  assert (
      measure_forward_backward(track, make_frames(4), POINTS).share_within == 0
  )


def test_points_that_do_not_arrive_do_not_count():
  # The second one leaves below, the third one is hidden.
  track = make_track([(0.0, 4.0), (0.0, -4.0)], [True, True, False])
  errors = measure_forward_backward(track, make_frames(4), POINTS)
  assert errors == (3, 1, 0.0, 1.0)


def test_nothing_arrives():
  track = make_track([(0.0, 90.0)], [True, True, True])
  errors = measure_forward_backward(track, make_frames(4), POINTS)
  assert errors[:2] == (3, 0)
  assert np.isnan(errors[2:]).all()


def test_one_frame_has_no_way_back():
  with pytest.raises(ValueError, match='at least two; got 1'):
    measure_forward_backward(make_track([], []), make_frames(1), POINTS)
