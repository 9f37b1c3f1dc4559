import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.nn.convolution import Conv2D
from tapjax.nn.convolution import convolve
from tapjax.nn.convolution import list_kernel_spans
from tapjax.nn.convolution import make_row_weights


def convolve_by_xla(x, kernel, stride):
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@pytest.mark.parametrize('platform', ['cpu', 'gpu'])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
    ('size', 'shape'),
    [
        (1, (2, 5, 4, 3)),
        (3, (1, 6, 7, 2)),
        pytest.param(7, (2, 1, 8, 3), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gradients_are_those_of_xla(size, shape, stride, platform):
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], shape)
  kernel = jax.random.normal(keys[1], (size, size, shape[-1], 4))
  size = convolve_by_xla(x, kernel, stride).shape
  cotangent = jax.random.normal(keys[2], size)

  @functools.partial(jax.jit, static_argnums=0)
  def differentiate(function, x, kernel):
    result, pull = jax.vjp(function, x, kernel)
    return result, pull(cotangent)

  result, ours = differentiate(
      lambda x, w: convolve(x, w, stride, platform), x, kernel
  )
  expected, theirs = differentiate(
      lambda x, w: convolve_by_xla(x, w, stride), x, kernel
  )
  np.testing.assert_array_equal(result, expected)
  for own, other in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(own, other, atol=2e-5)


@pytest.mark.parametrize('with_bias', [True, False])
def test_module_is_that_of_haiku(with_bias):
  def apply(module, **settings):
    return hk.transform(
        lambda x: module(4, 3, 2, with_bias=with_bias, name='conv', **settings)(
            x
        )
    )

  x = jnp.ones((1, 6, 6, 3))
  ours, theirs = apply(Conv2D, platform='cpu'), apply(hk.Conv2D)
  params = ours.init(jax.random.key(0), x)
  jax.tree.map(
      np.testing.assert_array_equal, params, theirs.init(jax.random.key(0), x)
  )
  np.testing.assert_allclose(
      ours.apply(params, None, x), theirs.apply(params, None, x), atol=1e-6
  )


@pytest.mark.parametrize(
    ('size', 'stride', 'side'), [(5, 4, 7), (3, 2, 7), (2, 2, 5), (3, 1, 4)]
)
def test_rows_of_outputs_are_products(size, stride, side):
  generator = np.random.default_rng(0)
  x = generator.normal(size=(3, side, side, 6)).astype(np.float32)
  kernel = generator.normal(size=(size, size, 6, 4)).astype(np.float32)
  expected = convolve_by_xla(x, kernel, stride)
  rows = [
      x[:, span.start : span.stop].reshape(3, -1)
      @ weights.reshape(-1, weights.shape[-1])
      for span, weights in zip(
          list_kernel_spans(size, stride, side),
          make_row_weights(jnp.asarray(kernel), stride, side),
          strict=True,
      )
  ]
  ours = np.stack(rows, axis=1).reshape(expected.shape)
  np.testing.assert_allclose(ours, expected, atol=1e-4)
