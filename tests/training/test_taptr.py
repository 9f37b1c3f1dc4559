"""Training of TAPTRv2: rates, average, queries and first weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.models.taptr.functions import TaptrFunctions
from tapjax.training.taptr import _average_weights
from tapjax.training.taptr import choose_queries
from tapjax.training.taptr import draw_first_weights
from tapjax.training.taptr import make_taptr_optimizer
from tapjax.training.taptr import make_taptr_state
from tapjax.training.taptr import make_taptr_update
from tapjax.training.taptr import TaptrTrainingConfig
from tapjax.types import Example
from tests.experiments.test_taptr_videos import make_batch
from tests.experiments.test_taptr_videos import make_config


def test_the_rate_depends_on_the_module():
  """Adam's first step is the sign of the gradient, times the rate."""
  config = TaptrTrainingConfig(weight_decay=0.5)
  names = 'taptr/~/backbone/~/stem/~/conv', 'taptr/~/describer'
  weights = {name: {'w': jnp.asarray([2.0, -4.0])} for name in names}
  gradients = {name: {'w': jnp.asarray([3.0, 1.0])} for name in names}
  optimizer = make_taptr_optimizer(config)
  changes, _ = optimizer.update(gradients, optimizer.init(weights), weights)
  for name, rate in zip(names, (1e-5, 2e-4), strict=True):
    expected = -rate * np.asarray([1 + 0.5 * 2, 1 - 0.5 * 4])
    np.testing.assert_allclose(changes[name]['w'], expected, rtol=1e-4)


def test_the_average_follows_slowly_and_heads_twice():
  config = TaptrTrainingConfig(average_decay=0.5, average_parts=2)
  names = 'taptr', 'taptr/~/describer', 'taptr/~/boxes_3/~/linear_1'
  zeros = {name: {'w': jnp.zeros(1)} for name in names}
  ones = jax.tree.map(jnp.ones_like, zeros)
  average = _average_weights(zeros, ones, config)
  values = [float(average[name]['w'][0]) for name in names]
  np.testing.assert_allclose(values, [3 / 4, 3 / 4, 15 / 16])


def test_points_begin_where_they_are_first_seen():
  occluded = np.asarray([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
  example = Example(
      video=jnp.zeros((4, 2, 2, 3)),
      query_points=jnp.asarray([[3.0, 0, 0], [2, 0, 0], [2, 0, 0]]),
      target_points=jnp.arange(24.0).reshape(3, 4, 2),
      occluded=jnp.asarray(occluded),
  )
  chosen = choose_queries(jax.random.key(0), example, 0.0)
  np.testing.assert_array_equal(
      chosen.query_points, [[1, 3, 2], [0, 9, 8], [2, 21, 20]]
  )
  seen = [
      np.asarray(choose_queries(jax.random.key(i), example, 1.0).query_points)
      for i in range(24)
  ]
  assert {float(points[0, 0]) for points in seen} == {1, 3}
  assert {float(points[1, 0]) for points in seen} == {0, 1, 2, 3}
  assert {float(points[2, 0]) for points in seen} == {2}


@pytest.mark.slow
def test_first_weights(quick_compilation):
  config = make_config().model
  functions = TaptrFunctions(config)
  drawn = functions.init(jax.random.key(0))
  first = draw_first_weights(jax.random.key(1), drawn)
  assert jax.tree.structure(first) == jax.tree.structure(drawn)
  weights, old = first.params, drawn.params
  ours = 'taptr/~/'
  for i in range(config.decoder_layers):
    last = weights[f'{ours}boxes_{i}/~/linear_2']
    assert not last['w'].any()
    assert not last['b'].any()
    bias = weights[f'{ours}classes_{i}']['b']
    np.testing.assert_allclose(bias, -math.log(99), rtol=1e-5)
  for name in ('describer', 'updater/~/linear_0', 'window_updater/~/linear_1'):
    matrix = weights[ours + name]['w']
    limit = len(matrix) ** -0.5
    assert 0.9 * limit < np.abs(matrix).max() <= limit
  for name in ('encoder_0/~/mlp', 'decoder_1/~/mover', 'embedder', 'fuser'):
    layer = weights[f'{ours}{name}/~/linear_0']
    before = old[f'{ours}{name}/~/linear_0']
    np.testing.assert_array_equal(layer['w'], before['w'])
    limit = len(layer['w']) ** -0.5
    assert 0.7 * limit < np.abs(layer['b']).max() <= limit
  kept = [
      name
      for name in weights
      if name.startswith((f'{ours}backbone', f'{ours}projection'))
      or '_attention' in name.split('/~/')[-1]
      or name.endswith(('/offsets', '_norm', '/weights'))
  ]
  kept += [f'{ours}encoder_0/~/{name}' for name in ('value', 'output')]
  kept += [f'{ours}decoder_0/~/time_attention/~/output']
  for name in kept:
    jax.tree.map(np.testing.assert_array_equal, weights[name], old[name])
  key = weights[f'{ours}decoder_0/~/frame_attention/~/key']['b']
  assert key.any()


@pytest.mark.slow
@pytest.mark.heavy
def test_the_loss_falls_on_one_batch(quick_compilation):
  config = make_config('training.peak_lr=2e-3', 'training.restarted=0.0')
  functions = TaptrFunctions(config.model)
  params = functions.init(jax.random.key(0))
  params = draw_first_weights(jax.random.key(1), params)
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = make_taptr_state(params, config.training)
  state = parallel.replicate(mesh, state)
  batch = make_batch()
  update = make_taptr_update(config.model, config.training, mesh)
  losses = []
  for _ in range(40):
    state, metrics = update(state, batch, jax.random.key(3))
    assert int(metrics.bad_updates) == 0
    losses.append(float(metrics.loss))
  assert int(state.num_updates) == 40
  assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
