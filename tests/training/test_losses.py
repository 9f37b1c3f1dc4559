"""The losses, against stored values of the published implementation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.training.losses import compute_losses
from tapjax.training.losses import LossConfig
from tapjax.types import TrackState

FIELDS = {
    'position_loss_weight': 'position_weight',
    'expected_dist_thresh': 'uncertainty_threshold',
    'huber_loss_delta': 'huber_delta',
    'rebalance_factor': 'rebalance_factor',
}
CASES = (
    'default',
    'mask',
    'no_expected_dist',
    'weights',
    'rebalance',
    'occlusion_mask',
    'all',
)


def load(path):
  with np.load(path) as file:
    arrays = dict(file)
  meta = json.loads(str(arrays.pop('meta')))
  return meta, jax.tree.map(jnp.asarray, arrays)


@pytest.mark.parametrize('case', CASES)
def test_values_and_gradients(case, reference):
  meta, arrays = load(reference / 'tapvid' / 'golden_losses.npz')
  settings = meta['settings'][case]
  config = LossConfig(
      **{FIELDS[k]: float(v) for k, v in settings.items() if k in FIELDS}
  )
  uncertainty = arrays['expected_dist']
  if case == 'no_expected_dist':
    uncertainty = None
  _, _, height, width, _ = arrays['video_shape'].tolist()

  def compute(state):
    losses = compute_losses(
        state,
        arrays['target_points'],
        arrays['target_occ'],
        (height, width),
        config,
        arrays['mask'] if 'mask' in settings else None,
        arrays['occlusion_loss_mask']
        if 'occlusion_loss_mask' in settings
        else None,
    )
    return losses.total, losses

  state = TrackState(arrays['points'], arrays['occlusion'], uncertainty)
  gradient, losses = jax.jit(jax.grad(compute, has_aux=True))(state)
  pairs = zip(losses[:3], ('huber', 'occ', 'prob'), strict=True)
  for loss, name in pairs:
    np.testing.assert_allclose(
        loss, arrays[f'{case}/loss_{name}'], rtol=1e-5, atol=1e-7
    )
  pairs = zip(
      gradient[:3], ('points', 'occlusion', 'expected_dist'), strict=True
  )
  for array, name in pairs:
    if array is not None:
      np.testing.assert_allclose(
          array, arrays[f'{case}/grad_{name}'], rtol=1e-5, atol=1e-7
      )


def test_sum_over_iterations(reference):
  """The whole loss: every intermediate answer counts as much as the last."""
  _, arrays = load(reference / 'tapvid' / 'golden_task_loss.npz')
  names = ('tracks', 'occlusion', 'expected_dist')
  states = TrackState(
      *(
          jnp.stack(
              [arrays[f'unrefined_{name}/{i}'] for i in range(3)]
              + [arrays[name]]
          )
          for name in names
      )
  )
  _, _, height, width, _ = arrays['video_shape'].tolist()

  def compute(states):
    losses = compute_losses(
        states,
        arrays['target_points'],
        arrays['occluded'],
        (height, width),
        LossConfig(),
    )
    return losses.total, losses

  gradient, losses = jax.jit(jax.grad(compute, has_aux=True))(states)
  np.testing.assert_allclose(losses.total, arrays['loss'], rtol=2e-5)
  for i, suffix in enumerate(('_0', '_1', '_2', '')):
    for loss, name in zip(
        losses[:3], ('position', 'occlusion', 'prob'), strict=True
    ):
      np.testing.assert_allclose(
          loss[i], arrays[f'scalars/{name}_loss{suffix}'], rtol=2e-5
      )
    for array, name in zip(gradient[:3], names, strict=True):
      key = f'grad/{name}' if i == 3 else f'grad/unrefined_{name}/{i}'
      np.testing.assert_allclose(array[i], arrays[key], rtol=2e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize('value', [1e6, np.nan], ids=['far', 'nan'])
def test_hidden_targets_do_not_move_the_loss(value):
  key = jax.random.key(0)
  state = TrackState(
      jax.random.normal(key, (1, 2, 3, 2)), jnp.zeros((1, 2, 3)), None
  )
  occluded = jnp.asarray([[[True, False, True], [False, True, False]]])
  targets = jnp.ones((1, 2, 3, 2))
  moved = jnp.where(occluded[..., None], value, targets)

  def compute(state, targets):
    return compute_losses(
        state, targets, occluded, (64, 64), LossConfig()
    ).total

  expected, expected_gradient = jax.value_and_grad(compute)(state, targets)
  total, gradient = jax.value_and_grad(compute)(state, moved)
  np.testing.assert_allclose(total, expected)
  np.testing.assert_allclose(gradient.positions, expected_gradient.positions)


def test_heatmaps_count_once_and_only_where_a_point_is_seen():
  states = TrackState(jnp.ones((2, 1, 2, 2, 2)), None, None)
  occluded = jnp.asarray([[[True, False], [False, False]]])
  scores = jnp.asarray([[[[-100.0, -1.0], [-2.0, -3.0]]]])
  config = LossConfig(heatmap_weight=0.5)

  def compute(config, scores):
    targets = jnp.ones((1, 2, 2, 2))
    scored = states._replace(target_log_probs=scores)
    return compute_losses(scored, targets, occluded, (64, 64), config)

  losses = compute(config, scores)
  np.testing.assert_allclose(losses.heatmap, [0.5 * (1 + 2 + 3) / 4, 0])
  assert losses.total == losses.heatmap.sum()
  plain = compute(LossConfig(), scores)
  np.testing.assert_array_equal(plain.heatmap, [0, 0])
  with pytest.raises(ValueError, match='heatmap_weight must be 0'):
    compute(config, None)
