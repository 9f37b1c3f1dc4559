"""TAPIR against stored outputs of the published implementation.

Tolerances: two float32 implementations of it differ by 1.3e-4 px and 2e-5 in
logits, and single mistakes (another GELU, another norm epsilon) move them
by 6e-4 or more.
"""

import contextlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.models import arrows
from tests.support import golden

PIXELS = 5e-4
LOGITS = 5e-5
FEATURES = 5e-6
RAW = 1e-4

OFFLINE = (
    pytest.param('tapir_offline', id='tapir', marks=pytest.mark.slow),
    pytest.param('tapir_smallres', id='enlarged', marks=pytest.mark.slow),
    pytest.param('bootstapir_offline', id='bootstapir', marks=pytest.mark.slow),
    pytest.param('bootstapir_multires', id='multires', marks=pytest.mark.slow),
    pytest.param('causal_tapir_offline', id='causal', marks=pytest.mark.slow),
    pytest.param(
        'causal_bootstapir_offline', id='causal-boot', marks=pytest.mark.slow
    ),
)
ONLINE = (
    pytest.param(
        'causal_tapir_online', id='one-update', marks=pytest.mark.slow
    ),
    pytest.param(
        'causal_tapir_online_multires', id='multires', marks=pytest.mark.slow
    ),
    pytest.param(
        'causal_bootstapir_online', id='two-updates', marks=pytest.mark.slow
    ),
)


def load_tracker(case, reference, folder):
  path = golden.write_haiku_checkpoint(
      reference / 'tapir' / case.meta['manifest'],
      case.meta['seed'],
      folder / 'weights.npy',
  )
  return tapjax.load(
      case.meta['variant'], checkpoint=path, resolution=case.resolution
  )


@pytest.mark.parametrize('name', OFFLINE)
def test_whole_video(name, reference, tmp_path):
  """Tracks of the public API."""
  case = golden.load_case(reference / 'tapir' / f'golden_{name}.npz')
  expected = case.arrays
  tracker = load_tracker(case, reference, tmp_path)
  tracks = tracker.track(case.frames, expected['query_points'])
  close = np.testing.assert_allclose
  close(tracks.positions, expected['tracks'], atol=PIXELS)
  close(tracks.occlusion_logits, expected['occlusion'], atol=LOGITS)
  close(tracks.uncertainty_logits, expected['expected_dist'], atol=LOGITS)
  np.testing.assert_array_equal(tracks.visible, expected['visible'])


@pytest.mark.slow
@pytest.mark.parametrize('name', [param.values[0] for param in OFFLINE])
def test_stages(name, reference, tmp_path):
  """Results of every arrow of the tracker, the earliest first."""
  case = golden.load_case(reference / 'tapir' / f'golden_{name}.npz')
  expected = case.arrays
  tracker = load_tracker(case, reference, tmp_path)
  functions, params = tracker.functions, tracker.params
  video = normalize_frames(case.frames)[None]
  points = jnp.asarray(expected['query_points'])[None]

  features = jax.jit(functions.encode_video)(params, video)
  queries = jax.jit(functions.describe_queries)(params, features, points)
  close = np.testing.assert_allclose
  close(features[0].coarse[0, 0, ::8, ::8], expected['lowres_0'], atol=FEATURES)
  close(features[0].fine[0, 0, ::16, ::16], expected['hires_0'], atol=FEATURES)
  close(queries[0].coarse[0], expected['query_lowres_0'], atol=FEATURES)
  close(queries[0].fine[0], expected['query_hires_0'], atol=FEATURES)
  if 'lowres_2' in expected:
    coarse, fine = features[1].coarse[0, 0], features[1].fine[0, 0]
    close(coarse[::8, ::8], expected['lowres_2'], atol=FEATURES)
    close(fine[::16, ::16], expected['hires_2'], atol=FEATURES)
    close(queries[1].coarse[0], expected['query_lowres_2'], atol=FEATURES)
    close(queries[1].fine[0], expected['query_hires_2'], atol=FEATURES)

  first = jax.jit(functions.initialize_tracks)(
      params, features, queries, points
  )
  states, _ = jax.jit(functions.refine_tracks)(params, features, queries, first)
  np.testing.assert_array_equal(states.positions[0], first.positions)
  stages = jax.tree.map(lambda array: array[:, 0], states)
  close(stages.positions, expected['iter_tracks'], atol=PIXELS)
  close(stages.occlusion_logits, expected['iter_occlusion'], atol=LOGITS)
  close(stages.uncertainty_logits, expected['iter_expected_dist'], atol=LOGITS)


@pytest.mark.slow
def test_mixer_and_backbone(reference, tmp_path):
  """The stages whose raw values show a mistake that later ones hide."""
  case = golden.load_case(reference / 'tapir' / 'golden_tapir_offline.npz')
  expected = case.arrays
  tracker = load_tracker(case, reference, tmp_path)

  from tapjax.models.haiku import make_network
  from tapjax.models.tapir.network import make_small_frame
  from tapjax.models.tapir.network import Tapir

  class Exposed(Tapir):

    def backbone(self, frames):
      return self._resnet(frames)

  network = make_network(
      lambda: Exposed(tracker.config, 'cpu'),
      ('backbone', 'mix'),
      lambda: (make_small_frame(tracker.config),),
  )
  _, *units = jax.jit(lambda *a: network.apply('backbone', *a))(
      tracker.params, normalize_frames(case.frames[:1])
  )
  for i, unit in enumerate(units):
    np.testing.assert_allclose(
        unit[0, ::16, ::16], expected[f'resnet_unit_{i}'], atol=RAW
    )
  for i in range(2):
    output, _ = jax.jit(lambda *a: network.apply('mix', *a))(
        tracker.params, expected[f'mixer_in_{i}'][None], None
    )
    np.testing.assert_allclose(output[0], expected[f'mixer_out_{i}'], atol=RAW)


