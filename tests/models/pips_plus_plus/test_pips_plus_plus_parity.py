"""PIPs++ against stored outputs of the published implementation.

Stored positions count pixel centers as integers. Tolerances are those that the
reference data states, of float32 against float64.
"""

import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.models import arrows
from tapjax.models.contract import unflatten_params
from tapjax.models.haiku import make_network
from tapjax.models.pips_plus_plus.config import PIPS_PLUS_PLUS
from tapjax.models.pips_plus_plus.correlation import correlate_tracks
from tapjax.models.pips_plus_plus.correlation import embed_motion
from tapjax.models.pips_plus_plus.network import PipsPlusPlus
from tapjax.models.pips_plus_plus.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tapjax.ops.correlation import correlate_patches_in_frames
from tapjax.ops.sampling import read_in_frames
from tapjax.tracking.options import Options
from tapjax.tracking.prepare import PreparedVideo
from tapjax.tracking.programs import Programs
from tapjax.tracking.track import track
from tests.support import golden
from tests.support import weights

pytestmark = pytest.mark.slow

CELL = 8


class Case(NamedTuple):
  meta: dict[str, Any]
  frames: np.ndarray
  arrays: dict[str, np.ndarray]
  tracker: tapjax.Tracker


def load_case(reference, name, folder, **settings):
  path = reference / 'pips2' / f'golden_pips2_{name}.npz'
  with np.load(path) as file:
    arrays = dict(file)
  meta = json.loads(str(arrays.pop('meta')))
  with np.load(reference / 'clips.npz') as clips:
    frames = clips[meta['clip'].split()[0]][meta['frames']]
  if (crop := meta['settings'].get('crop')) is not None:
    top, left, height, width = crop
    frames = frames[:, top : top + height, left : left + width]
  if meta['settings'].get('beautify'):
    settings['late_step'] = 0.5
  checkpoint = golden.write_torch_checkpoint(
      reference / 'pips2' / meta['manifest'],
      meta['seed'],
      folder / 'model-000000001.pth',
      'model_state_dict',
  )
  tracker = tapjax.load(
      'pips_plus_plus',
      checkpoint=checkpoint,
      resolution=settings.pop('resolution', frames.shape[1:3]),
      num_iterations=meta['settings']['iters'],
      **settings,
  )
  return Case(meta, frames, arrays, tracker)


def move_queries(query_points):
  """Returns raster query points."""
  return query_points + np.asarray([0, 0.5, 0.5], np.float32)


def move_tracks(tracks):
  """Returns raster positions [n, t, 2] for [t, n, 2] of pixel centers."""
  return tracks.swapaxes(-3, -2) + np.float32(0.5)


ENCODER = {
    'stem': 'conv1',
    'stage_0': 'layer1',
    'stage_1': 'layer2',
    'stage_2': 'layer3',
    'stage_3': 'layer4',
    'fuse': 'conv2',
}


class Exposed(PipsPlusPlus):
  """With what the encoder does on its way."""

  def encode(self, images):
    return self._encoder(images)


def correlate(config, pyramid, positions, vectors):
  """Correlates on every frame, for raster positions [n, t, 2]."""
  frames = jnp.arange(positions.shape[1])[None]
  return jax.jit(correlate_tracks, static_argnums=(4, 5))(
      tuple(pyramid),
      jnp.repeat(frames, len(positions), axis=0),
      jnp.asarray(positions - np.float32(0.5)) / CELL,
      jnp.asarray(vectors),
      config.radius,
      'cpu',
  )


FORWARD = (
    'forward8',
    'forward8_iters16',
    'forward12_beautify',
    'forward8_rect',
)


