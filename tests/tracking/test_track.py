"""Properties of whole-video tracking that hold for every tracker."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.models import arrows
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.tracker import Tracker
from tests.support import golden
from tests.support.small_trackers import assert_same
from tests.support.small_trackers import make_config
from tests.support.small_trackers import make_tracker
from tests.support.small_trackers import make_video
from tests.support.small_trackers import SETTINGS

pytestmark = pytest.mark.usefixtures('quick_compilation')

# Those that are compiled soon enough for the default run.
QUICK = ('tapnet',)


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name in SETTINGS
    ]
)
def tracker(request):
  return make_tracker(request.param)


QUERIES = np.asarray(
    [
        [0, 10.5, 20.5],
        [3, 47.9, 0.1],
        [10, 0, 72],
        [5.5, 30, 40],
        [7, 24, 60.25],
    ],
    np.float32,
)


def test_shapes_and_types(tracker):
  frames = make_video()
  tracks = tracker.track(frames, QUERIES)
  assert isinstance(tracks, tapjax.Tracks)
  assert tracks.positions.shape == (5, 11, 2)
  assert tracks.positions.dtype == np.float32
  assert tracks.visible.dtype == bool
  assert all(
      isinstance(array, np.ndarray) for array in tracks if array is not None
  )
  assert np.isfinite(tracks.positions).all()


@pytest.mark.parametrize(
    'chunks',
    [
        {'query_chunk': 1, 'frame_chunk': 3},
        {'query_chunk': 2, 'frame_chunk': 1000},
    ],
    ids=str,
)
def test_chunks_change_nothing(tracker, chunks):
  frames = make_video()
  if not tracker.functions.queries_independent:
    chunks = {**chunks, 'query_chunk': None}
  assert_same(
      tracker.track(frames, QUERIES, **chunks), tracker.track(frames, QUERIES)
  )


@pytest.mark.slow
def test_chunks_of_dependent_queries_are_sets_of_their_own():
  tracker = make_tracker('taptrv2')
  frames = make_video()
  reports = []
  chunked = tracker.track(
      frames,
      QUERIES[:2],
      query_chunk=1,
      report=lambda *report: reports.append(report),
  )
  for rows in (slice(0, 1), slice(1, 2)):
    alone = tracker.track(frames, QUERIES[rows])
    assert_same(
        alone, tapjax.Tracks(*(a if a is None else a[rows] for a in chunked))
    )
  tracked = [report[1:] for report in reports if report[0] == 'track']
  assert tracked == [(0, 2), (1, 2), (2, 2)]


def test_queries_do_not_see_each_other(tracker):
  frames = make_video()
  together = tracker.track(frames, QUERIES)
  order = [3, 0, 4, 1, 2]
  permuted = tracker.track(frames, QUERIES[order])
  assert_same(
      permuted, tapjax.Tracks(*(a if a is None else a[order] for a in together))
  )
  if not tracker.functions.queries_independent:
    # They do, so that whatever is asked together is tracked together.
    same_frame = QUERIES[:3] * np.float32([0, 1, 1])
    alone = tracker.track(frames, same_frame[1:2])
    together = tracker.track(frames, same_frame)
    assert np.abs(alone.positions - together.positions[1:2]).max() > 2e-3
    return
  alone = tracker.track(frames, QUERIES[1:2])
  assert_same(
      alone, tapjax.Tracks(*(a if a is None else a[1:2] for a in together))
  )


def test_reports_change_nothing(tracker):
  frames = make_video()
  reports = []
  tracks = tracker.track(
      frames,
      QUERIES,
      query_chunk=1 if tracker.functions.queries_independent else None,
      report=lambda *report: reports.append(report),
  )
  assert_same(tracks, tracker.track(frames, QUERIES))
  stages = {stage: (done, total) for stage, done, total in reports}
  if tracker.name == 'pips_plus_plus':
    # Blocks of four frames: two segments forward and the same ones back.
    assert stages == {'track': (20, 20)}
  else:
    assert stages == {'encode': (11, 11), 'track': (5, 5)}


def test_no_queries_no_tracks(tracker):
  tracks = tracker.track(make_video(), np.zeros((0, 3), np.float32))
  assert tracks.positions.shape == (0, 11, 2)
  assert tracks.visible.shape == (0, 11)
  assert tracks.visible.dtype == bool


@pytest.mark.parametrize(
    'shape', [(1, 48, 72), (1, 1, 1), (1, 7, 9), (1, 600, 3)], ids=str
)
def test_odd_videos(tracker, shape):
  frames = make_video(4, 640, 80)[: shape[0], : shape[1], : shape[2]]
  points = np.asarray([[0, shape[1] / 2, shape[2] / 2]], np.float32)
  tracks = tracker.track(frames, points)
  assert tracks.positions.shape == (1, shape[0], 2)
  assert np.isfinite(tracks.positions).all()


def test_estimates_meet_the_query():
  """TAP-Net's answer on the query's own frame is the query."""
  tracks = make_tracker('tapnet').track(make_video(), QUERIES)
  for row, (t, y, x) in enumerate(QUERIES):
    frame = int(np.round(t))
    np.testing.assert_allclose(tracks.positions[row, frame], [x, y], atol=1e-4)


def make_matching_tracker():
  """A TAPIR that goes where the features look most like the query's."""
  config = dataclasses.replace(make_config('tapir'), temperature=1e5)
  functions = TapirFunctions(config)
  params = golden.make_random_params(functions)
  weights = dict(params.params)
  for name in ('hidden', 'heatmap'):
    module = f'tapir/~/cost_volume/~/{name}'
    kernel = jnp.zeros_like(weights[module]['w']).at[1, 1, 0, 0].set(1)
    weights[module] = {'w': kernel, 'b': 0 * weights[module]['b']}
  module = 'tapir/~/mixer/~/output'
  weights[module] = jax.tree.map(jnp.zeros_like, weights[module])
  return Tracker('tapir', config, functions, params._replace(params=weights))


