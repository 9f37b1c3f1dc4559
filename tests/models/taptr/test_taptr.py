import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.taptr import functions as taptr
from tapjax.models.taptr import weights as taptr_weights
from tapjax.models.taptr.network import TaptrConfig
from tapjax.models.taptr.network import TAPTRV2
from tapjax.models.weight_names import list_torch_sources
from tapjax.tracker import Tracker
from tests.support import golden

pytestmark = pytest.mark.slow

SMALL = TaptrConfig(
    resolution=(32, 32),
    backbone_blocks=(1,),
    backbone_channels=4,
    channels=8,
    hidden_channels=8,
    num_heads=2,
    num_samples=1,
    num_groups=2,
    encoder_layers=0,
    decoder_layers=1,
    window=2,
)


@pytest.mark.parametrize(
    ('num_frames', 'starts'),
    [
        (8, [0]),
        (9, [0, 1]),
        (12, [0, 4]),
        (14, [0, 4, 6]),
        (24, [0, 4, 8, 12, 16]),
    ],
)
def test_windows_cover_every_frame(num_frames, starts):
  schedule = taptr.plan_windows(num_frames, 8, 7)
  assert schedule.starts[schedule.exists].tolist() == starts
  assert all(schedule.passes_on)


@pytest.mark.parametrize(('num_frames', 'gap'), [(47, 1), (48, 2), (250, 10)])
def test_long_videos_pass_vectors_on_less_often(num_frames, gap):
  num_windows = taptr.count_windows(num_frames, 8)
  passes_on = taptr.plan_windows(num_frames, 8, num_windows).passes_on
  assert [i for i, passes in enumerate(passes_on) if passes] == list(
      range(0, len(passes_on), gap)
  )


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'resolution': (256, 320)}, r'use \(256, 256\)'),
        ({'resolution': (1, 1)}, 'must be a square'),
        ({'num_heads': 3}, 'multiple of num_heads'),
        ({'num_groups': 5}, 'multiple of num_groups'),
        ({'channels': 30, 'num_heads': 2, 'num_groups': 2}, 'sines'),
        ({'window': 7}, 'window must be even'),
        ({'decoder_layers': 0}, 'decoder_layers must be at least 1'),
        ({'encoder_layers': -1}, 'encoder_layers must be at least 0'),
        ({'backbone_blocks': ()}, 'backbone_blocks must have'),
        ({'backbone_channels': 0}, 'backbone_channels must be at least 1'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    taptr.make_functions(dataclasses.replace(TAPTRV2, **settings))


def test_operations_are_those_published():
  """160 GFLOP a frame; 31 MFLOP and 5 kFLOP per other point and frame.

  The published count is of keys and values of every token; ours reads first.
  """
  frame = taptr.count_operations(TAPTRV2, 8, 0) / 8
  assert frame / 1e9 == pytest.approx(160, rel=0.02)
  counts = [taptr.count_operations(TAPTRV2, 8, n) / 8 - frame for n in (1, 100)]
  assert counts[1] / 100 - counts[0] == pytest.approx(99 * 5 * 1024, rel=0.1)


@pytest.mark.parametrize('ends', ['centers', 'edges'])
def test_shares_are_counted_from_the_ends(ends):
  config = dataclasses.replace(TAPTRV2, ends=ends)
  corners = {
      'centers': [[0.5, 0.5], [511.5, 511.5]],
      'edges': [[0.0, 0.0], [512.0, 512.0]],
  }
  shares = taptr.pixels_to_shares(jnp.asarray(corners[ends]), config)
  np.testing.assert_allclose(shares, [[0, 0], [1, 1]], atol=1e-7)
  back = taptr.shares_to_pixels(shares, config)
  np.testing.assert_allclose(back, corners[ends], atol=1e-4)


def make_still_tracker():
  """A TAPTRv2 that never moves a point."""
  functions = taptr.make_functions(SMALL)
  params = golden.make_random_params(functions)
  weights = dict(params.weights)
  last = f'boxes_{SMALL.decoder_layers - 1}/~/linear_2'
  for module in ('decoder_0/~/frame_attention/~/offsets', last):
    name = f'taptr/~/{module}'
    weights[name] = jax.tree.map(jnp.zeros_like, weights[name])
  return Tracker('taptrv2', SMALL, functions, params._replace(weights=weights))


def test_still_points_keep_the_query():
  """In the caller's pixels, and within the thousandth that shares stop at."""
  frames = np.zeros((3, 48, 72, 3), np.uint8)
  points = np.asarray(
      [[0, 24, 36], [1, 10.5, 20.5], [2, 0.75, 71.25], [1, 48, 0], [0, 0, 72]],
      np.float32,
  )
  tracks = make_still_tracker().track(frames, points)
  expected = points[:, None, :0:-1].repeat(3, axis=1)
  # Half a pixel of the network from the frame, and a thousandth of it.
  margins = np.asarray([72, 48]) * (0.5 + 31 / 1001) / 32
  expected = np.clip(expected, margins, [72, 48] - margins)
  np.testing.assert_allclose(tracks.positions, expected, atol=1e-3)


def test_queries_are_read_where_they_are():
  """With a level's outermost cells at the frame's outermost pixels."""
  functions = taptr.make_functions(SMALL)
  params = golden.make_random_params(functions)
  weights = dict(params.weights)
  weights['taptr/~/describer'] = {'w': jnp.eye(8), 'b': jnp.zeros(8)}
  params = params._replace(weights=weights)
  # Cells of the one level hold their column and their row.
  y, x = np.mgrid[:8, :8].astype(np.float32).reshape(2, -1)
  tokens = np.zeros((1, 2, 64, 8), np.float32)
  tokens[0, 1, :, :2] = np.stack([x, y], axis=-1)
  points = [[1, 0.5, 31.5], [0.8, 16, 0.5 + 31 / 7], [1, 0, 32], [0, 16, 16]]
  described = jax.jit(functions.describe_queries)(
      params, jnp.asarray(tokens), jnp.asarray([points])
  )
  expected = [[7, 0], [1, 3.5], [7, 0], [0, 0]]
  np.testing.assert_allclose(described.vectors[0, :, :2], expected, atol=1e-5)


def test_memory_is_refused():
  functions = taptr.make_functions(SMALL)
  params = golden.make_random_params(functions)
  tokens, points = jnp.zeros((1, 2, 64, 8)), jnp.zeros((1, 1, 3))
  queries = taptr.QueryFeatures(jnp.zeros((1, 1, 8)), points)
  state = functions.initialize_tracks(params, tokens, queries, points)
  with pytest.raises(ValueError, match='causal'):
    functions.refine_tracks(params, tokens, queries, state, ())


@pytest.mark.parametrize('section', ['ema_model', 'model'])
def test_published_layout_is_read(section, tmp_path):
  """Averaged weights, names of parallel training, and heads stored twice."""
  functions = taptr.make_functions(SMALL)
  params = golden.make_random_params(functions)
  ours = flatten_params(params)
  arrays = {}
  for name, source in list_torch_sources(
      taptr_weights.list_weight_names(SMALL)
  ).items():
    array = np.asarray(ours[name])
    if source.axes is not None:
      array = array.transpose(np.argsort(source.axes))
    arrays[f'module.{source.name}'] = array
    if source.name.startswith(('bbox_embed', 'class_embed')):
      arrays[f'module.transformer.decoder.{source.name}'] = array + 1
  arrays['module.backbone.0.body.bn1.num_batches_tracked'] = np.asarray(3)
  path = golden.write_torch_arrays(tmp_path / 'own.pth', arrays, section)
  settings = dataclasses.asdict(SMALL)
  tracker = tapjax.load('taptrv2', checkpoint=path, **settings)
  read = flatten_params(tracker.params)
  assert read.keys() == ours.keys()
  for name, array in ours.items():
    np.testing.assert_array_equal(read[name], array, err_msg=name)

  tracker.save(tmp_path / 'own.safetensors')
  again = tapjax.load(checkpoint=tmp_path / 'own.safetensors')
  assert again.config == SMALL


def test_names_cover_the_manifest(reference):
  """Each array of the published file is used once, or is a copy."""
  weights = golden.load_weights_module(reference)
  manifest = weights.load_manifest(
      reference / 'taptr' / 'manifest_taptrv2.json'
  )
  preset = registry.get_preset('taptrv2')
  expected = flatten_params(
      describe_params(taptr.make_functions(preset.config))
  )
  sources = list_torch_sources(
      preset.architecture.list_weight_names(preset.config)
  )
  assert sources.keys() == expected.keys()
  published = {
      entry['name']: tuple(entry['shape'])
      for entry in manifest
      if 'alias_of' not in entry
  }
  selected = preset.architecture.select_arrays(
      {entry['name']: np.zeros(0) for entry in manifest}
  )
  assert selected.keys() == published.keys()
  for name, source in sources.items():
    shape = published.pop(source.name)
    axes = source.axes or range(len(shape))
    assert expected[name].shape == tuple(shape[axis] for axis in axes)
  assert not published
  assert preset.num_parameters == sum(
      np.prod(array.shape, dtype=int)
      for name, array in expected.items()
      if name.startswith('params|')
  )


def test_the_licence_is_in_the_notice():
  preset = registry.get_preset('taptrv2')
  assert preset.licence in preset.weights.notice