@pytest.mark.slow
@pytest.mark.parametrize('name', FORWARD)
def test_one_window(name, reference, tmp_path):
  """Every stage, the earliest first, through the five arrows."""
  case = load_case(reference, name, tmp_path)
  expected, functions = case.arrays, case.tracker.functions
  params, config = case.tracker.params, case.tracker.config
  features = case.meta['tolerance']['features']
  pixels = case.meta['tolerance']['tracks_px']
  close = np.testing.assert_allclose
  video = normalize_frames(case.frames)[None]

  encode = make_network(
      lambda: Exposed(config, 'cpu'), ('encode',), tuple
  ).apply
  stages = jax.jit(lambda *arguments: encode('encode', *arguments))(
      params, video[0, :1]
  )
  for ours, stored in ENCODER.items():
    value = stages[ours][0, ::CELL, ::CELL, :4]
    close(value, expected[f'enc_{stored}'], atol=features, err_msg=stored)

  grids = jax.jit(functions.encode_video)(params, video)
  close(grids[0][0, 0, :, :, ::16], expected['fmap_frame0'], atol=features)
  close(grids[0][0, -1, :, :, ::16], expected['fmap_frame_last'], atol=features)
  close(
      np.abs(grids[0][0]).mean(axis=(1, 2, 3)),
      expected['fmap_mean_abs'],
      atol=features,
  )
  points = jnp.asarray(move_queries(expected['query_points']))[None]
  queries = jax.jit(functions.describe_queries)(params, grids, points)
  close(queries.vectors[0], expected['query_features'], atol=features)

  state = functions.initialize_tracks(params, grids, queries, points)
  start = move_tracks(expected['init_tracks'])
  if case.meta['settings']['init'] == 'zero':
    close(state.positions[0], start, atol=1e-5)
  state = state._replace(positions=jnp.asarray(start)[None])
  states, _ = jax.jit(functions.refine_tracks)(params, grids, queries, state)
  iterations = move_tracks(expected['iteration_tracks'])
  close(states.positions[:-1, 0], iterations, atol=pixels)
  tracks = functions.finalize_tracks(states)
  close(tracks.positions[0], move_tracks(expected['tracks']), atol=pixels)
  assert tracks.visible.all()

  pyramid = [grid[0] for grid in grids]
  vectors = queries.vectors[0][:, None, None]
  vectors = jnp.broadcast_to(vectors, (*start.shape[:2], 3, vectors.shape[-1]))
  correlation = correlate(config, pyramid, start, vectors)
  close(correlation[:3], expected['first_corr'], atol=features)
  change = (states.positions[0, 0] - start) / CELL
  close(change, expected['first_delta'], atol=pixels / CELL)

  # What the later iterations see follows from where the earlier ones end.
  for index, stored in ((0, 'second_corr'), (-2, 'last_corr')):
    now = iterations[index].copy()
    now[:, 0] = start[:, 0]
    lagged = lag_features(pyramid, now)
    now_vectors = jnp.concatenate([vectors[:, :, :1], lagged], axis=2)
    correlation = correlate(config, pyramid, now, now_vectors)
    close(correlation[:2], expected[stored], atol=2e-3)
  for i, lag in enumerate((2, 4)):
    stored = expected[f'last_features_{lag}'].swapaxes(0, 1)
    close(lagged[:4, :, i], stored, atol=2e-3)


def lag_features(pyramid, positions):
  """Features at a track's own positions 2 and 4 frames earlier."""
  frames = np.arange(positions.shape[1])
  lagged = []
  for lag in (2, 4):
    source = np.maximum(frames - lag, 0)
    points = (positions[:, source] - 0.5) / CELL + 0.5
    rows = [
        read_in_frames(pyramid[0], jnp.asarray(source), jnp.flip(row, axis=-1))
        for row in jnp.asarray(points, jnp.float32)
    ]
    lagged.append(jnp.stack(rows))
  return jnp.stack(lagged, axis=2)


CHAINS = ('chain_short', 'chain12', 'chain_resized')


@pytest.mark.slow
@pytest.mark.parametrize('name', CHAINS)
def test_chained_windows(name, reference, tmp_path):
  """A video longer than a window, whole and in segments of two windows."""
  with np.load(reference / 'pips2' / f'golden_pips2_{name}.npz') as file:
    settings = json.loads(str(file['meta']))['settings']
  size = (settings['evaluated_height'], settings['evaluated_width'])
  native = (settings['native_height'], settings['native_width'])
  case = load_case(
      reference, name, tmp_path, resolution=size, window=settings['window']
  )
  functions, params = case.tracker.functions, case.tracker.params
  # Published tests resize without antialiasing and scale pixel centers.
  frames = jax.image.resize(
      jnp.asarray(case.frames, jnp.float32),
      (len(case.frames), *size, 3),
      'bilinear',
      antialias=False,
  )
  video = (frames / 255 * 2 - 1)[None]
  scale = np.float32([1, size[0] / native[0], size[1] / native[1]])
  points = jnp.asarray(move_queries(case.arrays['query_points'] * scale))
  expected = move_tracks(case.arrays['tracks'])
  pixels = case.meta['tolerance']['tracks_px']

  features = jax.jit(functions.encode_video)(params, video)
  queries = jax.jit(functions.describe_queries)(params, features, points[None])
  tracks = jax.jit(arrows.track_segment, static_argnums=0)(
      functions, params, features, queries, points[None]
  ).tracks
  np.testing.assert_allclose(tracks.positions[0], expected, atol=pixels)
  np.testing.assert_allclose(
      np.asarray(tracks.positions[0, :, 0]), points[:, :0:-1], atol=1e-4
  )

  prepared = PreparedVideo(np.asarray(video[0]), size)
  segments = track(
      functions, params, Programs(), prepared, np.asarray(points), Options()
  )
  np.testing.assert_allclose(segments.positions, expected, atol=pixels)


