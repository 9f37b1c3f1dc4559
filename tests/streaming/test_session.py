"""Frame by frame: as whole videos, without knowing what comes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import streaming
from tapjax.geometry import normalize_frames
from tapjax.models import arrows
from tapjax.models.tapir.config import TAPIR
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.streaming import session as sessions
from tests.support.sessions import assert_close
from tests.support.sessions import follow
from tests.support.sessions import make_frames
from tests.support.sessions import make_points
from tests.support.sessions import make_tracker


def test_frames_one_by_one_are_the_whole_video():
  tracker = make_tracker()
  functions, params = tracker.functions, tracker.params
  frames, points = make_frames(6), make_points(3)
  _, tracks = follow(tracker.start(frames[0], points), frames)

  @jax.jit
  def track(video, query_points):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, query_points)
    # A session does not know on which frame a query is.
    return arrows.track_segment(
        functions, params, features, queries, None
    ).tracks

  queries = np.concatenate([np.zeros((3, 1)), points], axis=1)
  whole = track(
      normalize_frames(jnp.asarray(frames))[None], jnp.float32(queries)[None]
  )
  assert tracks.positions.shape == (3, 6, 2)
  assert_close(tracks, jax.tree.map(lambda array: np.asarray(array[0]), whole))


def test_the_future_never_changes_the_past():
  tracker = make_tracker()
  frames, points = make_frames(6), make_points(3)
  other = np.concatenate([frames[:3], make_frames(3, seed=9)])
  _, tracks = follow(tracker.start(frames[0], points), frames)
  _, changed = follow(tracker.start(frames[0], points), other)
  for ours, theirs in zip(tracks, changed, strict=True):
    np.testing.assert_array_equal(ours[:, :3], theirs[:, :3])
    assert not np.array_equal(ours[:, 3:], theirs[:, 3:]) or ours.dtype == bool


def test_points_come_and_go():
  """Each is tracked as in a session of its own that starts on its frame."""
  tracker = make_tracker()
  frames, points = make_frames(7), make_points(5)
  session = tracker.start(frames[0], points[:2])
  session, _ = follow(session, frames[:2])
  session = tracker.add(session, frames[2], points[2:4])
  assert session.ids.tolist() == [0, 1, 2, 3]
  session, first = follow(session, frames[2:4])
  session = tracker.remove(session, [0, 2])
  assert session.ids.tolist() == [1, 3]
  # Takes a slot that was used before.
  session = tracker.add(session, frames[4], points[4:])
  session, last = follow(session, frames[4:])
  assert session.ids.tolist() == [1, 3, 4]

  _, alone = follow(tracker.start(frames[2], points[2:4]), frames[2:])
  assert_close(
      jax.tree.map(lambda array: array[2:], first),
      jax.tree.map(lambda array: array[:, :2], alone),
  )
  assert_close(
      jax.tree.map(lambda array: array[1:2], last),
      jax.tree.map(lambda array: array[1:, 2:], alone),
  )
  _, alone = follow(tracker.start(frames[4], points[4:]), frames[4:])
  assert_close(jax.tree.map(lambda array: array[2:], last), alone)


@pytest.mark.slow
def test_slots_grow_and_change_nothing():
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(9)
  session, before = follow(tracker.start(frames[0], points[:3]), frames[:2])
  assert len(session.slots) == 8
  session = tracker.add(session, frames[2], points[3:])
  assert len(session.slots) == 16
  _, after = follow(session, frames[2:])
  _, whole = follow(tracker.start(frames[0], points[:3]), frames)
  assert_close(
      jax.tree.map(lambda array: array[:3], after),
      [array[:, 2:] for array in whole],
  )
  assert after.positions.shape == (9, 2, 2)
  assert before.positions.shape == (3, 2, 2)


@pytest.mark.slow
def test_nothing_is_compiled_while_points_come_and_go():
  tracker = make_tracker()
  frames, points = make_frames(3), make_points(4)
  session = tracker.start(frames[0], points[:1])
  session, _ = tracker.step(session, frames[0])
  session = tracker.add(session, frames[0], points[1:2])
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda event, seconds, **_: compiled.append(event)
      if event.endswith('backend_compile_duration')
      else None
  )
  for frame in frames:
    session = tracker.add(session, frame, points)
    session, _ = tracker.step(session, frame)
    session = tracker.remove(session, session.ids[-3:])
  assert not compiled


@pytest.mark.slow
def test_frames_of_any_size():
  """Points come in pixels of their picture and leave in those of the frame."""
  tracker = make_tracker()
  gray = np.full((64, 80, 3), 99, np.uint8)
  session = tracker.start(gray, np.array([[60.0, 70.0]]))
  _, small = tracker.step(session, gray[:32, :40])
  _, large = tracker.step(session, gray)
  np.testing.assert_allclose(large.positions, 2 * small.positions, rtol=1e-4)


@pytest.mark.slow
def test_forgetting_is_as_starting_over():
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(3)
  session, _ = follow(tracker.start(frames[0], points), frames[:2])
  _, after = follow(streaming.forget(session), frames[2:])
  _, fresh = follow(tracker.start(frames[0], points), frames[2:])
  assert_close(after, fresh)


def test_no_points_are_no_tracks():
  tracker = make_tracker()
  frames = make_frames(1)
  session, tracks = tracker.step(
      tracker.start(frames[0], np.zeros((0, 2))), frames[0]
  )
  assert tracks.positions.shape == (0, 1, 2)
  assert session.ids.tolist() == []


def test_bad_input():
  tracker = make_tracker()
  frames, points = make_frames(1), make_points(2)
  session = tracker.start(frames[0], points)
  with pytest.raises(ValueError, match=r'among those .*\[0, 1\]; got \[7\]'):
    tracker.remove(session, [7])
  with pytest.raises(ValueError, match='among those'):
    tracker.remove(session, [2**40])
  for ids in ([True, False], [0.5], [[0, 1]]):
    with pytest.raises(ValueError, match=r'ids must be whole numbers \[n\]'):
      sessions.remove(session, np.asarray(ids))
  both = TapirFunctions(TAPIR)
  with pytest.raises(ValueError, match='sees only the past'):
    sessions.start(both, tracker.params, frames[0], points)


def test_sessions_of_other_trackers_are_refused():
  tracker = make_tracker()
  session = tracker.start(make_frames(1)[0], make_points(1))
  config = dataclasses.replace(tracker.config, channels=(4, 6, 8, 16))
  functions = type(tracker.functions)(config)
  frame = make_frames(1)[0]
  with pytest.raises(ValueError, match='session must be of this tracker'):
    sessions.step(functions, tracker.params, session, frame)
  for wrong in (None, frame, (session, 'tracks')):
    with pytest.raises(ValueError, match='session must be what start returned'):
      sessions._check_session(tracker.functions, tracker.params, wrong)
