"""Data parallelism on eight virtual devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel

BATCH = jax.random.normal(jax.random.key(0), (16, 3))
WEIGHTS = jnp.asarray([1.0, -2.0, 0.5])


def compute_loss(weights, batch):
  return jnp.mean(jnp.tanh(batch @ weights) ** 2)


def update(weights, batch):
  loss, gradient = parallel.average(
      jax.value_and_grad(compute_loss)(weights, batch)
  )
  return weights - 0.1 * gradient, loss


def test_enough_devices():
  assert jax.device_count() == 8


@pytest.mark.parametrize('num_devices', [1, 4, 8])
def test_equals_one_call(num_devices):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  mapped = parallel.map_devices(update, mesh, donate_state=False)
  weights, loss = mapped(
      parallel.replicate(mesh, WEIGHTS), parallel.shard(mesh, BATCH)
  )
  expected = jax.value_and_grad(compute_loss)(WEIGHTS, BATCH)
  np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
  np.testing.assert_allclose(weights, WEIGHTS - 0.1 * expected[1], rtol=1e-6)


@pytest.mark.parametrize('num_devices', [4, 8])
def test_equals_pmap(num_devices):
  """Reference: the same function under `jax.pmap`."""
  devices = jax.devices()[:num_devices]
  mesh = parallel.make_mesh(devices)
  mapped = parallel.map_devices(update, mesh, donate_state=False)
  ours = mapped(parallel.replicate(mesh, WEIGHTS), parallel.shard(mesh, BATCH))

  theirs = functools.partial(
      jax.pmap, axis_name=mesh.axis_names[0], devices=devices, in_axes=(None, 0)
  )(update)(WEIGHTS, BATCH.reshape(num_devices, -1, 3))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b[0], rtol=1e-6), ours, theirs
  )


def test_keys_differ_between_devices():
  mesh = parallel.make_mesh()

  def draw(state, batch, key):
    del state
    number = jax.random.uniform(parallel.fold_device(key))
    return parallel.average(number), parallel.average(number**2 + 0 * batch[0])

  mapped = parallel.map_devices(draw, mesh, donate_state=False)
  mean, mean_square = mapped(
      jnp.zeros(()), parallel.shard(mesh, jnp.zeros(8)), jax.random.key(1)
  )
  assert mean_square - mean**2 > 1e-3


def test_batch_must_fit_the_devices():
  mesh = parallel.make_mesh(jax.devices()[:4])
  with pytest.raises(ValueError, match='multiple of the 4 local devices'):
    parallel.shard(mesh, np.zeros((6, 2)))


@pytest.mark.parametrize('num_devices', [1, 2, 4])
def test_rows_have_their_own_keys_whatever_shares_them(num_devices):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])

  def draw(key, batch):
    keys = parallel.fold_rows(key, len(batch))
    return jax.vmap(jax.random.uniform)(keys)

  key = jax.random.key(3)
  drawn = parallel.map_shards(draw, mesh)(
      key, parallel.shard(mesh, np.zeros((4, 1)))
  )
  expected = [jax.random.uniform(jax.random.fold_in(key, i)) for i in range(4)]
  np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
    ('batch_size', 'number'), [(1, 1), (3, 3), (4, 4), (10, 5), (24, 8)]
)
def test_a_batch_gets_the_devices_that_share_it(batch_size, number):
  assert parallel.make_batch_mesh(batch_size).size == number
