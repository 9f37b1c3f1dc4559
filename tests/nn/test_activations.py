import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.nn.activations import gelu

VALUES = jnp.asarray([-1e4, -60.0, -9.0, -3.0, -0.1, 0.0, 0.1, 3.0, 9.0, 1e4])


def test_equals_the_tanh_approximation():
  # In double precision: that of JAX is rounded by as much as is allowed here.
  x = np.asarray(VALUES, np.float64)
  expected = x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
  np.testing.assert_allclose(gelu(VALUES), expected, rtol=2e-6, atol=1e-7)
  exact = jax.nn.gelu(VALUES, approximate=False)
  assert np.abs(gelu(VALUES) - exact).max() > 1e-4


@pytest.mark.parametrize('differentiate', [jax.grad, jax.jit])
def test_gradient_is_finite_and_right(differentiate):
  def total(function):
    return lambda x: jnp.sum(function(x))

  ours = jax.grad(total(gelu))
  if differentiate is jax.jit:
    ours = jax.jit(ours)
  reference = jax.grad(total(lambda x: jax.nn.gelu(x, approximate=True)))
  np.testing.assert_allclose(ours(VALUES), reference(VALUES), atol=1e-5)
