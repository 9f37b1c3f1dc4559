"""Sizes and cost of the pre-activation residual network."""

import haiku as hk
import jax
import numpy as np
import pytest

from tapjax.nn.resnet import count_resnet
from tapjax.nn.resnet import ResNet

CHANNELS, STRIDES = (4, 6, 8), (1, 2, 2)
IMAGE = jax.ShapeDtypeStruct((1, 32, 48, 3), np.float32)


def make_network():
  return hk.without_apply_rng(
      hk.transform(
          lambda images: ResNet(CHANNELS, STRIDES, 2, 4, 'cpu', 'resnet')(
              images
          )
      )
  )


def test_outputs_are_the_stem_and_every_group():
  network = make_network()
  params = jax.eval_shape(network.init, jax.random.key(0), IMAGE)
  outputs = jax.eval_shape(network.apply, params, IMAGE)
  assert [output.shape[1:] for output in outputs] == [
      (16, 24, 4),
      (16, 24, 4),
      (8, 12, 6),
      (4, 6, 8),
  ]


def test_operations_are_those_of_all_kernels():
  params = jax.eval_shape(make_network().init, jax.random.key(0), IMAGE)
  pixels = {'initial_conv': 16 * 24}
  for group, size in enumerate((16 * 24, 8 * 12, 4 * 6)):
    pixels[f'block_group_{group}'] = size
  total = 0
  for module, arrays in params.items():
    if 'w' in arrays:
      (size,) = [n for part, n in pixels.items() if part in module]
      total += 2 * size * np.prod(arrays['w'].shape)
  assert count_resnet(32.0 * 48, CHANNELS, STRIDES) == pytest.approx(total)
