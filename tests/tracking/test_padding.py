"""Padding changes no result, and few programs serve many videos."""

import dataclasses
import itertools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import tapjax
from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.models import registry
from tapjax.tracking import padding
from tests.tracking.test_whole_video import assert_same
from tests.tracking.test_whole_video import CONFIGS
from tests.tracking.test_whole_video import make_tracker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

CASES = [
    'tapnet',
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in CONFIGS
        if name != 'tapnet'
    ),
]


# What other trackers compile is checked outside of CI.
_OFTEN = ('tapir', 'taptrv2')


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
  sizes = padding.choose_sizes(tracker.functions, num_frames, 16)
  return padding.track_padded(
      tracker.functions,
      parallel.replicate(mesh, tracker.params),
      [padding.pad_video(*case, sizes) for case in cases],
      sizes,
      mesh,
  )


def track_plainly(tracker, frames, points):
  """The five arrows, one after the other, without padding or pieces."""
  functions, params = tracker.functions, tracker.params

  @jax.jit
  def run(frames, points):
    points = points[None]
    features = functions.encode_video(params, normalize_frames(frames)[None])
    queries = functions.describe_queries(params, features, points)
    state = functions.initialize_tracks(params, features, queries, points)
    states, _ = functions.refine_tracks(
        params, features, queries, state, query_points=points
    )
    return functions.finalize_tracks(states)

  return jax.tree.map(lambda array: np.asarray(array[0]), run(frames, points))


@pytest.mark.parametrize('name', CASES)
def test_padding_changes_nothing(name, monkeypatch):
  """Against the plain call, for videos shorter and longer than a window."""
  monkeypatch.setattr(padding, '_QUERY_CAPACITY', 16)
  tracker = make_tracker(name)
  cases = [
      make_case(tracker, num_frames, num_queries, num_frames)
      for num_frames, num_queries in (
          (tracker.functions.shortest_padded, 1),
          (14, 9),
      )
  ]
  # Two videos on three devices: one of them is idle.
  devices = jax.devices()[:3]
  with tapjax.count_compilations() as compilations:
    together = track(tracker, cases, 15, devices)
  assert compilations.count == 1
  for (frames, points), padded in zip(cases, together, strict=True):
    plain = track_plainly(tracker, frames, points)
    assert_same(padded, plain)
    np.testing.assert_array_equal(padded.visible, plain.visible)
  again = make_case(tracker, 12, 8)
  with tapjax.count_compilations() as compilations:
    track(tracker, [again], 15, devices)
  assert not compilations.count


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.heavy] * (name not in _OFTEN))
        for name in CONFIGS
    ],
)
def test_few_programs_serve_many_videos(name):
  """Of 20 lengths and numbers of queries, with an answer for each."""
  tracker = make_tracker(name)
  functions = tracker.functions._replace(chain=None)
  tracker = dataclasses.replace(tracker, functions=functions)
  generator = np.random.default_rng(0)
  lengths = [27, *generator.permutation(np.arange(8, 27)).tolist()]
  with tapjax.count_compilations() as compilations:
    for num_frames in lengths:
      num_queries = int(generator.integers(1, 40))
      case = make_case(tracker, num_frames, num_queries, num_frames)
      tracks = tracker.track(*case, devices=jax.devices()[:1])
      assert tracks.positions.shape == (num_queries, num_frames, 2)
  assert compilations.count <= 4


@pytest.mark.parametrize('name', CASES)
def test_devices_share_a_video(name):
  tracker = make_tracker(name)
  case = make_case(tracker, 11, 13)
  one, eight = (
      tracker.track(*case, devices=jax.devices()[:count]) for count in (1, 8)
  )
  assert_same(one, eight)


def test_nothing_is_compiled_after_a_warmup():
  tracker = make_tracker('tapnet')
  tracker.warmup(12, 5)
  case = make_case(tracker, 9, 17)
  with tapjax.count_compilations() as compilations:
    tracker.track(*case)
  assert compilations.count == 0


def test_warmup_wants_a_video():
  with pytest.raises(ValueError, match='num_frames must be at least 1; got 0'):
    make_tracker('tapnet').warmup(0, 5)


MEASURE = """
import sys, threading, time
import numpy as np
import tapjax

def read_memory():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * 4096

tracker = tapjax.load()
resolution = int(sys.argv[1]), int(sys.argv[1])
estimate = tracker.estimate_memory(160, 40, resolution)
frames = np.random.default_rng(0).integers(256, size=(160, *resolution, 3))
frames = frames.astype(np.uint8)
points = tapjax.sample_grid_points(resolution, 6)
peak = before = read_memory()
thread = threading.Thread(target=tracker.track, args=(frames, points))
thread.start()
while thread.is_alive():
  peak = max(peak, read_memory())
  time.sleep(0.005)
print(estimate, peak - before)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='no /proc')
@pytest.mark.parametrize(
    'side',
    [256, registry.get_preset(registry.DEFAULT).config.resolution[0]],
    ids=['resized', 'as-it-is'],
)
def test_estimate_of_memory(side):
  environment = {**os.environ, 'XLA_FLAGS': ''}
  answer = subprocess.run(
      [sys.executable, '-c', MEASURE, str(side)],
      check=True,
      capture_output=True,
      env=environment,
      text=True,
  )
  estimate, measured = map(int, answer.stdout.split())
  assert 0.75 < estimate / measured < 1.25


def test_devices_change_nothing(monkeypatch):
  monkeypatch.setattr(padding, '_QUERY_CAPACITY', 16)
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
  sizes = padding.Sizes(2, 8, 2, 8)
  with pytest.raises(ValueError, match='at least the 3 frames and 1 queries'):
    padding.pad_video(frames, np.zeros((1, 3)), sizes)
