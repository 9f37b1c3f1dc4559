"""4-D correlations of a frame with a query's surroundings, and their encoders.

The correlation K[a, b, i, j] of a point has two pairs of axes: cells (a, b)
around the point's position in a frame, and cells (i, j) around its query.
"""

import math
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.models.locotrack.config import GROUP_SIZE
from tapjax.nn.convolution import convolve
from tapjax.nn.convolution import list_kernel_spans
from tapjax.nn.convolution import make_row_weights
from tapjax.nn.normalization import GroupNorm
from tapjax.ops.correlation import correlate_neighborhoods

# A kernel, or for each row of outputs the weights of correlations where the
# image is their last pair of axes and where it is the other.
KernelForms = tuple[tuple[Array, ...], ...]


class FeatureGrids(NamedTuple):
  """Features at one resolution; strides are 2, 4 and 8, or up to 4, 8, 16."""

  fine: Float[Array, '*bt _ _ _']
  middle: Float[Array, '*bt _ _ _']
  coarse: Float[Array, '*bt _ _ _']


class QueryPatches(NamedTuple):
  """Features in the squares around the query points, at one resolution."""

  fine: Float[Array, '*b n p p _']
  middle: Float[Array, '*b n p p _']
  coarse: Float[Array, '*b n p p _']


class QueryVectors(NamedTuple):
  """Features at the query points themselves, at one resolution."""

  fine: Float[Array, '*b n _']
  middle: Float[Array, '*b n _']
  coarse: Float[Array, '*b n _']


def get_centers(patches: QueryPatches) -> QueryVectors:
  """Returns the features at the centers of patches."""
  return QueryVectors(
      *(
          grid[..., grid.shape[-3] // 2, grid.shape[-2] // 2, :]
          for grid in patches
      )
  )


def flatten_patches(patches: QueryPatches) -> list[Float[Array, 'n q _']]:
  """Returns the cells of each patch in a row."""
  return [
      patch.reshape(patch.shape[0], math.prod(patch.shape[1:3]), -1)
      for patch in patches
  ]


def correlate_frame(
    grids: FeatureGrids,
    positions: Float[Array, 'n 2'],
    patches: list[Float[Array, 'n q _']],
    initial: Resolution,
    radius: int,
) -> list[Float[Array, 'n q p p']]:
  """Correlates patches of queries with the cells around points of a frame.

  Args:
    grids: of the frame, `[h, w, c]` each.
    positions: (x, y) in pixels of `initial`.
    patches: from `flatten_patches`.
    initial: resolution in which positions count.
    radius: of the square around a point, in cells of each grid.

  Returns:
    Correlations with the fine, the middle and the coarse grid.
  """
  correlations = []
  for grid, patch in zip(grids, patches, strict=True):
    points = rescale_positions(positions, initial, grid.shape[:2])
    correlations.append(
        correlate_neighborhoods(grid, jnp.flip(points, axis=-1), patch, radius)
    )
  return correlations


class CorrelationConv(hk.Module):
  """Convolves a 4-D correlation over either pair of axes, by one kernel.

  The other pair are the channels.
  """

  def __init__(
      self,
      side: int,
      channels: int,
      size: int,
      stride: int,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._side = side
    self._channels = channels
    self._size = size
    self._stride = stride
    self._platform = platform
    # A CPU has all of its cores work on a product, and one on a convolution of
    # small images. Where kernels are nearly as wide as the image, not much of
    # the products is with zeros.
    self._by_rows = platform == 'cpu' and 2 * size > side

  def prepare_kernel(self) -> KernelForms:
    """Returns the kernel as `__call__` takes it, for any number of calls."""
    shape = (self._size, self._size, self._side**2, self._channels)
    fan_in = math.prod(shape[:-1])
    kernel = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(fan_in**-0.5)
    )
    if not self._by_rows:
      return ((kernel,),)
    rows = make_row_weights(kernel, self._stride, self._side)
    width = rows[0].shape[-1]
    return tuple(
        (weights.swapaxes(0, 1).reshape(-1, width), weights.reshape(-1, width))
        for weights in rows
    )

  def __call__(
      self, correlation: Float[Array, 'n q p p'], kernel: KernelForms
  ) -> Float[Array, 'n2 r r o']:
    """Returns images over the last pair of axes, then over the first pair."""
    bias = hk.get_parameter('b', (self._channels,), init=jnp.zeros)
    side, num = self._side, correlation.shape[0]
    cells = correlation.reshape(num, side**2, side**2)
    if self._by_rows:
      x = self._multiply_rows(cells, kernel)
    else:
      ((weights,),) = kernel
      images = jnp.concatenate([cells.swapaxes(1, 2), cells])
      images = images.reshape(2 * num, side, side, -1)
      x = convolve(images, weights, self._stride, self._platform)
    return x + bias[None, None, None]

  def _multiply_rows(
      self, cells: Float[Array, 'n q q'], kernel: KernelForms
  ) -> Float[Array, 'n2 r r o']:
    """Computes each row of outputs as one product."""
    num, side = cells.shape[0], self._side
    rows = []
    for span, (last_axis, middle_axis) in zip(
        list_kernel_spans(self._size, self._stride, side), kernel, strict=True
    ):
      seen = slice(span.start * side, span.stop * side)
      products = [
          cells[:, :, seen].reshape(num, -1) @ last_axis,
          cells[:, seen].reshape(num, -1) @ middle_axis,
      ]
      row = jnp.concatenate(products)
      rows.append(row.reshape(2 * num, -1, self._channels))
    return jnp.stack(rows, axis=1)


class CorrelationEncoder(hk.Module):
  """Encodes a 4-D correlation by convolutions over either pair of axes."""

  def __init__(
      self,
      side: int,
      layers: tuple[tuple[int, int, int], ...],
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    (size, stride, channels), *rest = layers
    self._first = CorrelationConv(
        side, channels, size, stride, platform, name='conv_0'
    )
    self._convolutions = [
        hk.Conv2D(channels, size, stride, name=f'conv_{i}')
        for i, (size, stride, channels) in enumerate(rest, 1)
    ]
    self._norms = [
        GroupNorm(channels // GROUP_SIZE, name=f'group_norm_{i}')
        for i, (_, _, channels) in enumerate(layers)
    ]

  def prepare_kernel(self) -> KernelForms:
    """Returns the first kernel as `__call__` takes it."""
    return self._first.prepare_kernel()

  def __call__(
      self, correlation: Float[Array, 'n q p p'], kernel: KernelForms
  ) -> Float[Array, 'n e']:
    x = self._first(correlation, kernel)
    x = jax.nn.relu(self._norms[0](x))
    for convolution, norm in zip(
        self._convolutions, self._norms[1:], strict=True
    ):
      x = jax.nn.relu(norm(convolution(x)))
    # The image over the last pair of axes, then that over the other.
    first, second = jnp.split(jnp.mean(x, axis=(1, 2)), 2)
    return jnp.concatenate([first, second], axis=-1)
