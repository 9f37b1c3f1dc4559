"""TAP-Net against stored outputs of the published implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.geometry import normalize_frames
from tests.support import golden

PIXELS = 5e-4
LOGITS = 5e-5
FEATURES = 5e-6


@pytest.mark.parametrize(
    'name',
    [
        pytest.param('tapnet_offline', id='square', marks=pytest.mark.slow),
        pytest.param('tapnet_crop', id='crop', marks=pytest.mark.slow),
    ],
)
def test_whole_video(name, reference, tmp_path):
  case = golden.load_case(reference / 'tapir' / f'golden_{name}.npz')
  expected = case.arrays
  path = golden.write_haiku_checkpoint(
      reference / 'tapir' / case.meta['manifest'],
      case.meta['seed'],
      tmp_path / 'weights.npy',
  )
  tracker = tapjax.load('tapnet', checkpoint=path, resolution=case.resolution)
  features = jax.jit(tracker.functions.encode_video)(
      tracker.params, normalize_frames(case.frames)[None]
  )
  queries = tracker.functions.describe_queries(
      tracker.params, features, jnp.asarray(expected['query_points'])[None]
  )
  close = np.testing.assert_allclose
  close(features[0, 1, ::8, ::8], expected['feature_grid'], atol=FEATURES)
  close(queries[0], expected['query_feats'], atol=FEATURES)

  tracks = tracker.track(case.frames, expected['query_points'], frame_chunk=2)
  close(tracks.positions, expected['tracks'], atol=PIXELS)
  close(tracks.occlusion_logits, expected['occlusion'], atol=LOGITS)
  assert tracks.uncertainty_logits is None
  np.testing.assert_array_equal(tracks.visible, expected['visible'])
