"""PIPs++ by itself: half pixels, both directions of time, segments."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.geometry import normalize_frames
from tapjax.models import arrows
from tapjax.models.pips_plus_plus.correlation import correlate_tracks
from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tapjax.models.pips_plus_plus.functions import QueryVectors
from tapjax.tracker import Tracker
from tests.support import golden
from tests.support import narrow

pytestmark = pytest.mark.slow


@functools.cache
def make_tracker(window=4):
  config = dataclasses.replace(narrow.PIPS_PLUS_PLUS, window=window)
  functions = PipsPlusPlusFunctions(config)
  return functions, golden.make_random_params(functions)


def make_still_tracker():
  """A tracker whose network never moves anything."""
  functions, params = make_tracker()
  weights = dict(params.params)
  module = 'pips_plus_plus/~/update/~/output'
  weights[module] = jax.tree.map(jnp.zeros_like, weights[module])
  return functions, params._replace(params=weights)


def make_frames(num_frames, height=48, width=64):
  generator = np.random.default_rng(3)
  coarse = generator.integers(
      0, 256, (num_frames, height // 4, width // 4, 3), np.uint8
  )
  return coarse.repeat(4, axis=1).repeat(4, axis=2)


QUERIES = np.float32(
    [[0, 20.5, 16.5], [10, 0.5, 0.5], [4, 48, 64], [6.4, 3.25, 60]]
)


def run_segments(functions, params, frames, points):
  """Tracks points [b, n, 3] of one video, segment after segment."""

  @jax.jit
  def track(params, video, points, memory):
    features = jax.tree.map(
        lambda grid: jnp.repeat(grid, len(points), axis=0),
        functions.encode_video(params, video),
    )
    queries = functions.describe_queries(params, features, points)
    segment = arrows.track_segment(
        functions, params, features, queries, points, memory
    )
    return segment.tracks.positions, segment.memory

  video = np.asarray(normalize_frames(frames))
  times = np.round(points[..., 0]).astype(int).reshape(-1)
  segments = functions.list_segments(len(frames), times)
  assert segments.carries_memory
  memory = functions.begin(
      jnp.asarray(points),
      np.asarray(len(frames), np.int32),
      segments.capacity,
  )
  positions = np.zeros((*points.shape[:2], len(frames), 2), np.float32)
  for segment in segments.tracked:
    start, stop = segment.start, segment.stop
    part = np.zeros((segments.length, *video.shape[1:]), np.float32)
    part[: stop - start] = video[start:stop]
    shifted = points - np.float32([start, 0, 0])
    answer, memory = track(params, part[None], shifted, memory)
    positions[:, :, start:stop] = answer[:, :, : stop - start]
  return positions


def track_segments(functions, params, frames, points):
  return run_segments(functions, params, frames, points[None])[0]


@pytest.mark.parametrize('size', [(48, 64), (96, 100)], ids=str)
def test_identity_video_keeps_the_queries(size):
  """To the edge and back, in both directions, every point stays in place."""
  frames = make_frames(1, *size).repeat(11, axis=0)
  points = QUERIES * np.float32([1, size[0] / 48, size[1] / 64])
  functions, params = make_still_tracker()
  tracker = Tracker('pips_plus_plus', functions.config, functions, params)
  tracks = tracker.track(frames, points)
  expected = points[:, None, :0:-1].repeat(11, axis=1)
  np.testing.assert_allclose(tracks.positions, expected, atol=2e-4)


def test_cells_are_at_the_centers_of_pixels():
  """Pixel 8 i of a row, whose center is at 8 i + 0.5, is cell i."""
  functions, params = make_tracker()
  video = jnp.asarray(make_frames(2), jnp.float32)[None] / 127.5 - 1
  features = jax.jit(functions.encode_video)(params, video)
  assert features[0].shape == (1, 2, 6, 8, 8)
  points = jnp.asarray([[[1.0, 16.5, 40.5], [0.0, 0.5, 56.5]]])
  queries = functions.describe_queries(params, features, points)
  expected = [features[0][0, 1, 2, 5], features[0][0, 0, 0, 7]]
  np.testing.assert_allclose(queries.vectors[0], expected, atol=1e-6)

  # The middle of a patch is what lies under the point itself.
  grids = tuple(grid[0] for grid in features)
  correlation = correlate_tracks(
      grids,
      jnp.asarray([[1], [0]]),
      jnp.asarray([[[5.0, 2.0]], [[7.0, 0.0]]]),
      queries.vectors[0][:, None, None],
      1,
      'cpu',
  )
  patch = correlation[:, 0, :9].reshape(2, 3, 3)
  squares = jnp.sum(jnp.square(queries.vectors[0]), axis=-1) / 8**0.5
  np.testing.assert_allclose(patch[:, 1, 1], squares, rtol=1e-5)
  # Columns come first: the next one is to the right.
  right = features[0][0, 1, 2, 6] @ queries.vectors[0, 0] / 8**0.5
  np.testing.assert_allclose(patch[0, 2, 1], right, rtol=1e-4)


def test_backward_in_time_is_forward_in_the_reversed_video():
  frames = make_frames(11)
  points = QUERIES.copy()
  points[:, 0] = [0, 10, 4, 6]
  positions = track_segments(*make_tracker(), frames, points)
  points[:, 0] = 10 - points[:, 0]
  reverse = track_segments(*make_tracker(), frames[::-1], points)
  np.testing.assert_allclose(reverse[:, ::-1], positions, atol=1e-3)
  assert np.ptp(positions, axis=1).min() > 0.1


@pytest.mark.parametrize('window', [4, 5])
@pytest.mark.parametrize('times', [(0, 10, 4, 6.4), (7.5, 2.5, 9.4999995, 12)])
def test_long_videos_in_segments_equal_whole_ones(window, times):
  """Also queries halfway between two frames, and windows of odd length."""
  functions, params = make_tracker(window)
  frames = make_frames(13)
  points = QUERIES.copy()
  points[:, 0] = times
  positions = track_segments(functions, params, frames, points)

  @jax.jit
  def track(params, video, points):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, points)
    return arrows.track_segment(functions, params, features, queries, points)

  whole = track(params, normalize_frames(frames)[None], points[None])
  assert whole.memory is None
  assert len(whole.states.positions) == functions.config.num_iterations + 1
  np.testing.assert_allclose(whole.tracks.positions[0], positions, atol=5e-3)


def test_a_batch_is_its_videos_one_by_one():
  functions, params = make_tracker()
  frames = make_frames(11)
  points = np.stack([QUERIES, QUERIES[::-1]])
  both = run_segments(functions, params, frames, points)
  for i in range(2):
    single = run_segments(functions, params, frames, points[i : i + 1])
    np.testing.assert_allclose(both[i], single[0], atol=1e-3)


def test_memory_does_not_grow_with_the_video():
  """However long it is, features of two blocks are all that there is."""
  functions, _ = make_tracker()
  segments = functions.list_segments(11, np.asarray([0, 10, 4, 6]))
  assert len(segments.tracked) == 4
  window = functions.config.window
  assert segments.length == 2 * segments.block == 2 * window
  for segment in segments.tracked:
    assert segment.stop - segment.start <= 2 * window


def test_a_window_by_the_caller_is_refused():
  functions, _ = make_tracker()
  with pytest.raises(ValueError, match='window must be None'):
    functions.list_segments(11, np.asarray([0]), window=8)


def test_equal_configs_share_programs():
  functions = PipsPlusPlusFunctions(narrow.PIPS_PLUS_PLUS)
  again = PipsPlusPlusFunctions(dataclasses.replace(narrow.PIPS_PLUS_PLUS))
  assert functions == again
  assert hash(functions) == hash(again)


def test_it_cannot_search():
  functions, params = make_tracker()
  features = tuple(jnp.zeros((1, 2, *size, 8)) for size in ((6, 8), (3, 4)))
  queries = QueryVectors(jnp.zeros((1, 1, 8)), jnp.zeros((1, 1), int))
  with pytest.raises(ValueError, match='query_points must be given'):
    functions.initialize_tracks(params, features, queries, None)
