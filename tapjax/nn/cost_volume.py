"""Cost volumes: similarity of each query to every cell of a frame."""

from collections.abc import Iterator
import itertools
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.nn.convolution import Conv2D
from tapjax.nn.convolution import turn_kernel
from tapjax.ops.heatmap import soft_argmax
from tapjax.ops.loops import add_all

_HIDDEN_CHANNELS = 16
_KERNEL = 3
# Radius of the soft argmax around the peak of the heatmap, in cells.
_PEAK_RADIUS = 5.0
_POOLED_CHANNELS = 32


class FrameEstimate(NamedTuple):
  """Position of each query in a frame, (x, y) in cells, and logits.

  `heatmap` is the log-probability of each cell; None if it is not computed.
  """

  positions: Float[Array, 'n *t 2']
  logits: Float[Array, 'n *t k']
  heatmap: Float[Array, 'n h w'] | None = None


class NarrowConv(hk.Module):
  """A 3x3 convolution from or to one channel, as a sum of shifted products.

  For so few channels, a convolution takes two to three times as long on a CPU.
  """

  def __init__(self, channels: int, name: str):
    super().__init__(name=name)
    self._channels = channels

  def __call__(self, x: Float[Array, 'n h w c']) -> Float[Array, 'n h w o']:
    shape = (_KERNEL, _KERNEL, x.shape[-1], self._channels)
    fan_in = _KERNEL**2 * x.shape[-1]
    kernel = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(fan_in**-0.5)
    )
    bias = hk.get_parameter('b', shape[-1:], init=jnp.zeros)
    return _convolve_narrow(x, kernel) + bias[None, None, None]


