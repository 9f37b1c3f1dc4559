"""Padding changes no result, and few programs serve many videos."""

import itertools

import jax
import numpy as np
import pytest
from test_tracking import assert_same
from test_tracking import CONFIGS
from test_tracking import make_tracker

from tapjax import padding
from tapjax import parallel
from tapjax import tracking

pytestmark = pytest.mark.slow

CASES = [
    pytest.param('tapnet', marks=pytest.mark.xdist_group('tapnet')),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in CONFIGS
        if name != 'tapnet'
    ),
]


def make_case(tracker, num_frames, num_queries, seed=0):
  generator = np.random.default_rng(seed)
  height, width = tracker.functions.resolution
  frames = generator.integers(
      256, size=(num_frames, height, width, 3), dtype=np.uint8
  )
  points = generator.uniform(size=(num_queries, 3)) * (
      num_frames - 1,
      height,
      width,
  )
  points[:, 0] = np.round(points[:, 0])
  return frames, points.astype(np.float32)


def track(tracker, cases, num_frames, devices):
  mesh = parallel.make_mesh(devices)
  return padding.track_padded(
      tracker.functions,
      parallel.replicate(mesh, tracker.params),
      [padding.pad_video(*case, num_frames) for case in cases],
      mesh,
  )


@pytest.mark.parametrize('name', CASES)
def test_padding_changes_nothing(name, monkeypatch):
  """Against the plain call, for videos shorter and longer than a window."""
  monkeypatch.setattr(padding, 'QUERY_CAPACITY', 16)
  tracker = make_tracker(name)
  size = tracker.functions.resolution
  cases = [
      make_case(tracker, num_frames, num_queries, num_frames)
      for num_frames, num_queries in ((1, 1), (9, 3), (14, 9))
  ]
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
      lambda event, _, **__: compiled.append(event)
      if event.endswith('backend_compile_duration')
      else None
  )
  # Three videos on four devices: one of them is idle.
  together = track(tracker, cases, 15, jax.devices()[:4])
  count = len(compiled)
  for (frames, points), padded in zip(cases, together, strict=True):
    video = tracking.PreparedVideo(frames / np.float32(127.5) - 1, size)
    plain = tracker.track_video(video, points)
    assert_same(padded, plain)
    np.testing.assert_array_equal(padded.visible, plain.visible)
  again = make_case(tracker, 12, 8)
  del compiled[:]
  track(tracker, [again], 15, jax.devices()[:4])
  assert not compiled
  assert count <= 2  # The program, and copies of the parameters.


@pytest.mark.xdist_group('tapnet')
def test_devices_change_nothing(monkeypatch):
  monkeypatch.setattr(padding, 'QUERY_CAPACITY', 16)
  tracker = make_tracker('tapnet')
  cases = [make_case(tracker, 5, 3, seed) for seed in range(2)]
  (one,) = track(tracker, cases[1:], 6, jax.devices()[:1])
  _, two = track(tracker, cases, 6, jax.devices()[:2])
  for ours, theirs in zip(one, two, strict=True):
    np.testing.assert_array_equal(ours, theirs)


def list_all_lengths(lengths, most):
  """Every choice, the slow and obvious way."""
  distinct = sorted(set(lengths))
  for size in range(1, most + 1):
    for chosen in itertools.combinations(distinct, size):
      if chosen[-1] == distinct[-1]:
        yield chosen


def count_padded(lengths, chosen):
  return sum(min(c for c in chosen if c >= length) for length in lengths)


@pytest.mark.parametrize('seed', range(5))
def test_lengths_waste_least(seed):
  generator = np.random.default_rng(seed)
  lengths = generator.integers(3, 60, size=12).tolist()
  chosen = padding.choose_lengths(lengths, 3)
  assert len(chosen) <= 3
  best = min(
      count_padded(lengths, other) for other in list_all_lengths(lengths, 3)
  )
  assert count_padded(lengths, chosen) == best


def test_few_lengths_are_kept():
  assert padding.choose_lengths([5, 9, 5]) == (5, 9)


def test_too_long():
  frames = np.zeros((3, 8, 8, 3), np.uint8)
  with pytest.raises(ValueError, match='at least the 3 of the video; got 2'):
    padding.pad_video(frames, np.zeros((1, 3)), 2)


def test_trackers_that_take_no_padding():
  tracker = make_tracker('tapnet')
  functions = tracker.functions._replace(padded=None)
  mesh = parallel.make_mesh(jax.devices()[:1])
  case = padding.pad_video(*make_case(tracker, 2, 1), 3)
  with pytest.raises(ValueError, match='padded is None'):
    padding.track_padded(functions, tracker.params, [case], mesh)
