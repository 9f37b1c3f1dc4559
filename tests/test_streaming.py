"""Frame by frame: as whole videos, without knowing what comes."""

import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax import streaming
from tapjax.geometry import normalize_frames
from tapjax.models import tapir

CONFIG = tapir.TapirConfig(
    resolution=(32, 40),
    initial_resolution=(32, 40),
    channels=(4, 6, 8, 8),
    pooled_levels=1,
    num_iterations=2,
    mixer_blocks=2,
    mixer_channels=8,
    template_weight=1.0,
    motion_weight=2.0,
    temporal='past',
)
# One compiled program for a frame alone, another for a video.
ROUNDING = 2e-3


@functools.cache
def make_tracker():
  functions = tapir.make_functions(CONFIG)
  return tapjax.Tracker(
      'causal_tapir', CONFIG, functions, golden.make_random_params(functions)
  )


def make_frames(num_frames, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (num_frames, 32, 40, 3), dtype=np.uint8)


def make_points(num, seed=1):
  return np.random.default_rng(seed).uniform(2, 30, (num, 2))


def follow(session, frames):
  tracker = make_tracker()
  parts = []
  for frame in frames:
    session, tracks = tracker.step(session, frame)
    parts.append(tracks)
  joined = jax.tree.map(lambda *a: np.concatenate(a, axis=1), *parts)
  return session, joined


def assert_close(ours, theirs):
  for mine, other in zip(ours, theirs, strict=True):
    if mine.dtype == bool:
      continue  # As the logits, but for those next to the threshold.
    np.testing.assert_allclose(mine, other, atol=ROUNDING)


@pytest.mark.slow
def test_frames_one_by_one_are_the_whole_video():
  tracker = make_tracker()
  functions, params = tracker.functions, tracker.params
  frames, points = make_frames(6), make_points(3)
  _, tracks = follow(tracker.start(frames[0], points), frames)

  @jax.jit
  def track(video, query_points):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, query_points)
    # A session is not told on which frame a query is.
    state = functions.initialize_tracks(params, features, queries, None)
    states, _ = functions.refine_tracks(params, features, queries, state)
    return functions.finalize_tracks(states)

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


def test_saved_session_goes_on(tmp_path):
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(3)
  session, _ = follow(tracker.start(frames[0], points), frames[:2])
  streaming.write_session(tmp_path / 'session.safetensors', session)
  again = streaming.read_session(
      tmp_path / 'session.safetensors', tracker.functions, tracker.params
  )
  _, expected = follow(session, frames[2:])
  _, resumed = follow(again, frames[2:])
  jax.tree.map(np.testing.assert_array_equal, resumed, expected)
  assert again.ids.tolist() == [0, 1, 2]


@pytest.mark.slow
def test_forgetting_is_as_starting_over():
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(3)
  session, _ = follow(tracker.start(frames[0], points), frames[:2])
  _, after = follow(streaming.forget(session), frames[2:])
  _, fresh = follow(tracker.start(frames[0], points), frames[2:])
  assert_close(after, fresh)


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
  rule = streaming.LostRule(lost_after=2, found_after=2)
  watch = streaming.Watch(np.zeros(2, np.int32), np.array([False, False]))
  history = ''
  for letter in seen:
    # The second point is always seen.
    watch = streaming.update_watch(watch, np.array([letter == '1', True]), rule)
    history += str(int(watch.lost[0]))
    assert not watch.lost[1]
  assert history == lost


def test_sessions_tell_which_points_are_lost(tmp_path):
  tracker = make_tracker()
  frames, points = make_frames(4), make_points(3)
  session = tracker.start(frames[0], points[:2])
  _, tracks = tracker.step(session, frames[0])
  threshold = float(tracks.confidence.mean())
  rule = streaming.LostRule(threshold, lost_after=1, found_after=1)
  session, tracks = tracker.step(session, frames[0], rule)
  expected = tracks.confidence[:, 0] <= threshold
  assert expected.any()
  assert not expected.all()
  np.testing.assert_array_equal(session.lost, expected)
  streaming.write_session(tmp_path / 'session.safetensors', session)
  again = streaming.read_session(
      tmp_path / 'session.safetensors', tracker.functions, tracker.params
  )
  np.testing.assert_array_equal(again.lost, expected)
  # A point in the slot of another begins anew.
  worst = int(np.flatnonzero(expected)[0])
  session = tracker.remove(session, session.ids[worst : worst + 1])
  session = tracker.add(session, frames[1], points[2:])
  assert session.lost.tolist() == [bool(expected[1 - worst]), False]
  with pytest.raises(ValueError, match='at least one frame'):
    tracker.step(session, frames[0], rule._replace(lost_after=0))
  with pytest.raises(ValueError, match='less than 1; got 1'):
    tracker.step(session, frames[0], rule._replace(threshold=1.0))


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
  with pytest.raises(ValueError, match='point 1 is NaN on all'):
    tracker.start(frames[:1], np.where([[[0], [1]]], np.nan, points[:1]))
  with pytest.raises(ValueError, match=r'got \[2, 2, 2\] for 3 frames'):
    streaming.check_views(frames, points)


def test_no_points_are_no_tracks():
  tracker = make_tracker()
  frames = make_frames(1)
  session, tracks = tracker.step(
      tracker.start(frames[0], np.zeros((0, 2))), frames[0]
  )
  assert tracks.positions.shape == (0, 1, 2)
  assert session.ids.tolist() == []


def test_bad_input(tmp_path):
  tracker = make_tracker()
  frames, points = make_frames(1), make_points(2)
  session = tracker.start(frames[0], points)
  with pytest.raises(ValueError, match=r'must be \[n, 2\]'):
    streaming.check_points(frames[0], np.zeros((2, 3)))
  with pytest.raises(ValueError, match='40'):
    tracker.start(frames[0], np.array([[0.0, 41.0]]))
  with pytest.raises(ValueError, match='must be uint8'):
    streaming.check_points(frames[0].astype(np.float32), points)
  assert streaming.check_points(frames[0], []).shape == (0, 3)
  with pytest.raises(ValueError, match=r'among those .*\[0, 1\]; got \[7\]'):
    tracker.remove(session, [7])
  both = tapir.make_functions(tapir.TAPIR)
  with pytest.raises(ValueError, match='sees only the past'):
    streaming.start(both, tracker.params, frames[0], points)
  path = tmp_path / 'weights.safetensors'
  tracker.save(path)
  with pytest.raises(ValueError, match='must hold a session'):
    streaming.read_session(path, tracker.functions, tracker.params)
