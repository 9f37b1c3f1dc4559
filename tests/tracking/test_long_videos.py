"""Videos longer than what is held of them, and the memory that this takes."""

import warnings

import jax
import numpy as np
import pytest

from tapjax import parallel
from tapjax.tracking import checks
from tapjax.tracking import long_videos
from tapjax.tracking import whole_video
from tests.tracking.test_whole_video import assert_same
from tests.tracking.test_whole_video import make_tracker
from tests.tracking.test_whole_video import make_video

pytestmark = pytest.mark.usefixtures('quick_compilation')

# (t, y, x), on the borders of windows and between two frames.
POINTS = np.asarray(
    [[0, 10.5, 20], [7, 30, 50], [7.5, 5, 5], [16, 40, 60], [29, 12, 70]],
    np.float32,
)
NUM_FRAMES = 30


def make_long_video(num_frames, *size):
  """There and back again."""
  return make_video(11, *size)[np.abs((np.arange(num_frames) + 10) % 20 - 10)]


def track_in_windows(tracker, frames, points, window, **settings):
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    tracks = tracker.track(frames, points, window=window, **settings)
  assert bool(caught) != long_videos.is_exact(tracker.functions)
  return tracks


def cut(tracks, where):
  return jax.tree.map(lambda array: array[where], tracks)


@pytest.mark.parametrize('overlap', [0, 1, 4, 7])
@pytest.mark.parametrize('num_frames', [1, 2, 7, 8, 9, 16, 23, 24])
def test_windows_take_every_frame_once(num_frames, overlap):
  windows = long_videos.list_windows(num_frames, 8, overlap)
  taken = [i for window in windows for i in range(window.first, window.stop)]
  assert taken == list(range(num_frames))
  for start, first, stop in windows:
    assert first == 0 or first - start >= overlap // 2
    assert stop == num_frames or start + 8 - stop >= overlap // 2
    assert 0 <= start <= first < stop <= start + 8
    # Windows are only padded where there is nothing else to show.
    assert start + 8 <= num_frames or num_frames < 8 or not overlap


@pytest.mark.parametrize(
    ('text', 'expected'),
    [('4GB', 4 * 10**9), ('1.5 MB', 1_500_000), ('2GiB', 2**31), ('9B', 9)],
)
def test_memory_is_read(text, expected):
  assert checks.check_memory(text) == expected


@pytest.mark.parametrize('memory', ['4', 'GB', '4 gb', '-1MB', 0, 1.5, None])
def test_what_is_no_memory(memory):
  with pytest.raises(ValueError, match='max_memory must be a number of bytes'):
    checks.check_memory(memory)


def test_frames_on_disk_are_those_in_memory():
  tracker = make_tracker('tapnet')
  for frames in (make_video(11, 48, 72), make_video(11, 64, 64)):
    kept, stored = (
        tracker.prepare(whole_video.split_frames(frames), on_disk=on_disk)
        for on_disk in (False, True)
    )
    assert isinstance(stored.frames, np.memmap)
    assert stored.original == kept.original == frames.shape[1:3]
    assert stored.frames.dtype == kept.frames.dtype
    np.testing.assert_array_equal(stored.frames, kept.frames)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tapir_tiny', 'tapnet'])
@pytest.mark.parametrize('query_chunk', [None, 2])
def test_nothing_is_lost_between_windows(name, query_chunk):
  """What is remembered, or what needs no other frames, is as of the whole."""
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
  """Where it holds the query, it gives the tracks of these frames alone."""
  tracker = make_tracker(name)
  frames = make_long_video(NUM_FRAMES)
  through = track_in_windows(tracker, frames, POINTS, 12)
  for start, first, stop in long_videos.list_windows(NUM_FRAMES, 12, 6):
    times = POINTS[:, 0]
    held = np.flatnonzero((times >= start) & (times <= start + 11))
    points = POINTS[held] - np.asarray([start, 0, 0], np.float32)
    alone = tracker.track(frames[start : start + 12], points)
    assert_same(
        cut(through, (held, slice(first, stop))),
        cut(alone, (slice(None), slice(first - start, stop - start))),
    )


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'window'), [('tapir_tiny', 8), ('tapir', 12)])
@pytest.mark.parametrize('query_chunk', [None, 1])
def test_devices_share_windows(name, window, query_chunk):
  """Of a tracker that remembers, and of one whose windows overlap."""
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
def test_budget_decides():
  tracker = make_tracker('tapir_tiny')
  frames = make_long_video(64)
  size = frames.shape[1:3]
  needed = tracker.estimate_memory(64, len(POINTS), size)
  assert tracker.fit_window(64, len(POINTS), size, needed) is None
  window = tracker.fit_window(64, len(POINTS), size, needed // 4)
  assert 8 <= window < 64
  windows = long_videos.choose_windows(tracker.functions, window, len(POINTS))
  arguments = tracker.functions, tracker.params, windows
  mesh = parallel.make_mesh(jax.devices()[:1])
  taken = long_videos.estimate_memory(
      *arguments, 64, len(POINTS), np.dtype(np.float32), mesh
  )
  assert taken <= needed // 4
  # Of ten times as many frames nothing is held but the tracks.
  longer = long_videos.estimate_memory(
      *arguments, 640, len(POINTS), np.dtype(np.float32), mesh
  )
  assert longer - taken < 50 * 576 * len(POINTS)
  assert_same(
      tracker.track(frames, POINTS, max_memory=needed // 4),
      tracker.track(frames, POINTS),
  )
  with pytest.raises(ValueError, match=r'max_memory must be at least \d+ MB'):
    tracker.track(frames, POINTS, max_memory='100kB')


@pytest.mark.slow
@pytest.mark.parametrize('name', ['taptrv2', 'pips_plus_plus'])
def test_trackers_without_windows(name):
  tracker = make_tracker(name)
  frames = make_long_video(NUM_FRAMES)
  with pytest.raises(ValueError, match='window must be None'):
    tracker.track(frames, POINTS, window=8)
  with pytest.raises(
      ValueError, match=r'max_memory must be at least \d+ MB for this'
  ):
    tracker.track(frames, POINTS, max_memory='1MB')
  assert_same(
      tracker.track(frames, POINTS, max_memory='8GB'),
      tracker.track(frames, POINTS),
  )


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
