"""Padding changes no result, and few programs serve many videos."""

import dataclasses

import jax
import numpy as np
import pytest

import tapjax
from tapjax.models import arrows
from tapjax.tracking.options import Options
from tapjax.tracking.prepare import PreparedVideo
from tapjax.tracking.programs import Programs
from tapjax.tracking.track import track
from tests.support.small_trackers import assert_same
from tests.support.small_trackers import make_tracker
from tests.support.small_trackers import SETTINGS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

# What other trackers compile is checked outside of CI.
_OFTEN = ('tapir', 'taptrv2')
# Encoding and tracking.
_PROGRAMS_OF_A_SHAPE = 2


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


def make_whole_tracker(name):
  """A tracker that takes each video of these tests as one segment."""
  tracker = make_tracker(name)
  if name == 'pips_plus_plus':
    config = dataclasses.replace(tracker.config, window=16)
    functions = dataclasses.replace(tracker.functions, config=config)
    return dataclasses.replace(tracker, config=config, functions=functions)
  return dataclasses.replace(tracker, programs=Programs())


def track_padded(tracker, case, num_frames, devices):
  frames, points = case
  video = PreparedVideo(frames, tracker.functions.resolution)
  options = Options(padded_frames=num_frames, devices=tuple(devices))
  return track(
      tracker.functions,
      tracker.params,
      tracker.programs,
      video,
      points,
      options,
  )


def track_plainly(tracker, frames, points):
  """The five arrows, one after the other, without padding or chunks."""
  functions, params = tracker.functions, tracker.params

  @jax.jit
  def run(frames, points):
    points = points[None]
    features = arrows.encode_segment(functions, params, frames[None])
    queries = arrows.describe_queries(functions, params, features, points)
    return arrows.track_segment(
        functions, params, features, queries, points
    ).tracks

  return jax.tree.map(lambda array: np.asarray(array[0]), run(frames, points))


@pytest.mark.parametrize('name', SETTINGS)
def test_padding_changes_nothing(name):
  """Against the plain call, for videos shorter and longer than a window."""
  tracker = make_whole_tracker(name)
  cases = [
      make_case(tracker, num_frames, num_queries, num_frames)
      for num_frames, num_queries in (
          (14, 9),
          (tracker.functions.shortest_padded, 3),
      )
  ]
  devices = jax.devices()[:3]
  with tapjax.count_compilations() as compilations:
    padded = [track_padded(tracker, case, 15, devices) for case in cases]
  assert compilations.count == _PROGRAMS_OF_A_SHAPE
  for case, tracks in zip(cases, padded, strict=True):
    plain = track_plainly(tracker, *case)
    assert_same(tracks, plain)
    np.testing.assert_array_equal(tracks.visible, plain.visible)
  with tapjax.count_compilations() as compilations:
    track_padded(tracker, make_case(tracker, 12, 8), 15, devices)
  assert not compilations.count


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.heavy] * (name not in _OFTEN))
        for name in SETTINGS
    ],
)
def test_few_programs_serve_many_videos(name):
  """Of 20 lengths and numbers of queries, with an answer for each."""
  tracker = make_whole_tracker(name)
  generator = np.random.default_rng(0)
  lengths = [27, *generator.permutation(np.arange(8, 27)).tolist()]
  with tapjax.count_compilations() as compilations:
    for num_frames in lengths:
      num_queries = int(generator.integers(1, 40))
      case = make_case(tracker, num_frames, num_queries, num_frames)
      tracks = tracker.track(*case, devices=jax.devices()[:1])
      assert tracks.positions.shape == (num_queries, num_frames, 2)
  assert compilations.count <= 4 * _PROGRAMS_OF_A_SHAPE


@pytest.mark.parametrize('name', SETTINGS)
def test_devices_share_a_video(name):
  tracker = make_tracker(name)
  case = make_case(tracker, 11, 13)
  one, eight = (
      tracker.track(*case, devices=jax.devices()[:count]) for count in (1, 8)
  )
  assert_same(one, eight)


def test_nothing_is_compiled_after_a_warmup():
  tracker = make_whole_tracker('tapnet')
  tracker.warmup(12, 5)
  case = make_case(tracker, 9, 17)
  with tapjax.count_compilations() as compilations:
    tracker.track(*case)
  assert compilations.count == 0


def test_warmup_wants_a_video():
  with pytest.raises(ValueError, match='num_frames must be a whole number, at'):
    make_tracker('tapnet').warmup(0, 5)


def test_trackers_own_their_programs():
  """Programs of one tracker are not kept for, nor by, another."""
  tracker, other = (make_whole_tracker('tapnet') for _ in range(2))
  case = make_case(tracker, 5, 3)
  tracker.track(*case)
  with tapjax.count_compilations() as compilations:
    other.track(*case)
  assert compilations.count == _PROGRAMS_OF_A_SHAPE
  assert tracker == dataclasses.replace(tracker, programs=Programs())