@pytest.mark.slow
def test_public_interface(reference, tmp_path):
  """Tracks of the public API, for pixels of frames that keep their size."""
  case = load_case(reference, 'chain_short', tmp_path, window=8)
  tracks = case.tracker.track(
      case.frames, move_queries(case.arrays['query_points'])
  )
  expected = move_tracks(case.arrays['tracks'])
  np.testing.assert_allclose(tracks.positions, expected, atol=1e-3)
  assert tracks.visible.all()
  assert tracks.occlusion_logits is None
  assert tracks.uncertainty_logits is None


@pytest.fixture(scope='module')
def blocks(reference):
  with np.load(reference / 'pips2' / 'golden_ops_blocks.npz') as file:
    return dict(file)


def test_features_are_held_at_the_border(blocks):
  for grid, x, y, expected in zip(
      *(blocks[f'feat_{name}'] for name in ('map', 'x', 'y', 'out')),
      strict=True,
  ):
    points = jnp.asarray(np.stack([y, x], axis=-1)) + 0.5
    values = read_in_frames(
        jnp.asarray(grid).transpose(1, 2, 0)[None],
        jnp.zeros(len(points), int),
        points,
    )
    np.testing.assert_allclose(values.T, expected, atol=1e-4)


def test_correlation_is_zero_outside(blocks):
  maps, points = blocks['corr_map'], blocks['corr_xy']
  for i, grid in enumerate(maps[:, 0]):
    flat = jnp.asarray(points[i].reshape(-1, 2)[:, ::-1]) + 0.5
    values = correlate_patches_in_frames(
        jnp.asarray(grid)[None, :, :, None],
        jnp.zeros(len(flat), int),
        flat,
        jnp.ones((len(flat), 1, 1)),
        0,
    )
    np.testing.assert_allclose(
        values.reshape(points.shape[1:3]), blocks['corr_out'][i, 0], atol=1e-4
    )


def test_correlation_of_all_levels(blocks):
  grid = jnp.asarray(blocks['cb_fmaps'][0], jnp.float32).transpose(0, 2, 3, 1)
  pyramid = [grid]
  for shape in blocks['cb_level_shapes'][1:]:
    last = pyramid[-1][:, : 2 * shape[0], : 2 * shape[1]]
    pyramid.append(
        last.reshape(len(last), shape[0], 2, shape[1], 2, -1).mean(axis=(2, 4))
    )
  positions = blocks['cb_xy'][0].swapaxes(0, 1) * CELL + 0.5
  vectors = blocks['cb_targets'][0].swapaxes(0, 1)[:, :, None]
  values = correlate(PIPS_PLUS_PLUS, pyramid, positions, vectors)
  expected = blocks['cb_out'][0].swapaxes(0, 1)
  np.testing.assert_allclose(values, expected, atol=1e-4)


def test_motion_is_embedded(blocks):
  values = embed_motion(jnp.asarray(blocks['pos_xy']), 32)
  np.testing.assert_allclose(values, blocks['pos_out'], atol=1e-4)


@pytest.mark.slow
def test_update_network(blocks, reference):
  """Of the published width, from its own weights, with the frames given."""
  manifest = weights.load_manifest(reference / 'pips2' / 'manifest_pips2.json')
  meta = json.loads(str(blocks['meta']))
  wanted = [e for e in manifest if e['name'].startswith('delta_block.')]
  arrays = weights.fill(wanted, meta['seed'])
  sources = list_torch_sources(
      name
      for name in list_weight_names(PIPS_PLUS_PLUS)
      if (name.torch or '').startswith('delta_block.')
  )
  params = unflatten_params(
      {
          ours: arrays[source.name].transpose(source.axes)
          for ours, source in sources.items()
      }
  )
  update = make_network(
      lambda: PipsPlusPlus(PIPS_PLUS_PLUS, 'cpu'), ('update',), tuple
  ).apply
  motion = embed_motion(jnp.asarray(blocks['block_flow']), 32)
  inputs = jnp.concatenate([blocks['block_corr'], motion], axis=-1)
  # Frames after the end change nothing.
  inputs = jnp.pad(inputs, ((0, 0), (0, 3), (0, 0)), constant_values=7.0)
  valid = jnp.arange(inputs.shape[1])[None] < 8
  change = jax.jit(lambda *arguments: update('update', *arguments))(
      params, inputs, jnp.repeat(valid, 3, axis=0)
  )
  np.testing.assert_allclose(change[:, :8], blocks['block_out'], atol=1e-4)