@pytest.mark.slow
def test_still_video_keeps_the_query():
  """Cells of 8 pixels match themselves, on every frame."""
  frames = make_video(1, 128, 128).repeat(6, axis=0)
  cells = np.asarray([[1, 2], [3, 3], [5, 6], [0, 7]])
  points = np.concatenate(
      [np.asarray([[0], [2], [5], [3]]), (cells + 0.5) * 16], axis=1
  ).astype(np.float32)
  tracks = make_matching_tracker().track(frames, points)
  expected = points[:, None, :0:-1].repeat(6, axis=1)
  np.testing.assert_allclose(tracks.positions, expected, atol=1e-3)


def test_callers_may_change_their_tracks():
  tracks = make_tracker('tapnet').track(make_video(), QUERIES)
  assert all(array.flags.writeable for array in jax.tree.leaves(tracks))


def test_one_chunk_for_everything():
  tracker = make_tracker('tapnet')
  tracks = tracker.track(
      make_video(), QUERIES, query_chunk=2**62, frame_chunk=2**62
  )
  assert_same(tracks, tracker.track(make_video(), QUERIES))


@pytest.mark.parametrize(
    ('blocks', 'message'),
    [
        ([np.zeros((2, 4, 4, 3), np.float32)], 'frames must be uint8'),
        ([make_video(1), make_video(1, 50)], 'frames of one size'),
        ([], 'at least one frame'),
    ],
    ids=['float', 'sizes', 'none'],
)
def test_blocks_are_checked(blocks, message):
  with pytest.raises(ValueError, match=message):
    make_tracker('tapnet').prepare(iter(blocks))


@pytest.mark.slow
@pytest.mark.parametrize('name', SETTINGS)
def test_batch_equals_its_videos(name):
  tracker = make_tracker(name)
  functions, params = tracker.functions, tracker.params
  video = jax.random.uniform(
      jax.random.key(0), (2, 3, *functions.resolution, 3), minval=-1.0
  )
  points = jnp.asarray([[[0, 20.0, 30.0], [2, 5.0, 60.5]]] * 2)
  points = points.at[1, :, 1:].add(3.0)

  @jax.jit
  def track(video, points):
    features = arrows.encode_segment(functions, params, video)
    queries = arrows.describe_queries(functions, params, features, points)
    return arrows.track_segment(
        functions, params, features, queries, points
    ).tracks

  both = track(video, points)
  for i in range(2):
    alone = track(video[i : i + 1], points[i : i + 1])
    assert_same(
        jax.tree.map(lambda array, i=i: array[i], both),
        jax.tree.map(lambda array: array[0], alone),
    )


@pytest.mark.slow
def test_compiles_once_for_any_number_of_queries():
  """With chunks of one size, more queries run the same program longer."""
  tracker = make_tracker('tapir')
  frames = make_video()
  for num_queries in (4, 8, 16):
    points = np.tile(QUERIES[:1], (num_queries, 1))
    tracker.track(frames, points, query_chunk=4, report=lambda *report: None)
  points = np.tile(QUERIES[:1], (64, 1))
  with tapjax.count_compilations() as compilations:
    tracker.track(frames, points, query_chunk=4, report=lambda *report: None)
  assert not compilations.count


@pytest.mark.slow
def test_memory_is_refused_where_the_future_is_seen():
  tracker = make_tracker('tapir')
  functions, params = tracker.functions, tracker.params
  assert not functions.streams
  assert functions.begin(jnp.zeros((1, 1, 3))) is None
  features = functions.encode_video(params, jnp.zeros((1, 1, 64, 64, 3)))
  points = jnp.zeros((1, 1, 3))
  queries = functions.describe_queries(params, features, points)
  state = functions.initialize_tracks(params, features, queries, points)
  memory = make_tracker('tapir_tiny').functions.begin(points)
  with pytest.raises(ValueError, match='causal'):
    functions.refine_tracks(params, features, queries, state, memory)
