"""Optimizers, against stored parameters of the published implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tapjax.training.optimizers import make_optimizer
from tapjax.training.optimizers import make_schedule
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.optimizers import select_decayed
from tapjax.training.optimizers import stop_frozen

CONFIGS = {
    'adam_tapir': OptimizerConfig(),
    'adam_tapnet': OptimizerConfig(
        peak_lr=2e-3, warmup_steps=5000, weight_decay=1e-2
    ),
    'adam_clip_const': OptimizerConfig(
        peak_lr=3e-3,
        max_norm=1.0,
        schedule='constant_cosine',
        constant_share=0.1,
        end_lr=1e-4,
        num_steps=40,
    ),
    'sgd': OptimizerConfig(
        kind='sgd',
        peak_lr=1e-2,
        weight_decay=1e-2,
        warmup_steps=4,
        num_steps=40,
    ),
}


def select(arrays, prefix):
  weights = {}
  for key, array in arrays.items():
    if key.startswith(prefix):
      module, name = key.removeprefix(prefix).split('|')
      weights.setdefault(module, {})[name] = jnp.asarray(array)
  return weights


@pytest.fixture(scope='module')
def arrays(reference):
  with np.load(reference / 'tapvid' / 'golden_optimizer.npz') as file:
    return dict(file)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_schedule(name, arrays):
  schedule = make_schedule(CONFIGS[name])
  steps = arrays[f'{name}/schedule_steps']
  np.testing.assert_allclose(
      [schedule(step) for step in steps],
      arrays[f'{name}/schedule_values'],
      rtol=1e-5,
      atol=1e-7,
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_updates(name, arrays):
  """Five updates, one of them with a NaN, which changes nothing."""
  optimizer = make_optimizer(CONFIGS[name])
  weights = select(arrays, 'params_init/')
  state = optimizer.init(weights)

  @jax.jit
  def update(weights, state, gradients):
    changes, state = optimizer.update(gradients, state, weights)
    return optax.apply_updates(weights, changes), state

  for step in range(5):
    gradients = select(arrays, f'grads/{step}/')
    weights, state = update(weights, state, gradients)
    expected = select(arrays, f'{name}/params_after/{step}/')
    assert jax.tree.structure(weights) == jax.tree.structure(expected)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(
            ours, theirs, rtol=1e-5, atol=1e-7
        ),
        weights,
        expected,
    )
  assert state.total_notfinite == arrays[f'{name}/total_notfinite']


def test_what_is_decayed():
  weights = {
      'tapir/~/mixer/~/block_0/~/time_layer_norm': {'scale': 0},
      'tapir/~/resnet/~/instancenorm_0': {'scale': 0, 'offset': 0},
      'tap_net/~/unit_0_block_0/~/batch_norm': {'scale': 0, 'offset': 0},
      'tapir/~/mixer/~/input': {'w': 0, 'b': 0},
  }
  assert select_decayed(weights) == {
      'tapir/~/mixer/~/block_0/~/time_layer_norm': {'scale': False},
      'tapir/~/resnet/~/instancenorm_0': {'scale': True, 'offset': True},
      'tap_net/~/unit_0_block_0/~/batch_norm': {
          'scale': False,
          'offset': False,
      },
      'tapir/~/mixer/~/input': {'w': True, 'b': False},
  }


def test_no_gradient_passes_through_frozen_weights():
  weights = {'resnet': {'w': 2.0}, 'mixer': {'w': 3.0}}

  def compute(weights):
    frozen = stop_frozen(weights, ('res*',))
    return frozen['resnet']['w'] * frozen['mixer']['w']

  loss, gradients = jax.value_and_grad(compute)(weights)
  assert loss == 6
  assert gradients == {'resnet': {'w': 0.0}, 'mixer': {'w': 2.0}}
  assert stop_frozen(weights, ()) is weights
  with pytest.raises(ValueError, match="none matches 'restnet'"):
    stop_frozen(weights, ('restnet',))