@pytest.mark.parametrize('name', ONLINE)
def test_frame_by_frame(name, reference, tmp_path):
  """Memory of past frames goes in and out; queries are replaced on the way."""
  case = golden.load_case(reference / 'tapir' / f'golden_{name}.npz')
  expected = case.arrays
  tracker = load_tracker(case, reference, tmp_path)
  functions, params = tracker.functions, tracker.params
  encode = jax.jit(functions.encode_video)
  describe = jax.jit(functions.describe_queries)

  @jax.jit
  def step(features, queries, memory):
    segment = arrows.track_segment(
        functions, params, features, queries, None, memory
    )
    return segment.states, segment.memory

  points = jnp.asarray(expected['query_points'])
  memory = functions.begin(points[None])
  queries = None
  states = []
  for i, frame in enumerate(case.frames):
    features = encode(params, normalize_frames(frame)[None, None])
    if queries is None:
      queries = describe(params, features, points[None])
    for update in case.meta['settings']['updates']:
      if update['frame'] == i:
        rows = np.asarray(update['idx'])
        fresh = describe(params, features, jnp.asarray([update['points']]))
        queries = jax.tree.map(
            lambda old, new, rows=rows: old.at[:, rows].set(new),
            queries,
            fresh,
        )
        memory = jax.tree.map(
            lambda array, rows=rows: array.at[:, :, :, rows].set(0), memory
        )
    state, memory = step(features, queries, memory)
    states.append(jax.tree.map(lambda array: array[:, 0], state))
  states = jax.tree.map(lambda *parts: np.concatenate(parts, axis=2), *states)

  close = np.testing.assert_allclose
  close(states.positions[1:], expected['iter_tracks'][1:], atol=2 * PIXELS)
  close(states.occlusion_logits[-1], expected['occlusion'], atol=LOGITS)
  close(states.uncertainty_logits[-1], expected['expected_dist'], atol=LOGITS)
  final = functions.finalize_tracks(states)
  close(final.positions, expected['mean_tracks'], atol=2 * PIXELS)

  num_iterations, num_blocks = memory.inputs.shape[1:3]
  for i in (0, num_iterations - 1):
    for block in (0, num_blocks - 1):
      # Ours keeps the four outputs of a channel apart, theirs side by side.
      hidden = jnp.swapaxes(memory.hidden[0, i, block], -1, -2)
      hidden = hidden.reshape(len(points), 2, -1)
      close(
          memory.inputs[0, i, block, :, :, ::16],
          expected[f'context_{i}_{block}_1'],
          atol=RAW,
      )
      close(hidden[..., ::16], expected[f'context_{i}_{block}_2'], atol=RAW)


@pytest.mark.slow
def test_pooled_levels_come_from_the_file(reference, tmp_path):
  """The published programs disagree about them; the arrays decide."""
  path = golden.write_haiku_checkpoint(
      reference / 'tapir' / 'manifest_tapir.json', 1, tmp_path / 'weights.npy'
  )
  with pytest.warns(UserWarning, match='pooled_levels=0'):
    tracker = tapjax.load('causal_tapir', checkpoint=path)
  assert tracker.config.pooled_levels == 0
  assert tracker.config.temporal == 'past'

  with warnings.catch_warnings(), contextlib.suppress(ValueError):
    warnings.simplefilter('ignore')
    tapjax.load('causal_tapir', checkpoint=path, pooled_levels=1)
    pytest.fail('weights of another width were accepted')


@pytest.mark.parametrize('name', [ONLINE[0], ONLINE[2]])
def test_session(name, reference, tmp_path):
  """The same through the public API: a query is removed, another one added."""
  case = golden.load_case(reference / 'tapir' / f'golden_{name}.npz')
  expected = case.arrays
  tracker = load_tracker(case, reference, tmp_path)
  points = expected['query_points'][:, 1:]
  session = tracker.start(case.frames[0], points)
  rows = np.arange(len(points))  # Of the reference, by the number of a point.
  for i, frame in enumerate(case.frames):
    for update in case.meta['settings']['updates']:
      if update['frame'] == i:
        replaced = np.asarray(update['idx'])
        session = tracker.remove(session, replaced)
        fresh = np.asarray(update['points'])[:, 1:]
        session = tracker.add(session, frame, fresh)
        rows = np.concatenate([rows, replaced])
    session, tracks = tracker.step(session, frame)
    order = rows[session.ids]
    close = np.testing.assert_allclose
    close(tracks.positions[:, 0], expected['tracks'][order, i], atol=PIXELS)
    close(
        tracks.occlusion_logits[:, 0],
        expected['occlusion'][order, i],
        atol=LOGITS,
    )
    np.testing.assert_array_equal(
        tracks.visible[:, 0], expected['visible'][order, i]
    )
