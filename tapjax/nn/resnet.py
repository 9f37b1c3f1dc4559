"""Pre-activation residual network with instance norm."""

from collections.abc import Sequence

import haiku as hk
import jax
from jaxtyping import Array
from jaxtyping import Float

from tapjax.nn.convolution import Conv2D
from tapjax.nn.normalization import InstanceNorm


class ResidualBlock(hk.Module):
  """Two 3x3 convolutions, each after a norm and a rectifier."""

  def __init__(
      self,
      channels: int,
      stride: int,
      *,
      project: bool,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._norms = [InstanceNorm(name=f'instancenorm_{i}') for i in range(2)]
    self._convolutions = [
        Conv2D(
            channels,
            3,
            step,
            with_bias=False,
            platform=platform,
            name=f'conv_{i}',
        )
        for i, step in enumerate((stride, 1))
    ]
    self._shortcut = None
    if project:
      self._shortcut = Conv2D(
          channels,
          1,
          stride,
          with_bias=False,
          platform=platform,
          name='shortcut_conv',
      )

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ _']:
    y = jax.nn.relu(self._norms[0](x))
    # PARITY: the projection reads the activated tensor (tapir golden files).
    shortcut = x if self._shortcut is None else self._shortcut(y)
    y = self._convolutions[0](y)
    y = self._convolutions[1](jax.nn.relu(self._norms[1](y)))
    return y + shortcut


class BlockGroup(hk.Module):
  """Residual blocks of one width; the first one changes stride and width."""

  def __init__(
      self,
      channels: int,
      stride: int,
      num_blocks: int,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._blocks = [
        ResidualBlock(
            channels,
            stride if i == 0 else 1,
            project=i == 0,
            platform=platform,
            name=f'block_{i}',
        )
        for i in range(num_blocks)
    ]

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ _']:
    for block in self._blocks:
      x = block(x)
    return x


class ResNet(hk.Module):
  """A 7x7 stem of stride 2, then groups of residual blocks.

  There is no pooling, and neither norm nor rectifier after the last block.
  """

  def __init__(
      self,
      channels: Sequence[int],
      strides: Sequence[int],
      blocks_per_group: int,
      stem_channels: int,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._stem = Conv2D(
        stem_channels,
        7,
        2,
        with_bias=False,
        platform=platform,
        name='initial_conv',
    )
    self._groups = [
        BlockGroup(
            width,
            stride,
            blocks_per_group,
            platform,
            name=f'block_group_{i}',
        )
        for i, (width, stride) in enumerate(zip(channels, strides, strict=True))
    ]

  def __call__(
      self, images: Float[Array, 'b h w c']
  ) -> list[Float[Array, 'b _ _ _']]:
    """Returns the outputs of the stem and of every group, the finest first."""
    x = self._stem(images)
    outputs = [x]
    for group in self._groups:
      x = group(x)
      outputs.append(x)
    return outputs


def count_convolution(
    pixels: float, size: int, inputs: int, outputs: int
) -> float:
  """Returns the FLOPs (2 per multiply-add) of a square convolution."""
  return 2.0 * pixels * size**2 * inputs * outputs


def count_resnet(
    pixels: float, channels: Sequence[int], strides: Sequence[int]
) -> float:
  """Returns the FLOPs of a `ResNet` with two blocks in each group."""
  pixels /= 4
  count = count_convolution(pixels, 7, 3, channels[0])
  inputs = channels[0]
  for width, stride in zip(channels, strides, strict=True):
    pixels /= stride**2
    count += count_convolution(pixels, 1, inputs, width)
    count += count_convolution(pixels, 3, inputs, width)
    count += 3 * count_convolution(pixels, 3, width, width)
    inputs = width
  return count
