import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.locotrack.correlations import CorrelationConv
from tapjax.models.locotrack.correlations import get_centers
from tapjax.models.locotrack.correlations import QueryPatches


def make_convolution(size, stride, platform):
  def call(correlation):
    module = CorrelationConv(7, 16, size, stride, platform, name='conv')
    return module(correlation, module.prepare_kernel())

  return hk.transform(call)


@pytest.mark.parametrize(('size', 'stride'), [(5, 4), (3, 2)])
def test_platforms_agree(size, stride):
  """A wide kernel is products on a CPU and a convolution elsewhere."""
  on_cpu = make_convolution(size, stride, 'cpu')
  on_gpu = make_convolution(size, stride, 'gpu')
  correlation = jax.random.normal(jax.random.key(0), (3, 49, 7, 7))
  params = jax.jit(on_cpu.init)(jax.random.key(1), correlation)
  params['conv']['b'] += 0.5
  shapes = jax.tree.map(jnp.shape, params)
  assert shapes == {'conv': {'w': (size, size, 49, 16), 'b': (16,)}}
  np.testing.assert_allclose(
      jax.jit(on_cpu.apply)(params, None, correlation),
      jax.jit(on_gpu.apply)(params, None, correlation),
      atol=1e-5,
  )


def test_images_over_either_pair_of_axes():
  """Exchanging the pairs exchanges the two halves of the result."""
  convolution = make_convolution(5, 4, 'cpu')
  correlation = jax.random.normal(jax.random.key(0), (2, 49, 7, 7))
  params = jax.jit(convolution.init)(jax.random.key(1), correlation)
  exchanged = correlation.reshape(2, 49, 49).swapaxes(1, 2)
  apply = jax.jit(convolution.apply)
  first, second = np.split(apply(params, None, correlation), 2)
  other = apply(params, None, exchanged.reshape(2, 49, 7, 7))
  assert not np.allclose(first, second, atol=1e-2)
  np.testing.assert_allclose(np.concatenate([second, first]), other, atol=1e-5)


def test_centers_of_patches():
  cells = jnp.arange(49.0).reshape(1, 7, 7, 1)
  vectors = get_centers(QueryPatches(cells, cells + 1, cells + 2))
  assert [float(vector[0, 0]) for vector in vectors] == [24, 25, 26]
