"""Labels of points, on one frame or on several."""

import jax
import numpy as np
import pytest

from tapjax.streaming import labels as point_labels
from tests.support.sessions import assert_close
from tests.support.sessions import make_frames
from tests.support.sessions import make_points
from tests.support.sessions import make_tracker


@pytest.mark.slow
def test_labels_on_several_frames_are_averaged():
  tracker = make_tracker()
  frames, points = make_frames(3), make_points(4).reshape(2, 2, 2)
  labels = points.copy()
  labels[1, 0] = np.nan
  session = tracker.start(list(frames[:2]), labels)
  alone = [tracker.start(*pair) for pair in zip(frames, points, strict=False)]

  def check(ours, first, second):
    mean = np.stack([first[0, 0], (first[0, 1] + second[0, 1]) / 2])
    np.testing.assert_allclose(ours[0, :2], mean, atol=1e-6)

  jax.tree.map(check, session.queries, *(one.queries for one in alone))
  _, tracks = tracker.step(session, frames[2])
  _, first = tracker.step(alone[0], frames[2])
  assert_close([array[:1] for array in tracks], [array[:1] for array in first])
  # The same label twice is the label.
  session = tracker.add(alone[0], frames[[0, 0]], points[[0, 0]])
  _, tracks = tracker.step(session, frames[2])
  assert_close([array[:2] for array in tracks], [array[2:] for array in tracks])


def test_bad_labels_on_several_frames():
  tracker = make_tracker()
  frames, points = make_frames(3), make_points(4).reshape(2, 2, 2)
  with pytest.raises(ValueError, match='point 1 is NaN on all'):
    tracker.start(frames[:1], np.where([[[0], [1]]], np.nan, points[:1]))
  with pytest.raises(ValueError, match=r'got \[2, 2, 2\] for 3 frames'):
    point_labels.check_views(frames, points)


def test_bad_points():
  tracker = make_tracker()
  frames, points = make_frames(1), make_points(2)
  with pytest.raises(ValueError, match=r'must be \[n, 2\]'):
    point_labels.check_points(frames[0], np.zeros((2, 3)))
  with pytest.raises(ValueError, match='40'):
    tracker.start(frames[0], np.array([[0.0, 41.0]]))
  with pytest.raises(ValueError, match='must be uint8'):
    point_labels.check_points(frames[0].astype(np.float32), points)
  assert point_labels.check_points(frames[0], []).shape == (0, 3)


def test_frames_and_points_are_named_as_the_caller_knows_them():
  frame = make_frames(1)[0]
  for wrong in (None, 'frame.png', 3):
    with pytest.raises(
        ValueError, match=r'^frame must be a uint8 array \[h, w'
    ):
      point_labels.check_views(wrong, make_points(2))
  with pytest.raises(ValueError, match=r'^frame must be \[h, w, 3\]; got .32,'):
    point_labels.check_views(frame[..., 0], make_points(2))
  with pytest.raises(ValueError, match=r'^points_yx must be float \(y, x\)'):
    point_labels.check_views(frame, np.ones((2, 2), int))
  with pytest.raises(ValueError, match=r'^points_yx must be finite'):
    point_labels.check_views(frame, np.full((2, 2), np.nan))
  with pytest.raises(ValueError, match=r'as \(x, y\): pass points_yx\[:, ::-1'):
    point_labels.check_views(frame, np.float32([[3, 39], [2, 36]])[:, ::-1])


def test_shares_of_a_frame_are_recognized():
  frames = make_frames(2)
  shares = np.float32([[[0.5, 0.5], [0.25, 1]], [[20, 20], [0.2, 0.4]]])
  views = point_labels.check_views(frames, shares)
  with pytest.warns(UserWarning, match='all 2 points_yx lie in the first') as w:
    point_labels.warn_of_shares(views, 1)
  assert len(w) == 1
