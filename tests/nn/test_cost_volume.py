import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.nn.cost_volume import NarrowConv


@pytest.mark.parametrize(('inputs', 'outputs'), [(1, 4), (4, 1)])
def test_narrow_convolutions_and_their_gradients(inputs, outputs):
  ours, theirs = (
      hk.transform(lambda x, make=make: make()(x))
      for make in (
          lambda: NarrowConv(outputs, 'conv'),
          lambda: hk.Conv2D(outputs, 3, name='conv'),
      )
  )
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 5, 6, inputs))
  params = ours.init(keys[1], x)
  params['conv']['b'] += 0.5
  cotangent = jax.random.normal(keys[2], (2, 5, 6, outputs))

  def differentiate(model):
    result, pull = jax.vjp(lambda *a: model.apply(a[0], None, a[1]), params, x)
    return result, pull(cotangent)

  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
      differentiate(ours),
      differentiate(theirs),
  )
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(
      jnp.shape, theirs.init(keys[1], x)
  )
