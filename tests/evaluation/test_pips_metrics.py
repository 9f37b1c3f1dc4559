import json

import numpy as np
import pytest

from tapjax.evaluation import pips_metrics

CASES = (
    'all_valid',
    'random_valid',
    'two_never_valid',
    'queries_not_in_frame0',
    'nan_where_invalid',
    'nan_where_valid',
    'all_invalid',
    'on_thresholds',
    'hd_native',
    'two_frames_one_track',
)


@pytest.fixture(scope='module')
def stored(reference):
  with np.load(reference / 'pips2' / 'golden_metrics_tracks.npz') as file:
    arrays = dict(file)
  return json.loads(str(arrays.pop('meta'))), arrays


@pytest.mark.parametrize('case', CASES)
def test_published_scores(case, stored):
  meta, arrays = stored
  size, native = meta['eval_hw'][case], meta['native_hw'][case]
  scale = np.float32([size[1] / native[1], size[0] / native[0]])
  # Stored as [1, t, n].
  target, positions, valid = (
      arrays[f'{case}_{name}'][0].swapaxes(0, 1)
      for name in ('gt', 'pred', 'valid')
  )
  target = target * scale
  metrics = pips_metrics.compute_pips_metrics(
      positions, target, valid, tuple(size)
  )
  np.testing.assert_allclose(metrics, arrays[f'{case}_metrics'], atol=1e-4)

  scale = np.asarray([256 / size[1], 256 / size[0]])
  distances = np.sqrt(np.sum(np.square((positions - target) * scale), axis=-1))
  medians = pips_metrics.compute_track_medians(distances, valid > 0)
  np.testing.assert_allclose(medians, arrays[f'{case}_track_median'], atol=1e-4)
  alive = pips_metrics.find_survivors(distances, valid > 0)
  np.testing.assert_array_equal(alive.T, arrays[f'{case}_alive'][0])


@pytest.mark.parametrize('step', ['train', 'val'])
def test_scores_of_training(step, stored):
  meta, arrays = stored
  positions, target, visible, valid = (
      arrays[f'trainer_{name}'].swapaxes(1, 2)
      for name in ('pred', 'gt', 'visible', 'valid')
  )
  metrics = pips_metrics.compute_pips_metrics(
      positions,
      target,
      valid,
      tuple(meta['trainer_hw']),
      drop_unstarted=step == 'train',
  )
  errors = pips_metrics.compute_pips_errors(positions, target, visible, valid)
  np.testing.assert_allclose(
      (*metrics, *errors), arrays[f'trainer_{step}_metrics'], atol=1e-4
  )


def test_the_truth_is_perfect():
  target = np.random.default_rng(0).uniform(0, 99, (3, 7, 2))
  metrics = pips_metrics.compute_pips_metrics(
      target, target, np.ones((3, 7)), (100, 100)
  )
  np.testing.assert_allclose(metrics, [100] * 7 + [0], rtol=1e-6)


def test_a_lost_track_stays_lost():
  """Half of the frames after the loss count as lost, found again or not."""
  target = np.zeros((1, 8, 2))
  positions = target.copy()
  positions[0, 4] = 17
  valid = np.ones((1, 8))
  args = (positions, target, valid, (256, 256))
  assert pips_metrics.compute_pips_metrics(*args).survival == 50
  valid[0, 4] = 0
  assert pips_metrics.compute_pips_metrics(*args).survival == 100
