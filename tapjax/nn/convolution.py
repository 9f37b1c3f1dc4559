"""Convolutions with gradients that are fast on CPUs.

XLA's CPU backend takes the gradient of a convolution with respect to its kernel
as a convolution with the whole image as its kernel, a hundred times as slow as
the convolution itself. Here the gradient is a sum of matrix products of shifted
views, about twice as slow as the convolution.
"""

import functools
import math
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float


class Conv2D(hk.Module):
  """A square convolution with padding 'SAME', as in `hk.Conv2D`."""

  def __init__(
      self,
      channels: int,
      size: int,
      stride: int = 1,
      *,
      with_bias: bool = True,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._channels = channels
    self._size = size
    self._stride = stride
    self._with_bias = with_bias
    self._platform = platform

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ o']:
    shape = (self._size, self._size, x.shape[-1], self._channels)
    fan_in = math.prod(shape[:-1])
    kernel = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(fan_in**-0.5)
    )
    y = convolve(x, kernel, self._stride, self._platform)
    if self._with_bias:
      y += hk.get_parameter('b', shape[-1:], init=jnp.zeros)[None, None, None]
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, 'b h w c'],
    kernel: Float[Array, 'k k c o'],
    stride: int,
    platform: str,
) -> Float[Array, 'b _ _ o']:
  """Convolves with padding 'SAME'; `platform` chooses the form of gradients."""
  del platform  # Used by the gradients only.
  return _convolve_natively(x, kernel, stride)


def _convolve_forward(
    x: Array, kernel: Array, stride: int, platform: str
) -> tuple[Array, tuple[Array, Array]]:
  return convolve(x, kernel, stride, platform), (x, kernel)


def _convolve_backward(
    stride: int, platform: str, inputs: tuple[Array, Array], cotangent: Array
) -> tuple[Array, Array]:
  x, kernel = inputs
  if platform != 'cpu':
    _, differentiate = jax.vjp(
        lambda x, kernel: _convolve_natively(x, kernel, stride), x, kernel
    )
    return differentiate(cotangent)
  by_kernel = _differentiate_by_kernel(x, cotangent, kernel.shape[0], stride)
  if stride == 1 and kernel.shape[0] % 2:
    # A convolution of stride 1 and odd size has a fast routine.
    return _convolve_natively(cotangent, turn_kernel(kernel), 1), by_kernel
  _, by_x = jax.vjp(lambda x: _multiply_shifted(x, kernel, stride), x)
  return *by_x(cotangent), by_kernel


def _differentiate_by_kernel(
    x: Float[Array, 'b h w c'],
    cotangent: Float[Array, 'b _ _ o'],
    size: int,
    stride: int,
) -> Float[Array, 'k k c o']:
  """Returns the gradient with respect to a kernel, row by row.

  All columns of a row of the kernel are one product. Views shifted vertically
  are slices of memory; only views shifted horizontally are copied.
  """
  *_, height, width, outputs = cotangent.shape
  padding = jax.lax.padtype_to_pads(
      x.shape[1:3], (size, size), (stride, stride), 'SAME'
  )
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  columns = jnp.concatenate(
      [
          x[:, :, column : column + (width - 1) * stride + 1 : stride]
          for column in range(size)
      ],
      axis=-1,
  )
  transposed = cotangent.reshape(-1, outputs).T
  rows = [
      transposed
      @ columns[:, row : row + (height - 1) * stride + 1 : stride].reshape(
          -1, columns.shape[-1]
      )
      for row in range(size)
  ]
  by_kernel = jnp.stack(rows).reshape(size, outputs, size, -1)
  return by_kernel.transpose(0, 2, 3, 1)


convolve.defvjp(_convolve_forward, _convolve_backward)


def turn_kernel(kernel: Float[Array, 'k k c o']) -> Float[Array, 'k k o c']:
  """Returns the kernel that maps gradients of outputs to gradients of inputs.

  Valid for convolutions of stride 1 with kernels of odd size.
  """
  return jnp.flip(kernel, axis=(0, 1)).swapaxes(2, 3)


def _convolve_natively(
    x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c o'], stride: int
) -> Float[Array, 'b _ _ o']:
  return jax.lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


class KernelSpan(NamedTuple):
  """Cells seen by an output along one axis, and the kernel taps on them.

  Both ranges are half-open, and taps on padding are left out.
  """

  start: int
  stop: int
  kernel_start: int
  kernel_stop: int


def list_kernel_spans(size: int, stride: int, side: int) -> list[KernelSpan]:
  """Lists the span of every output along an axis with padding 'SAME'.

  Args:
    size: of the kernel.
    stride: of the convolution.
    side: number of cells along the axis.
  """
  ((before, _),) = jax.lax.padtype_to_pads([side], [size], [stride], 'SAME')
  spans = []
  for corner in range(-before, side - before, stride):
    start, stop = max(corner, 0), min(corner + size, side)
    spans.append(KernelSpan(start, stop, start - corner, stop - corner))
  return spans


def make_row_weights(
    kernel: Float[Array, 'k k c o'], stride: int, side: int
) -> list[Float[Array, 'cells c _']]:
  """Returns a convolution as dense weights, one matrix for each output row.

  The first axis has the cells of the input rows in the span of an output row,
  row by row; the last one has columns and channels of the output row. Images
  are square, with sides of `side`. Weights of cells outside of the span of an
  output are zero.
  """
  size, _, channels, outputs = kernel.shape
  spans = list_kernel_spans(size, stride, side)
  rows = []
  for row in spans:
    part = kernel[row.kernel_start : row.kernel_stop]
    columns = [
        jnp.pad(
            part[:, column.kernel_start : column.kernel_stop],
            ((0, 0), (column.start, side - column.stop), (0, 0), (0, 0)),
        )
        for column in spans
    ]
    weights = jnp.stack(columns, axis=3)
    rows.append(weights.reshape(-1, channels, len(spans) * outputs))
  return rows


def _multiply_shifted(
    x: Float[Array, 'b h w c'], kernel: Float[Array, 'k k c o'], stride: int
) -> Float[Array, 'b _ _ o']:
  """Convolves by one product of concatenated shifted views with the kernel."""
  size = kernel.shape[0]
  padding = jax.lax.padtype_to_pads(
      x.shape[1:3], (size, size), (stride, stride), 'SAME'
  )
  x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
  views = [
      x[
          :,
          row : row + (height - 1) * stride + 1 : stride,
          column : column + (width - 1) * stride + 1 : stride,
      ]
      for row in range(size)
      for column in range(size)
  ]
  return jnp.concatenate(views, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])