class CostVolumeHead(hk.Module):
  """Estimates positions and logits from the cost volume of one frame.

  `pooled_stride` is the stride of the convolution before the logits' pooling.
  """

  def __init__(
      self,
      num_logits: int,
      temperature: float,
      *,
      rectify_pooled: bool,
      pooled_stride: int = 2,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._temperature = temperature
    self._rectify_pooled = rectify_pooled
    self._hidden = NarrowConv(_HIDDEN_CHANNELS, name='hidden')
    self._heatmap = NarrowConv(1, name='heatmap')
    self._pooled = Conv2D(
        _POOLED_CHANNELS,
        _KERNEL,
        pooled_stride,
        platform=platform,
        name='pooled',
    )
    self._mixed = hk.Linear(_HIDDEN_CHANNELS, name='mixed')
    self._logits = hk.Linear(num_logits, name='logits')

  def __call__(
      self,
      features: Float[Array, 'h w c'],
      query_features: Float[Array, 'n c'],
      bias: Float[Array, 'n h w'] | None = None,
      other_features: Float[Array, 'n c'] | None = None,
  ) -> FrameEstimate:
    """Returns estimates; `bias` is added to the logits of the heatmap.

    With `other_features`, the cost of a cell is the larger of its two dot
    products with the features of a query.
    """
    height, width, channels = features.shape
    cells = features.reshape(-1, channels).T
    cost_volume = query_features @ cells
    if other_features is not None:
      cost_volume = jnp.maximum(cost_volume, other_features @ cells)
    cost_volume = cost_volume.reshape(-1, height, width)
    hidden = jax.nn.relu(self._hidden(cost_volume[..., None]))

    heatmap = self._heatmap(hidden)[..., 0] * self._temperature
    if bias is not None:
      heatmap += bias
    positions = soft_argmax(heatmap, _PEAK_RADIUS)
    heatmap = jax.nn.log_softmax(heatmap, axis=(1, 2))

    pooled = self._pooled(hidden)
    if self._rectify_pooled:
      pooled = jax.nn.relu(pooled)
    mixed = jax.nn.relu(self._mixed(jnp.mean(pooled, axis=(1, 2))))
    return FrameEstimate(positions, self._logits(mixed), heatmap)


def score_positions(
    heatmap: Float[Array, 'n h w'], positions: Float[Array, 'n 2']
) -> Float[Array, 'n']:
  """Returns the log-probability of each position, (x, y) in cells.

  Probabilities are interpolated bilinearly between the centers of cells.
  """
  _, height, width = heatmap.shape
  last = jnp.asarray([width - 1, height - 1], positions.dtype)
  corner = jnp.clip(positions - 0.5, 0, last[None])
  base = jnp.clip(jnp.floor(corner), 0, jnp.maximum(last - 1, 0)[None])
  fraction = corner - base
  (x, y), (right, below) = base.astype(jnp.int32).T, fraction.T
  rows = jnp.arange(len(heatmap))
  taps = [
      heatmap[rows, y + i, x + j] for i, j in itertools.product((0, 1), (0, 1))
  ]
  weights = [
      row * column
      for row, column in itertools.product(
          (1 - below, below), (1 - right, right)
      )
  ]
  return jax.nn.logsumexp(jnp.stack(taps), axis=0, b=jnp.stack(weights))


@jax.custom_vjp
def _convolve_narrow(
    x: Float[Array, 'n h w c'], kernel: Float[Array, 'k k c o']
) -> Float[Array, 'n h w o']:
  """Convolves by shifting the narrower of the input and its products.

  The gradient is a convolution of this kind, too.
  """
  _, height, width, inputs = x.shape
  if inputs == 1:
    return add_all(
        view * kernel[row, column][None, None]
        for (row, column), view in _shift(x)
    )
  taps = kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
  products = (x.reshape(-1, inputs) @ taps).reshape(
      -1, height, width, _KERNEL, _KERNEL, kernel.shape[-1]
  )
  return add_all(
      view[:, :, :, row, column] for (row, column), view in _shift(products)
  )


def _convolve_narrow_forward(
    x: Float[Array, 'n h w c'], kernel: Float[Array, 'k k c o']
) -> tuple[Float[Array, 'n h w o'], tuple[Array, Array]]:
  return _convolve_narrow(x, kernel), (x, kernel)


def _convolve_narrow_backward(
    inputs: tuple[Array, Array], cotangent: Float[Array, 'n h w o']
) -> tuple[Array, Array]:
  x, kernel = inputs
  by_x = _convolve_narrow(cotangent, turn_kernel(kernel))
  if x.shape[-1] == 1:
    by_kernel = _sum_shifted_products(x, cotangent)
  else:
    by_kernel = jnp.flip(_sum_shifted_products(cotangent, x), axis=0)
  return by_x, by_kernel.reshape(kernel.shape)


_convolve_narrow.defvjp(_convolve_narrow_forward, _convolve_narrow_backward)


def _sum_shifted_products(
    narrow: Float[Array, 'n h w 1'], wide: Float[Array, 'n h w c']
) -> Float[Array, 'taps c']:
  """Sums products of a shifted channel with the wide channels, over cells."""
  views = jnp.stack([view.reshape(-1) for _, view in _shift(narrow[..., 0])])
  return views @ wide.reshape(-1, wide.shape[-1])


def _shift(
    x: Float[Array, 'n h w *c'],
) -> Iterator[tuple[tuple[int, int], Float[Array, 'n h w *c']]]:
  """Yields (row, column) of each kernel tap and its view, zero-padded."""
  _, height, width = x.shape[:3]
  outside = (_KERNEL // 2, _KERNEL // 2)
  x = jnp.pad(x, ((0, 0), outside, outside, *((0, 0),) * (x.ndim - 3)))
  for row, column in itertools.product(range(_KERNEL), repeat=2):
    yield (row, column), x[:, row : row + height, column : column + width]


def count_cost_volume(
    cells: float, channels: int, pooled_stride: int = 2
) -> float:
  """Returns the FLOPs (2 per multiply-add) of the head, per query and frame."""
  return (
      2.0
      * cells
      * (
          channels
          + 2 * 9 * _HIDDEN_CHANNELS
          + 9 / pooled_stride**2 * _HIDDEN_CHANNELS * _POOLED_CHANNELS
      )
  )
