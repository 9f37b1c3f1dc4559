"""Haiku modules as pure functions."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models.haiku import make_network


class Counter(hk.Module):
  """A matrix, and the number of calls in training."""

  def __init__(self):
    super().__init__(name='counter')
    self._linear = hk.Linear(2, name='linear')

  def __call__(self, x):
    self.count(x)
    return self.scale(x)

  def scale(self, x):
    return self._linear(x)

  def count(self, x):
    calls = hk.get_state('calls', (), init=jnp.zeros)
    hk.set_state('calls', calls + 1)
    return x


def make():
  return make_network(Counter, ('scale', 'count'), lambda: (jnp.ones((1, 3)),))


def test_running_a_module_makes_all_parameters():
  params = make().init(jax.random.key(0))
  assert params.params['counter/~/linear']['w'].shape == (3, 2)
  assert set(params.state['counter']) == {'calls'}


def test_methods_are_functions_of_their_parameters():
  network = make()
  params = network.init(jax.random.key(0))
  x = jnp.ones((4, 3))
  weights = params.params['counter/~/linear']
  np.testing.assert_allclose(
      network.apply('scale', params, x),
      x @ weights['w'] + weights['b'][None],
      rtol=1e-6,
  )


def test_statistics_are_returned_and_not_kept():
  network = make()
  params = network.init(jax.random.key(0))
  before = float(params.state['counter']['calls'])
  _, state = network.apply_with_statistics(
      'count', params, None, jnp.ones((1, 3))
  )
  assert float(state['counter']['calls']) == before + 1
  assert float(params.state['counter']['calls']) == before
