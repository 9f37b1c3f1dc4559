import functools

import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from tapjax import parallel
from tapjax.nn.normalization import BatchNorm
from tapjax.nn.normalization import LayerNorm
from tapjax.nn.normalization import standardize

EPSILON, DECAY = 1e-3, 0.99


def make_batch_norm(axis):
  def run(x, is_training):
    norm = BatchNorm('norm', epsilon=EPSILON, decay=DECAY, axis=axis)
    return norm(x, is_training=is_training)

  return hk.transform_with_state(run)


def make_values(shape=(4, 3, 5, 2)):
  generator = np.random.default_rng(0)
  return jnp.asarray(generator.normal(3, 2, shape), jnp.float32)


@pytest.mark.parametrize('axes', [(-1,), (1, 2)])
def test_standardized_values_and_their_gradients(axes):
  def standardize_plainly(x):
    mean = jnp.mean(x, axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(jnp.var(x, axes, keepdims=True) + 1e-5)

  x = make_values()
  weights = jnp.sin(jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
  ours, expected = (
      jax.jit(jax.value_and_grad(lambda x, f=f: jnp.sum(weights * f(x))))(x)
      for f in (lambda x: standardize(x, axes), standardize_plainly)
  )
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, expected
  )


@pytest.mark.parametrize('with_offset', [False, True])
def test_layer_norm_is_that_of_haiku(with_offset):
  theirs = hk.transform(
      lambda x: hk.LayerNorm(-1, True, with_offset, 1e-5, name='norm')(x)
  )
  ours = hk.transform(lambda x: LayerNorm('norm', with_offset=with_offset)(x))
  x = make_values()
  shapes = jax.tree.map(jnp.shape, theirs.init(None, x))
  params = {
      'norm': {
          name: jnp.linspace(0.5, 2, x.shape[-1]) for name in shapes['norm']
      }
  }
  assert jax.tree.map(jnp.shape, ours.init(None, x)) == shapes
  np.testing.assert_allclose(
      ours.apply(params, None, x), theirs.apply(params, None, x), atol=2e-5
  )


def test_batch_norm_in_training_and_behind_it():
  x = make_values()
  norm = make_batch_norm(None)
  params, state = norm.init(None, x, False)
  output, state = norm.apply(params, state, None, x, True)
  values = np.asarray(x)
  mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
  expected = (values - mean) / np.sqrt(variance + EPSILON)
  np.testing.assert_allclose(output, expected, atol=1e-5)
  size = x.size / x.shape[-1]
  running = jax.tree.map(np.asarray, state['norm'])
  np.testing.assert_allclose(running['mean'], 0.01 * mean, rtol=1e-4)
  np.testing.assert_allclose(
      running['variance'],
      0.99 + 0.01 * variance * size / (size - 1),
      rtol=1e-5,
  )
  output, after = norm.apply(params, state, None, x, False)
  expected = (values - running['mean']) / np.sqrt(running['variance'] + EPSILON)
  np.testing.assert_allclose(output, expected, atol=1e-5)
  jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.parametrize('num_devices', [2, 4])
def test_batch_norm_sees_the_shards_of_all_devices(num_devices):
  x = make_values()
  params, state = make_batch_norm(None).init(None, x, False)
  whole = make_batch_norm(None).apply(params, state, None, x, True)
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  shard, same = PartitionSpec(parallel.AXIS), PartitionSpec()
  apply = functools.partial(make_batch_norm(parallel.AXIS).apply, params)
  mapped = jax.shard_map(
      lambda state, x: apply(state, None, x, True),
      mesh=mesh,
      in_specs=(same, shard),
      out_specs=(shard, same),
      check_vma=False,
  )
  ours = jax.jit(mapped)(state, x)
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=1e-5), ours, whole
  )


def test_batch_norm_keeps_statistics_that_halves_would_lose():
  x = make_values().astype(jnp.bfloat16)
  norm = make_batch_norm(None)
  params, state = norm.init(None, x, False)
  output, state = norm.apply(params, state, None, x, True)
  assert output.dtype == jnp.bfloat16
  mean = state['norm']['mean']
  assert mean.dtype == jnp.float32
  expected = 0.01 * np.asarray(x, np.float32).mean((0, 1, 2))
  np.testing.assert_allclose(mean, expected, rtol=1e-4)
