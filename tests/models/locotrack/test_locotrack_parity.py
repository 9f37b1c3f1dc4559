"""LocoTrack against stored outputs of the published implementations.

Tolerances are those that the files state, ten times what single precision
moves; for the JAX program they are narrower, or another GELU would pass.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tapjax.geometry import resize_video
from tapjax.models.haiku import make_network
from tapjax.models.locotrack import functions as locotrack
from tapjax.models.locotrack.correlations import get_centers
from tapjax.models.locotrack.network import LocoTrack
from tapjax.models.locotrack.refinement import join_inputs
from tapjax.models.locotrack.refinement import repeat_over_time
from tapjax.models.multires import Refinement
from tests.support import golden
from tests.support import torch_format
from tests.support import weights

JAX_TOLERANCE = 5e-4
FEATURES = {'highest': 'fine', 'hires': 'middle', 'lowres': 'coarse'}
NAMES = {
    'small_camel': 'locotrack_small',
    'base_camel': 'locotrack_base',
    'small_apple_384x512': 'locotrack_small',
    'small_camel_refine384x512': 'locotrack_small',
    'efficientnet_b0_camel': 'locotrack_efficientnet_b0',
    'efficientnet_b2_apple': 'locotrack_efficientnet_b2',
    'efficientnet_b5_camel': 'locotrack_efficientnet_b5',
    'efficientnet_b0_934_apple': 'locotrack_efficientnet_b0_934',
    'efficientnet_b0_tiny_camel': 'locotrack_efficientnet_b0_tiny',
    'efficientnet_b0_proj_apple': 'locotrack_efficientnet_b0_proj',
}


def load_case(reference, name):
  return golden.load_case(reference / 'locotrack' / f'golden_{name}.npz')


def list_settings(case):
  settings = {}
  if (resolution := case.meta['settings'].get('resolution')) is not None:
    settings['resolution'] = tuple(resolution)
  if (
      levels := case.meta['settings'].get('refinement_resolutions')
  ) is not None:
    settings['refinement_resolutions'] = tuple(map(tuple, levels))
  return settings


def write_lightning_checkpoint(manifest, seed, path):
  """Writes stand-in weights as PyTorch Lightning does."""
  arrays = weights.fill(weights.load_manifest(manifest), seed)
  archive = torch_format.Archive()
  tensors = {name: archive.add(array) for name, array in arrays.items()}
  root = {
      'epoch': 3,
      'global_step': 300_000,
      'pytorch-lightning_version': '2.0.0',
      'state_dict': tensors,
      'callbacks': {
          'best': torch_format.Call(torch_format.Global('unknown', 'Callback'))
      },
  }
  return archive.write(path, root)


def load_tracker(case, reference, folder):
  """Loads weights by what their arrays are, as no name is given."""
  path = write_lightning_checkpoint(
      reference / 'locotrack' / case.meta['manifest'],
      case.meta['seed'],
      folder / 'epoch=0-step=300000.ckpt',
  )
  return tapjax.load(checkpoint=path, **list_settings(case))


@pytest.mark.parametrize(
    'name',
    [
        # The deepest trunk takes the longest to compile, and has the same parts
        # as the others.
        pytest.param(
            name,
            marks=[pytest.mark.slow, *[pytest.mark.heavy] * ('_b5_' in name)],
        )
        for name in NAMES
    ],
)
def test_whole_video(name, reference, tmp_path):
  """Tracks of the public API."""
  case = load_case(reference, name)
  expected, tolerance = case.arrays, case.meta['tolerance']
  tracker = load_tracker(case, reference, tmp_path)
  assert tracker.name == NAMES[name]
  tracks = tracker.track(case.frames, expected['query_points'])
  for ours, theirs in (
      (tracks.positions, 'tracks'),
      (tracks.occlusion_logits, 'occlusion_logit'),
      (tracks.uncertainty_logits, 'expected_dist_logit'),
  ):
    np.testing.assert_allclose(
        ours, expected[theirs], atol=tolerance[theirs], rtol=0, err_msg=theirs
    )
  np.testing.assert_array_equal(tracks.visible, ~expected['occluded'])


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        # One level is a part of two.
        pytest.param('jax_small_camel', marks=pytest.mark.heavy),
        'jax_small_apple_two_level',
    ],
)
def test_haiku_weights_follow_the_jax_program(name, reference, tmp_path):
  case = load_case(reference, name)
  expected = case.arrays
  path = golden.write_haiku_checkpoint(
      reference / 'locotrack' / case.meta['manifest'],
      case.meta['seed'],
      tmp_path / 'checkpoint.npy',
  )
  with pytest.warns(UserWarning, match='gelu=tanh'):
    tracker = tapjax.load(checkpoint=path, **list_settings(case))
  assert tracker.name == 'locotrack_small'
  states = run_stages(tracker, case).states
  tracks = tracker.track(case.frames, expected['query_points'])
  close = np.testing.assert_allclose
  for ours, theirs, stages in (
      (tracks.positions, 'tracks', states.positions),
      (tracks.occlusion_logits, 'occlusion_logit', states.occlusion_logits),
      (
          tracks.uncertainty_logits,
          'expected_dist_logit',
          states.uncertainty_logits,
      ),
  ):
    close(ours, expected[theirs], atol=JAX_TOLERANCE, rtol=0, err_msg=theirs)
    # The last of these is the mean in the place of the last iteration.
    close(
        stages[:-1],
        expected[f'iter_{theirs}'][:-1],
        atol=2 * JAX_TOLERANCE,
        rtol=0,
        err_msg=theirs,
    )
  np.testing.assert_array_equal(tracks.visible, ~expected['occluded'])


class Outputs(NamedTuple):
  features: locotrack.Features
  queries: locotrack.QueryFeatures
  states: tapjax.TrackState


def run_stages(tracker, case):
  """Returns what every arrow of the tracker returns, without the batch."""
  functions, params = tracker.functions, tracker.params
  size = functions.resolution
  video = resize_video(normalize_frames(case.frames), size)[None]
  scale = np.asarray([1, *np.divide(size, case.resolution)], np.float32)
  points = jnp.asarray(case.arrays['query_points'] * scale)[None]

  @jax.jit
  def run(params):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, points)
    first = functions.initialize_tracks(params, features, queries, points)
    states, _ = functions.refine_tracks(params, features, queries, first)
    return Outputs(
        *jax.tree.map(lambda x: x[0], (features, queries)),
        jax.tree.map(lambda x: x[:, 0], states),
    )

  outputs = jax.tree.map(np.asarray, run(params))
  pixels = np.divide(get_unit(tracker, case)[::-1], size[::-1])
  states = outputs.states
  return outputs._replace(
      states=states._replace(positions=states.positions * pixels)
  )


def get_unit(tracker, case):
  """Returns the size of the frames in whose pixels a file has positions."""
  if case.meta['settings']['api'] == 'inference':
    return tracker.functions.resolution
  return case.resolution


def pick(array, stored):
  """Takes as few cells and channels of an array as the file has."""
  steps = -(-np.asarray(array.shape[1:]) // np.asarray(stored.shape[1:]))
  return array[(slice(None), *(slice(None, None, step) for step in steps))]


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_stages(name, reference, tmp_path):
  """Intermediate values, the earliest first."""
  case = load_case(reference, name)
  expected, tolerance = case.arrays, case.meta['tolerance']
  tracker = load_tracker(case, reference, tmp_path)
  config, params = tracker.config, tracker.params
  outputs = run_stages(tracker, case)
  frames = [0, len(case.frames) // 2]

  def check(ours, theirs):
    np.testing.assert_allclose(
        ours,
        expected[theirs],
        atol=tolerance[theirs],
        rtol=0,
        err_msg=theirs,
    )

  for theirs, ours in FEATURES.items():
    name = f'feat_{theirs}'
    grids = getattr(outputs.features[-1], ours)[np.asarray(frames)]
    check(pick(grids, expected[name]), name)
    name = f'query_supp_{theirs}'
    supports = getattr(outputs.queries[-1], ours)[:4]
    check(pick(supports, expected[name]), name)
  if 'feat_lowres_level0' in expected:
    grids = outputs.features[0].coarse[np.asarray(frames)]
    name = 'feat_lowres_level0'
    check(pick(grids, expected[name]), name)
  check(outputs.states.positions, 'iter_tracks')
  check(outputs.states.occlusion_logits, 'iter_occlusion_logit')
  check(outputs.states.uncertainty_logits, 'iter_expected_dist_logit')

  class Exposed(LocoTrack):

    def heatmap(self, *costs):
      return self._heatmap(costs)

  network = make_network(
      lambda: Exposed(config, tracker.functions.platform),
      ('heatmap', 'mix'),
      lambda: (),
  )

  def apply(method, *arguments):
    return jax.jit(lambda *a: network.apply(method, *a))(params, *arguments)

  grids, vectors = outputs.features[0], get_centers(outputs.queries[0])
  costs = [
      jnp.einsum('thwc,nc->tnhw', grid, query).reshape(-1, *grid.shape[1:3])
      for grid, query in (
          (grids.coarse, vectors.coarse),
          (grids.middle, vectors.middle),
      )
  ]
  costs[0] = jax.image.resize(costs[0], costs[1].shape, 'bilinear')
  heatmap = apply('heatmap', *costs)
  heatmap = heatmap.reshape(len(case.frames), -1, *heatmap.shape[1:])
  heatmap = heatmap[::2][:3, :3]
  check(pick(heatmap, expected['cost_heatmap']), 'cost_heatmap')

  initial = config.initial_resolution
  resolution = config.levels[0].resolution
  unit = get_unit(tracker, case)
  to_initial = np.divide(initial[::-1], unit[::-1])
  first = jax.tree.map(lambda array: array[0], outputs.states)
  # Correlations distinguish places more finely than positions are rounded, so
  # this stage begins where the published one did.
  now = Refinement(
      jnp.asarray(expected['iter_tracks'][0] * to_initial, np.float32),
      first.occlusion_logits,
      first.uncertainty_logits,
      repeat_over_time(outputs.queries[-1], config, len(case.frames)),
  )
  embedded = jax.jit(tracker.functions._embed)(
      params, outputs.features[-1], outputs.queries[-1], now.positions
  )
  parts = np.split(embedded, 3, axis=-1)
  for part, theirs in zip(parts, ('hires', 'lowres', 'highest'), strict=True):
    check(part[:3, ::2], f'corr_embedding_{theirs}')
  inputs = join_inputs(now, embedded, config, resolution)
  check(inputs[:1], 'mixer_input')
  check(apply('mix', inputs)[..., :4], 'mixer_output4')
