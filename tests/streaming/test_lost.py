"""The rule by which points are lost and found."""

import numpy as np
import pytest

from tapjax.streaming import lost as lost_points
from tests.support.sessions import make_frames
from tests.support.sessions import make_points
from tests.support.sessions import make_tracker


@pytest.mark.parametrize(
    ('seen', 'lost'),
    [
        ('1111', '0000'),
        ('0101', '0000'),
        ('0011', '0110'),
        ('00011', '01110'),
        ('000101011', '011111110'),
    ],
)
def test_points_are_lost_and_found(seen, lost):
  rule = lost_points.LostRule(lost_after=2, found_after=2)
  state = lost_points.make_lost_state(2)
  assert state.streaks.dtype == np.int32
  np.testing.assert_array_equal(state.lost, [False, False])
  history = ''
  for letter in seen:
    # The second point is always seen.
    seen_now = np.array([letter == '1', True])
    state = lost_points.update_lost_state(state, seen_now, rule)
    history += str(int(state.lost[0]))
    assert not state.lost[1]
  assert history == lost


def test_rules_are_checked():
  tracker = make_tracker()
  frames, points = make_frames(1), make_points(2)
  session = tracker.start(frames[0], points)
  rule = lost_points.LostRule(lost_after=1, found_after=1)
  with pytest.raises(ValueError, match='at least one frame'):
    tracker.step(session, frames[0], rule._replace(lost_after=0))
  with pytest.raises(ValueError, match='less than 1; got 1'):
    tracker.step(session, frames[0], rule._replace(threshold=1.0))
  with pytest.raises(ValueError, match='rule must be a LostRule; got str'):
    lost_points.check_rule('25 frames')


def test_sessions_know_which_points_are_lost():
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(3)
  session = tracker.start(frames[0], points[:2])
  _, tracks = tracker.step(session, frames[0])
  threshold = float(tracks.confidence.mean())
  rule = lost_points.LostRule(threshold, lost_after=1, found_after=1)
  session, tracks = tracker.step(session, frames[0], rule)
  expected = tracks.confidence[:, 0] <= threshold
  assert expected.any()
  assert not expected.all()
  np.testing.assert_array_equal(session.lost, expected)
  # A point in the slot of another begins anew.
  worst = int(np.flatnonzero(expected)[0])
  session = tracker.remove(session, session.ids[worst : worst + 1])
  session = tracker.add(session, frames[1], points[2:])
  assert session.lost.tolist() == [bool(expected[1 - worst]), False]
