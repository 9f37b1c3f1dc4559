"""Files of sessions."""

import pickle

import jax
import numpy as np
import pytest

from tapjax import checkpoints
from tapjax import streaming
from tests.support.sessions import follow
from tests.support.sessions import make_frames
from tests.support.sessions import make_points
from tests.support.sessions import make_tracker


def store(session, folder):
  """Writes a session and reads it again."""
  tracker = make_tracker()
  path = folder / 'session.safetensors'
  streaming.write_session(path, session)
  return streaming.read_session(path, tracker.functions, tracker.params)


def test_saved_session_goes_on(tmp_path):
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(3)
  session, _ = follow(tracker.start(frames[0], points), frames[:2])
  again = store(session, tmp_path)
  _, expected = follow(session, frames[2:])
  _, resumed = follow(again, frames[2:])
  jax.tree.map(np.testing.assert_array_equal, resumed, expected)
  assert again.ids.tolist() == [0, 1, 2]


def test_sessions_are_pickled():
  tracker = make_tracker()
  frames = make_frames(2)
  session = tracker.start(frames[0], make_points(2))
  again = pickle.loads(pickle.dumps(session))
  _, tracks = tracker.step(session, frames[1])
  _, others = tracker.step(again, frames[1])
  np.testing.assert_array_equal(others.positions, tracks.positions)


def test_saved_session_knows_its_lost_points(tmp_path):
  tracker = make_tracker()
  frames, points = make_frames(1), make_points(2)
  session = tracker.start(frames[0], points)
  _, tracks = tracker.step(session, frames[0])
  threshold = float(tracks.confidence.mean())
  rule = streaming.LostRule(threshold, lost_after=1, found_after=1)
  session, tracks = tracker.step(session, frames[0], rule)
  expected = tracks.confidence[:, 0] <= threshold
  assert expected.any()
  assert not expected.all()
  np.testing.assert_array_equal(store(session, tmp_path).lost, expected)


def test_names_in_files_stay(tmp_path):
  """Sessions that were written before can be read."""
  tracker = make_tracker()
  frame, points = make_frames(1)[0], make_points(2)
  path = tmp_path / 'session.safetensors'
  streaming.write_session(path, tracker.start(frame, points))
  arrays, _ = checkpoints.read_native(path)
  assert arrays.keys() == {
      '.memory.course.positions',
      '.memory.course.shown',
      '.memory.course.templates',
      '.memory.course.velocities',
      '.memory.hidden',
      '.memory.inputs',
      '.num_added',
      '.queries[0].coarse',
      '.queries[0].fine',
      '.queries[0].stem_supports',
      '.queries[0].supports',
      '.slots',
      '.watch.lost',
      '.watch.streaks',
  }


def test_other_files(tmp_path):
  tracker = make_tracker()
  path = tmp_path / 'weights.safetensors'
  tracker.save(path)
  with pytest.raises(ValueError, match='must hold a session'):
    streaming.read_session(path, tracker.functions, tracker.params)
