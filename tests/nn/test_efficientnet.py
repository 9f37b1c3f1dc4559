import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.nn import efficientnet
from tapjax.nn.efficientnet import drop_images
from tapjax.nn.efficientnet import list_blocks
from tapjax.nn.efficientnet import TRUNKS


@pytest.mark.parametrize(
    ('size', 'stride', 'padding'),
    [(3, 1, (1, 1)), (3, 2, (0, 1)), (5, 2, (1, 2)), (5, 2, (2, 2))],
    ids=str,
)
@pytest.mark.parametrize('shape', [(8, 12), (7, 9)], ids=str)
def test_depthwise_convolution(size, stride, padding, shape):
  generator = np.random.default_rng(0)
  x = generator.normal(size=(2, *shape, 5)).astype(np.float32)
  kernel = generator.normal(size=(size, size, 1, 5)).astype(np.float32)
  expected = jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      (padding, padding),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=5,
  )
  ours = jax.jit(efficientnet._convolve_depthwise, static_argnums=(2, 3))(
      x, kernel, stride, padding
  )
  np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(
    ('trunk', 'expected'),
    [
        ('b0', {1: (0, 1), 3: (1, 2)}),
        ('b2', {2: (0, 1), 5: (2, 2), 8: (1, 1)}),
        ('b5', {3: (0, 1), 8: (1, 2), 13: (0, 1)}),
        ('b256', {2: (0, 1), 5: (1, 2), 8: (0, 1)}),
    ],
)
def test_paddings_of_strided_blocks(trunk, expected):
  """Paddings are those of the nominal size: 260 for b2."""
  blocks = list(list_blocks(TRUNKS[trunk]))
  strided = {
      i: block.padding for i, block in enumerate(blocks) if block.stride == 2
  }
  assert strided == expected


@pytest.mark.parametrize(
    ('trunk', 'channels', 'squeezed'),
    [
        ('b0', (16, 24, 40), (8, 4, 6, 6, 10)),
        ('b0_deep', (16, 40, 112), (8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28)),
        ('b2', (16, 48, 120), (8, 4, 4, 6, 6, 6, 12, 12, 12, 22, 22, 22, 22)),
        ('b5', (40, 64, 176), (12, 6, 6, 6, 10, 10, 10, 10, 10, 16)),
    ],
)
def test_widths(trunk, channels, squeezed):
  blocks = list(list_blocks(TRUNKS[trunk]))
  taps = TRUNKS[trunk].taps
  assert tuple(blocks[tap].channels for tap in taps) == channels
  assert tuple(b.squeezed for b in blocks[: len(squeezed)]) == squeezed


def test_dropped_images_leave_the_mean():
  x = jnp.ones((4000, 1, 1, 2))
  dropped = np.asarray(drop_images(jax.random.key(0), x, 0.2))
  assert set(np.unique(dropped)) == {0, 1.25}
  np.testing.assert_array_equal(dropped[..., 0], dropped[..., 1])
  assert np.mean(dropped) == pytest.approx(1, abs=0.03)
