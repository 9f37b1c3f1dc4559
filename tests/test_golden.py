"""Trackers against outputs of the official programs that are in `tests/golden`.

Weights are random numbers in the published layout, clips are computed, and
tolerances are those that each file states with a reason.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.models.locotrack import refinement as locotrack
from tapjax.models.multires import Refinement
from tapjax.models.pips_plus_plus import correlation as pips
from tapjax.models.tapir.functions import repeat_over_time
from tests.support import golden

pytestmark = pytest.mark.slow

TAPIR = ('tapir', 'bootstapir', 'causal_tapir')
LOCOTRACK = ('locotrack_small', 'locotrack_efficientnet_b0')


def load_tracker(case, name, folder):
  path = golden.write_stand_in(golden.PUBLIC, name, case.meta['seed'], folder)
  settings = {}
  if name == 'tapnet':
    settings['resolution'] = case.resolution
  if name == 'pips_plus_plus':
    given = case.meta['settings']
    settings = {
        'resolution': case.resolution,
        'num_iterations': given['iters'],
        'window': given['window'],
    }
  return tapjax.load(name, checkpoint=path, **settings)


def check(case, ours, theirs, kind):
  np.testing.assert_allclose(
      ours,
      case.arrays[theirs],
      atol=case.meta['tolerance'][kind],
      rtol=0,
      err_msg=theirs,
  )


def pick(array, stored):
  """Takes every so many cells and channels of an array, as a file has them."""
  steps = -(-np.asarray(array.shape) // np.asarray(stored.shape))
  return array[tuple(slice(None, None, step) for step in steps)]


def run_arrows(tracker, case):
  """Returns the features, query features and states of every arrow."""
  functions, size = tracker.functions, tracker.functions.resolution
  video = resize_video(normalize_frames(case.frames), size)[None]
  points = rescale_query_points(
      jnp.asarray(case.arrays['query_points']), case.resolution, size
  )[None]

  @jax.jit
  def run(params):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, points)
    first = functions.initialize_tracks(params, features, queries, points)
    states, _ = functions.refine_tracks(params, features, queries, first)
    return features, queries, states

  features, queries, states = run(tracker.params)
  features, queries = jax.tree.map(lambda x: x[0], (features, queries))
  return features, queries, jax.tree.map(lambda x: x[:, 0], states)


@pytest.mark.parametrize('name', [*TAPIR, *LOCOTRACK, 'tapnet'])
def test_whole_video(name, tmp_path):
  case = golden.load_public_case(name)
  tracker = load_tracker(case, name, tmp_path)
  tracks = tracker.track(case.frames, case.arrays['query_points'])
  ending = '_logit' if name in LOCOTRACK else ''
  check(case, tracks.positions, 'tracks', 'tracks_px')
  check(case, tracks.occlusion_logits, 'occlusion' + ending, 'logits')
  if name != 'tapnet':
    check(case, tracks.uncertainty_logits, 'expected_dist' + ending, 'logits')


@pytest.mark.parametrize('name', TAPIR)
def test_stages_of_tapir(name, tmp_path):
  case = golden.load_public_case(name)
  expected = case.arrays
  tracker = load_tracker(case, name, tmp_path)
  functions = tracker.functions
  features, queries, states = run_arrows(tracker, case)
  for ours, theirs in (
      (features[0].coarse[0], 'lowres'),
      (features[0].fine[0], 'hires'),
      (queries[0].coarse, 'query_lowres'),
  ):
    check(case, pick(ours, expected[theirs]), theirs, 'features')
  positions = rescale_positions(
      states.positions, functions.resolution, case.resolution
  )
  check(case, positions, 'iter_tracks', 'tracks_px')

  first = jax.tree.map(lambda array: array[0], states)
  now = Refinement(
      first.positions,
      first.occlusion_logits,
      first.uncertainty_logits,
      repeat_over_time(queries[0], len(case.frames), None),
  )
  changes = jax.jit(
      lambda params: functions._network.apply(
          'mix',
          params,
          functions._make_inputs(features[0], queries[0], now),
          None,
          None,
      )[0]
  )(tracker.params)
  check(case, pick(changes[0], expected['mixer_out']), 'mixer_out', 'mixer_out')


def test_causal_tapir_frame_by_frame(tmp_path):
  """Through the public API; a point takes the place of another on the way."""
  case = golden.load_public_case('causal_tapir')
  expected = case.arrays
  tracker = load_tracker(case, 'causal_tapir', tmp_path)
  points = expected['online_query_points'][:, 1:]
  at, replaced, *fresh = expected['online_new_point']
  session = tracker.start(case.frames[0], points)
  rows = np.arange(len(points))  # Of the file, by the number of a point.
  columns = []
  for i, frame in enumerate(case.frames):
    if i == at:
      session = tracker.remove(session, np.asarray([int(replaced)]))
      session = tracker.add(session, frame, np.asarray([fresh], np.float32))
      rows = np.append(rows, int(replaced))
    session, tracks = tracker.step(session, frame)
    order = np.argsort(rows[session.ids])
    columns.append(jax.tree.map(lambda array, o=order: array[o], tracks))
  whole = jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *columns)
  check(case, whole.positions, 'online_tracks', 'tracks_px')
  check(case, whole.occlusion_logits, 'online_occlusion', 'logits')
  check(case, whole.uncertainty_logits, 'online_expected_dist', 'logits')


@pytest.mark.parametrize('name', LOCOTRACK)
def test_stages_of_locotrack(name, tmp_path):
  case = golden.load_public_case(name)
  expected = case.arrays
  tracker = load_tracker(case, name, tmp_path)
  functions, config = tracker.functions, tracker.config
  features, queries, states = run_arrows(tracker, case)
  for ours, theirs in (
      (features[0].coarse[0], 'feat_lowres'),
      (features[0].fine[0], 'feat_highest'),
  ):
    check(case, pick(ours, expected[theirs]), theirs, 'features')
  positions = rescale_positions(
      states.positions, functions.resolution, case.resolution
  )
  check(case, positions, 'iter_tracks', 'tracks_px')

  first = jax.tree.map(lambda array: array[0], states)
  # Correlations tell places apart more finely than positions are rounded, so
  # this stage begins where the official one did.
  now = Refinement(
      rescale_positions(
          jnp.asarray(expected['iter_tracks'][0]),
          case.resolution,
          config.initial_resolution,
      ),
      first.occlusion_logits,
      first.uncertainty_logits,
      locotrack.repeat_over_time(queries[0], config, len(case.frames)),
  )

  @jax.jit
  def mix(params):
    embedded = functions._embed(params, features[0], queries[0], now.positions)
    inputs = locotrack.join_inputs(
        now, embedded, config, config.levels[0].resolution
    )
    return functions._network.apply('mix', params, inputs)

  check(case, mix(tracker.params)[..., :4], 'mixer_output4', 'mixer_output4')


def test_stages_of_tapnet(tmp_path):
  case = golden.load_public_case('tapnet')
  tracker = load_tracker(case, 'tapnet', tmp_path)
  functions, params = tracker.functions, tracker.params
  features = jax.jit(functions.encode_video)(
      params, normalize_frames(case.frames)[None]
  )
  queries = functions.describe_queries(
      params, features, jnp.asarray(case.arrays['query_points'])[None]
  )
  grid = pick(features[0, 1], case.arrays['feature_grid'])
  check(case, grid, 'feature_grid', 'features')
  vectors = pick(queries[0], case.arrays['query_feats'])
  check(case, vectors, 'query_feats', 'features')


def test_pips_plus_plus(tmp_path):
  """Tracks through three windows, and stages of the first."""
  case = golden.load_public_case('pips_plus_plus')
  expected = case.arrays
  tracker = load_tracker(case, 'pips_plus_plus', tmp_path)
  points = expected['query_points'] + np.float32([0, 0.5, 0.5])
  tracks = tracker.track(case.frames, points)
  check(case, tracks.positions - 0.5, 'tracks', 'tracks_px')

  window = case.meta['settings']['window']
  first = case._replace(
      frames=case.frames[:window], arrays={'query_points': points}
  )
  features, queries, states = run_arrows(tracker, first)
  check(
      case,
      states.positions[:-1] - 0.5,
      'first_window_iterations',
      'tracks_px',
  )
  grid = pick(features[0][0], expected['fmap'])
  check(case, grid, 'fmap', 'features')
  start = jnp.repeat(points[:, None, :0:-1], window, axis=1)
  delta = (states.positions[0] - start) / 8
  check(case, delta, 'delta', 'delta')
  vectors = jnp.broadcast_to(
      queries.vectors[:2, None, None],
      (2, window, 3, queries.vectors.shape[-1]),
  )
  correlations = jax.jit(pips.correlate_tracks, static_argnums=(4, 5))(
      tuple(features),
      jnp.repeat(jnp.arange(window)[None], 2, axis=0),
      (start[:2] - 0.5) / 8,
      vectors,
      tracker.config.radius,
      'cpu',
  )
  correlations = pick(correlations, expected['correlations'])
  check(case, correlations, 'correlations', 'correlations')
