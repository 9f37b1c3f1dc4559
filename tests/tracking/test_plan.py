"""Plans: windows of a video, and tracks through them."""

import warnings

import jax
import numpy as np
import pytest

from tapjax.models.segments import cut_video
from tapjax.tracking.options import Options
from tapjax.tracking.plan import make_plan
from tests.support.small_trackers import assert_same
from tests.support.small_trackers import make_tracker
from tests.support.small_trackers import make_video

pytestmark = pytest.mark.usefixtures('quick_compilation')

# (t, y, x), on the borders of windows and between two frames.
POINTS = np.asarray(
    [[0, 10.5, 20], [7, 30, 50], [7.5, 5, 5], [16, 40, 60], [29, 12, 70]],
    np.float32,
)
NUM_FRAMES = 30


def make_long_video(num_frames, *size):
  """Forward, then back again."""
  return make_video(11, *size)[np.abs((np.arange(num_frames) + 10) % 20 - 10)]


def track_in_windows(tracker, frames, points, window, **settings):
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    tracks = tracker.track(frames, points, window=window, **settings)
  assert bool(caught) != tracker.functions.streams
  return tracks


def cut(tracks, where):
  return jax.tree.map(lambda array: array[where], tracks)


def test_a_program_serves_videos_of_half_its_length():
  functions = make_tracker('tapir').functions

  def plan(num_frames, known=()):
    return make_plan(
        functions, num_frames, POINTS[:1] * [0, 1, 1], Options(), known
    ).shape

  first = plan(20)
  assert first.num_frames == 20
  assert plan(11, [first]) == first
  assert plan(9, [first]).num_frames == 16
  assert plan(21, [first]).num_frames == 32


def test_queries_that_see_each_other_are_one_set():
  functions = make_tracker('taptrv2').functions
  devices = jax.devices()[:4]
  plan = make_plan(
      functions, 11, np.zeros((9, 3), np.float32), Options(devices=devices)
  )
  assert plan.shape.query_chunk == 9
  assert plan.queries_per_call == 36


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tapir_tiny', 'tapnet'])
@pytest.mark.parametrize('query_chunk', [None, 2])
def test_nothing_is_lost_between_windows(name, query_chunk):
  """With a memory, or without a need of other frames, as in the whole."""
  tracker = make_tracker(name)
  window = {'tapir_tiny': 8, 'tapnet': 28}[name]
  frames = make_long_video(2 * window + 20)
  whole = tracker.track(frames, POINTS)
  assert_same(
      track_in_windows(
          tracker, frames, POINTS, window, query_chunk=query_chunk
      ),
      whole,
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tapir', 'locotrack_efficientnet_b0_934'])
def test_a_window_is_a_video_of_its_own(name):
  """A window with the query has the tracks of these frames alone."""
  tracker = make_tracker(name)
  frames = make_long_video(NUM_FRAMES)
  through = track_in_windows(tracker, frames, POINTS, 12)
  for start, stop, first, end, _ in cut_video(NUM_FRAMES, 12, 6):
    times = POINTS[:, 0]
    held = np.flatnonzero((times >= start) & (times <= stop - 1))
    points = POINTS[held] - np.asarray([start, 0, 0], np.float32)
    alone = tracker.track(frames[start:stop], points)
    assert_same(
        cut(through, (held, slice(first, end))),
        cut(alone, (slice(None), slice(first - start, end - start))),
    )


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'window'), [('tapir_tiny', 8), ('tapir', 12)])
@pytest.mark.parametrize('query_chunk', [None, 1])
def test_devices_share_windows(name, window, query_chunk):
  """Of a tracker with a memory, and of one whose windows overlap."""
  tracker = make_tracker(name)
  frames = make_long_video(NUM_FRAMES)
  one, four = (
      track_in_windows(
          tracker,
          frames,
          POINTS,
          window,
          query_chunk=query_chunk,
          devices=jax.devices()[:number],
      )
      for number in (1, 4)
  )
  assert_same(four, one)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['taptrv2', 'pips_plus_plus'])
def test_trackers_without_windows(name):
  tracker = make_tracker(name)
  with pytest.raises(ValueError, match='window must be None'):
    tracker.track(make_long_video(NUM_FRAMES), POINTS, window=8)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'window': 0}, 'window must be a whole number above 0; got 0'),
        ({'window': 7}, 'window must be at least 24; got 7'),
        ({'max_memory': 'much'}, 'max_memory must be a number of bytes'),
    ],
)
def test_bad_windows(settings, message):
  with pytest.raises(ValueError, match=message):
    make_tracker('tapnet').track(make_video(), POINTS[:1], **settings)
