"""PIPs++ by itself: half pixels, both directions of time, windows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.pips_plus_plus import functions as pips_plus_plus
from tapjax.tracker import Tracker
from tapjax.tracking import long_videos
from tests.support import golden

SMALL = pips_plus_plus.PipsPlusPlusConfig(
    resolution=(48, 64),
    channels=(8, 8, 8, 8),
    fused_channels=8,
    feature_channels=8,
    levels=2,
    radius=1,
    frequencies=2,
    block_channels=(8, 12),
    num_iterations=2,
    window=4,
)
pytestmark = pytest.mark.slow


@functools.cache
def make_tracker():
  functions = pips_plus_plus.make_functions(SMALL)
  params = golden.make_random_params(functions)
  return Tracker('pips_plus_plus', SMALL, functions, params)


def make_still_tracker():
  """A tracker whose network never moves anything."""
  tracker = make_tracker()
  weights = dict(tracker.params.weights)
  module = 'pips_plus_plus/~/update/~/output'
  weights[module] = jax.tree.map(jnp.zeros_like, weights[module])
  return dataclasses.replace(
      tracker, params=tracker.params._replace(weights=weights)
  )


def make_frames(num_frames, height=48, width=64):
  generator = np.random.default_rng(3)
  coarse = generator.integers(
      0, 256, (num_frames, height // 4, width // 4, 3), np.uint8
  )
  return coarse.repeat(4, axis=1).repeat(4, axis=2)


QUERIES = np.float32(
    [[0, 20.5, 16.5], [10, 0.5, 0.5], [4, 48, 64], [6.4, 3.25, 60]]
)


@pytest.mark.parametrize('size', [(48, 64), (96, 100)], ids=str)
def test_identity_video_keeps_the_queries(size):
  """To the edge and back, in both directions, every point stays in place."""
  frames = make_frames(1, *size).repeat(11, axis=0)
  points = QUERIES * np.float32([1, size[0] / 48, size[1] / 64])
  tracks = make_still_tracker().track(frames, points)
  expected = points[:, None, :0:-1].repeat(11, axis=1)
  np.testing.assert_allclose(tracks.positions, expected, atol=2e-4)


def test_cells_are_at_the_centers_of_pixels():
  """Pixel 8 i of a row, whose center is at 8 i + 0.5, is cell i."""
  tracker = make_tracker()
  functions, params = tracker.functions, tracker.params
  video = jnp.asarray(make_frames(2), jnp.float32)[None] / 127.5 - 1
  features = jax.jit(functions.encode_video)(params, video)
  assert features[0].shape == (1, 2, 6, 8, 8)
  points = jnp.asarray([[[1.0, 16.5, 40.5], [0.0, 0.5, 56.5]]])
  queries = functions.describe_queries(params, features, points)
  expected = [features[0][0, 1, 2, 5], features[0][0, 0, 0, 7]]
  np.testing.assert_allclose(queries.vectors[0], expected, atol=1e-6)

  # The middle of a patch is what lies under the point itself.
  grids = tuple(grid[0] for grid in features)
  correlation = pips_plus_plus.correlate_tracks(
      grids,
      jnp.asarray([[1], [0]]),
      jnp.asarray([[[5.0, 2.0]], [[7.0, 0.0]]]),
      queries.vectors[0][:, None, None],
      1,
  )
  patch = correlation[:, 0, :9].reshape(2, 3, 3)
  squares = jnp.sum(jnp.square(queries.vectors[0]), axis=-1) / 8**0.5
  np.testing.assert_allclose(patch[:, 1, 1], squares, rtol=1e-5)
  # Columns come first: the next one is to the right.
  right = features[0][0, 1, 2, 6] @ queries.vectors[0, 0] / 8**0.5
  np.testing.assert_allclose(patch[0, 2, 1], right, rtol=1e-4)


def test_back_in_time_is_forward_in_the_reversed_video():
  tracker = make_tracker()
  frames = make_frames(11)
  points = QUERIES.copy()
  points[:, 0] = [0, 10, 4, 6]
  tracks = tracker.track(frames, points)
  points[:, 0] = 10 - points[:, 0]
  backwards = tracker.track(frames[::-1], points)
  np.testing.assert_allclose(
      backwards.positions[:, ::-1], tracks.positions, atol=1e-3
  )
  assert np.ptp(tracks.positions, axis=1).min() > 0.1


def test_long_videos_in_pieces_equal_whole_ones():
  tracker = make_tracker()
  functions, params = tracker.functions, tracker.params
  frames = make_frames(11)
  pieces = tracker.track(frames, QUERIES)
  video = jnp.asarray(frames, jnp.float32)[None] / 127.5 - 1
  points = jnp.asarray(QUERIES)[None]

  @jax.jit
  def track(params, video, points):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, points)
    state = functions.initialize_tracks(params, features, queries, points)
    states, _ = functions.refine_tracks(params, features, queries, state)
    return functions.finalize_tracks(states)

  whole = track(params, video, points)
  np.testing.assert_allclose(whole.positions[0], pieces.positions, atol=5e-3)


def test_memory_does_not_grow_with_the_video(monkeypatch):
  """However long it is, features of two blocks are all that there is."""
  seen = []
  advance = long_videos._advance_chain

  def watch(functions, params, features, origin, progress):
    seen.append(jax.tree.map(lambda leaf: leaf.shape[1], features))
    return advance(functions, params, features, origin, progress)

  monkeypatch.setattr(long_videos, '_advance_chain', watch)
  make_still_tracker().track(make_frames(11), QUERIES)
  assert len(seen) == 4
  assert set(jax.tree.leaves(seen)) == {2 * SMALL.window}


def list_windows_slowly(num_frames, size):
  """The windows of a query on the first frame, as the published loop runs."""
  windows, start = [], 0
  while num_frames > 1:
    end = start + size
    if end > num_frames:
      start, end = max(start - (end - num_frames), 0), num_frames
    windows.append((start, end))
    if end >= num_frames:
      break
    start += size - 1
  return windows


@pytest.mark.parametrize(
    ('num_frames', 'size'), [(1, 2), (5, 2), (9, 5), (10, 3), (17, 5), (4, 6)]
)
def test_windows_are_those_of_the_published_loop(num_frames, size):
  config = dataclasses.replace(SMALL, window=size)
  frames = jnp.arange(num_frames)
  progress = pips_plus_plus._begin(
      config,
      num_frames,
      frames,
      jnp.zeros((num_frames, 1)),
      jnp.zeros((1, num_frames, num_frames, 2)),
  )
  find = jax.jit(
      lambda index: pips_plus_plus._find_window(
          progress._replace(next_window=jnp.full_like(frames, index))
      )
  )
  windows = [[] for _ in range(num_frames)]
  for index in range(2 * num_frames + 2):
    found = jax.tree.map(np.asarray, find(index))
    for row in np.flatnonzero(found.exists):
      start, step = int(found.start[row]), int(found.step[row])
      assert found.is_first[row] == (start == 0)
      windows[row].append((step, start, start + int(found.length[row])))
  for row, listed in enumerate(windows):
    expected = [
        (step, *window)
        for step, available in ((1, num_frames - row), (-1, row + 1))
        for window in list_windows_slowly(available, min(size, num_frames))
    ]
    assert listed == expected


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'channels': (8,)}, 'four entries'),
        ({'window': 1}, 'window must be at least 2'),
        ({'num_iterations': 0}, 'num_iterations must be at least 1'),
        ({'block_channels': (8, 4)}, 'never shrink'),
        ({'late_step': float('nan')}, 'finite'),
        ({'resolution': (8, 256)}, 'at least 16 with 2 levels'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    pips_plus_plus.make_functions(dataclasses.replace(SMALL, **settings))


def test_it_cannot_search():
  tracker = make_tracker()
  features = tuple(jnp.zeros((1, 2, *size, 8)) for size in ((6, 8), (3, 4)))
  queries = pips_plus_plus.QueryVectors(
      jnp.zeros((1, 1, 8)), jnp.zeros((1, 1), int)
  )
  with pytest.raises(ValueError, match='query_points must be given'):
    tracker.functions.initialize_tracks(tracker.params, features, queries, None)


@pytest.mark.parametrize(
    ('frames', 'queries', 'gigaflops'),
    [(1, 0, 11.18), (1, 1, 11.18 + 0.478)],
)
def test_operations_are_those_published(frames, queries, gigaflops):
  config = dataclasses.replace(
      pips_plus_plus.PIPS_PLUS_PLUS, resolution=(256, 256)
  )
  counted = pips_plus_plus.count_operations(config, frames, queries)
  assert counted / 1e9 == pytest.approx(gigaflops, rel=0.003)
