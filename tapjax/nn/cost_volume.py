"""Cost volumes: where in a frame something looks like the query."""

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.nn.convolution import Conv2D
from tapjax.ops.heatmap import soft_argmax
from tapjax.ops.loops import add_all
from tapjax.ops.loops import map_frames

_HIDDEN_CHANNELS = 16
_KERNEL = 3
# Cells of the heatmap around its peak that count for the position.
_PEAK_RADIUS = 5.0
_POOLED_CHANNELS = 32


class FrameEstimate(NamedTuple):
  """Where a frame seems to show each query: (x, y) in cells, and logits."""

  positions: Float[Array, 'n *t 2']
  logits: Float[Array, 'n *t k']


class NarrowConv(hk.Module):
  """A 3x3 convolution from or to one channel, as a sum of shifted products.

  At such widths a CPU takes two to three times as long for a convolution.
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
  """Reads a position and logits off the cost volume of one frame."""

  def __init__(
      self,
      num_logits: int,
      temperature: float,
      *,
      rectify_pooled: bool,
      name: str,
  ):
    super().__init__(name=name)
    self._temperature = temperature
    self._rectify_pooled = rectify_pooled
    self._hidden = NarrowConv(_HIDDEN_CHANNELS, name='hidden')
    self._heatmap = NarrowConv(1, name='heatmap')
    self._pooled = Conv2D(_POOLED_CHANNELS, 3, 2, name='pooled')
    self._mixed = hk.Linear(_HIDDEN_CHANNELS, name='mixed')
    self._logits = hk.Linear(num_logits, name='logits')

  def __call__(
      self,
      features: Float[Array, 'h w c'],
      query_features: Float[Array, 'n c'],
  ) -> FrameEstimate:
    height, width, channels = features.shape
    cost_volume = query_features @ features.reshape(-1, channels).T
    cost_volume = cost_volume.reshape(-1, height, width)
    hidden = jax.nn.relu(self._hidden(cost_volume[..., None]))

    heatmap = self._heatmap(hidden)[..., 0] * self._temperature
    probability = jax.nn.softmax(heatmap, axis=(1, 2))
    positions = soft_argmax(probability, _PEAK_RADIUS)

    pooled = self._pooled(hidden)
    if self._rectify_pooled:
      pooled = jax.nn.relu(pooled)
    mixed = jax.nn.relu(self._mixed(jnp.mean(pooled, axis=(1, 2))))
    return FrameEstimate(positions, self._logits(mixed))


def estimate_frames(
    estimate_frame: Callable[[Array, Array], FrameEstimate],
    grids: Float[Array, 't h w c'],
    vectors: Float[Array, 'n c'],
    resolution: Resolution,
) -> FrameEstimate:
  """Estimates every frame by itself, with positions in pixels."""
  estimates = map_frames(lambda grid: estimate_frame(grid, vectors), grids)
  positions = rescale_positions(
      estimates.positions, grids.shape[1:3], resolution
  )
  return FrameEstimate(
      positions.swapaxes(0, 1), estimates.logits.swapaxes(0, 1)
  )


def _convolve_narrow(
    x: Float[Array, 'n h w c'], kernel: Float[Array, 'k k c o']
) -> Float[Array, 'n h w o']:
  """Shifts whichever is narrower, the input or its products."""
  _, height, width, inputs = x.shape
  if inputs == 1:
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return add_all(
        padded[:, row : row + height, column : column + width]
        * kernel[row, column][None, None]
        for row in range(_KERNEL)
        for column in range(_KERNEL)
    )
  taps = kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
  products = (x.reshape(-1, inputs) @ taps).reshape(
      -1, height, width, _KERNEL, _KERNEL, kernel.shape[-1]
  )
  products = jnp.pad(products, ((0, 0), (1, 1), (1, 1), *((0, 0),) * 3))
  return add_all(
      products[:, row : row + height, column : column + width, row, column]
      for row in range(_KERNEL)
      for column in range(_KERNEL)
  )


def count_cost_volume(cells: float, channels: int) -> float:
  """Returns multiply-adds times two of the head, for a query and a frame."""
  return (
      2.0
      * cells
      * (
          channels
          + 2 * 9 * _HIDDEN_CHANNELS
          + 9 / 4 * _HIDDEN_CHANNELS * _POOLED_CHANNELS
      )
  )
