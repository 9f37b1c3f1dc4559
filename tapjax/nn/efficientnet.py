"""Truncated EfficientNets as frame encoders.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", arXiv 1905.11946. A block is a 1x1 expansion, a depthwise
convolution, squeeze-and-excitation, and a 1x1 projection.

Depthwise convolutions are sums of shifted products: on a CPU the equivalent
grouped convolution takes many times as long.
"""

from collections.abc import Iterator
import dataclasses
import math
from typing import Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.nn.activations import silu
from tapjax.nn.normalization import BatchNorm
from tapjax.nn.resnet import count_convolution
from tapjax.ops.loops import add_all

TrunkName = Literal['b0', 'b0_deep', 'b2', 'b5', 'b256']

_EPSILON = 1e-3
_DECAY = 0.99
# Drop rate of the last block in training (stochastic depth).
_DROPPED = 0.2
_STEM_SIZE = 3
_SQUEEZE_RATIO = 4


class Stage(NamedTuple):
  """Blocks of one width; `stride` is the stride of the first block."""

  repeats: int
  channels: int
  expansion: int
  size: int
  stride: int


@dataclasses.dataclass(frozen=True)
class Trunk:
  """A truncated EfficientNet.

  Attributes:
    stem_channels: channels of the first convolution.
    stages: stages of blocks.
    taps: indices of the blocks with returned outputs, the finest first.
    nominal_size: side of the images that determines paddings.
  """

  stem_channels: int
  stages: tuple[Stage, ...]
  taps: tuple[int, int, int]
  nominal_size: int


class Block(NamedTuple):
  """One block of a trunk; `padding` is (before, after), on both axes."""

  inputs: int
  channels: int
  expansion: int
  size: int
  stride: int
  padding: tuple[int, int]

  @property
  def hidden(self) -> int:
    """Channels after the expansion."""
    return self.inputs * self.expansion

  @property
  def squeezed(self) -> int:
    """Channels of the bottleneck of squeeze-and-excitation."""
    return max(1, self.inputs // _SQUEEZE_RATIO)


_B0 = (Stage(1, 16, 1, 3, 1), Stage(2, 24, 6, 3, 2), Stage(2, 40, 6, 5, 2))

TRUNKS: dict[TrunkName, Trunk] = {
    'b0': Trunk(32, _B0, taps=(0, 2, 4), nominal_size=224),
    'b0_deep': Trunk(
        32,
        (*_B0, Stage(3, 80, 6, 3, 2), Stage(3, 112, 6, 5, 1)),
        taps=(0, 4, 10),
        nominal_size=224,
    ),
    'b2': Trunk(
        32,
        (
            Stage(2, 16, 1, 3, 1),
            Stage(3, 24, 6, 3, 2),
            Stage(3, 48, 6, 5, 2),
            Stage(4, 88, 6, 3, 2),
            Stage(4, 120, 6, 5, 1),
        ),
        taps=(1, 7, 15),
        nominal_size=260,
    ),
    'b5': Trunk(
        48,
        (
            Stage(3, 24, 1, 3, 1),
            Stage(5, 40, 6, 3, 2),
            Stage(5, 64, 6, 5, 2),
            Stage(7, 128, 6, 3, 2),
            Stage(7, 176, 6, 5, 1),
        ),
        taps=(7, 12, 26),
        nominal_size=384,
    ),
    'b256': Trunk(
        32,
        (
            Stage(2, 16, 1, 3, 1),
            Stage(3, 24, 6, 3, 2),
            Stage(3, 40, 6, 5, 2),
            Stage(4, 88, 6, 3, 2),
        ),
        taps=(1, 7, 11),
        nominal_size=256,
    ),
}


class DepthwiseConv(hk.Module):
  """A depthwise convolution."""

  def __init__(
      self, size: int, stride: int, padding: tuple[int, int], name: str
  ):
    super().__init__(name=name)
    self._size = size
    self._stride = stride
    self._padding = padding

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ c']:
    kernel = hk.get_parameter(
        'w',
        (self._size, self._size, 1, x.shape[-1]),
        init=hk.initializers.TruncatedNormal(1 / self._size),
    )
    return _convolve_depthwise(x, kernel, self._stride, self._padding)


class MBConv(hk.Module):
  """A mobile inverted bottleneck: expand, convolve, excite, project.

  In training, the residual branch is dropped for a fraction `dropped` of the
  images (stochastic depth).
  """

  def __init__(
      self,
      block: Block,
      *,
      skip: bool,
      dropped: float,
      axis: str | None,
      name: str,
  ):
    super().__init__(name=name)
    self._skip = skip
    self._dropped = dropped
    self._expand = None
    if block.expansion != 1:
      self._expand = (
          hk.Conv2D(block.hidden, 1, with_bias=False, name='expand'),
          _make_norm('expand_norm', axis),
      )
    self._depthwise = DepthwiseConv(
        block.size, block.stride, block.padding, name='depthwise'
    )
    self._depthwise_norm = _make_norm('depthwise_norm', axis)
    self._squeeze = hk.Conv2D(block.squeezed, 1, name='squeeze')
    self._excite = hk.Conv2D(block.hidden, 1, name='excite')
    self._project = hk.Conv2D(
        block.channels, 1, with_bias=False, name='project'
    )
    self._project_norm = _make_norm('project_norm', axis)

  def __call__(
      self, x: Float[Array, 'b h w c'], *, is_training: bool
  ) -> Float[Array, 'b _ _ _']:
    y = x
    if self._expand is not None:
      convolve, norm = self._expand
      y = silu(norm(convolve(y), is_training=is_training))
    y = self._depthwise_norm(self._depthwise(y), is_training=is_training)
    y = silu(y)
    mean = jnp.mean(y, axis=(1, 2), keepdims=True)
    y *= jax.nn.sigmoid(self._excite(silu(self._squeeze(mean))))
    y = self._project_norm(self._project(y), is_training=is_training)
    if not self._skip:
      return y
    if is_training and self._dropped:
      y = drop_images(hk.next_rng_key(), y, self._dropped)
    return x + y


class EfficientNet(hk.Module):
  """The trunk of an EfficientNet; returns outputs of its taps, finest first."""

  def __init__(self, trunk: Trunk, name: str, axis: str | None = None):
    """Initializes the module.

    Args:
      trunk: the architecture.
      name: name of the module.
      axis: device axis over which batch statistics are averaged in training;
        None uses statistics of the local batch.
    """
    super().__init__(name=name)
    self._taps = trunk.taps
    padding = _pad_same(trunk.nominal_size, _STEM_SIZE, 2)
    self._stem = hk.Conv2D(
        trunk.stem_channels,
        _STEM_SIZE,
        2,
        with_bias=False,
        padding=[padding, padding],
        name='stem',
    )
    self._stem_norm = _make_norm('stem_norm', axis)
    blocks = list(list_blocks(trunk))
    self._blocks = [
        MBConv(
            block,
            skip=block.stride == 1 and block.inputs == block.channels,
            dropped=_DROPPED * i / len(blocks),
            axis=axis,
            name=f'block_{i}',
        )
        for i, block in enumerate(blocks)
    ]

  def __call__(
      self, images: Float[Array, 'b h w 3'], *, is_training: bool = False
  ) -> list[Float[Array, 'b _ _ _']]:
    x = self._stem_norm(self._stem(images), is_training=is_training)
    x = silu(x)
    outputs = []
    for block in self._blocks:
      x = block(x, is_training=is_training)
      outputs.append(x)
    return [outputs[tap] for tap in self._taps]


def _make_norm(name: str, axis: str | None) -> BatchNorm:
  return BatchNorm(name, epsilon=_EPSILON, decay=_DECAY, axis=axis)


def drop_images(
    key: Array, x: Float[Array, 'b h w c'], rate: float
) -> Float[Array, 'b h w c']:
  """Zeroes images at random and scales up the others, keeping the mean."""
  kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], 1, 1, 1))
  return jnp.where(kept, x / (1 - rate), 0)


def list_blocks(trunk: Trunk) -> Iterator[Block]:
  """Yields the blocks of a trunk."""
  # PARITY: paddings are those of the nominal size, for images of any size;
  # for b2 this shifts the coarse cells (test_locotrack_parity).
  size = math.ceil(trunk.nominal_size / 2)
  inputs = trunk.stem_channels
  for stage in trunk.stages:
    for repeat in range(stage.repeats):
      stride = stage.stride if repeat == 0 else 1
      yield Block(
          inputs,
          stage.channels,
          stage.expansion,
          stage.size,
          stride,
          _pad_same(size, stage.size, stride),
      )
      size = math.ceil(size / stride)
      inputs = stage.channels


def count_trunk(trunk: Trunk, pixels: float) -> float:
  """Returns the FLOPs (2 per multiply-add) for an image of `pixels` pixels."""
  pixels /= 4
  count = count_convolution(pixels, _STEM_SIZE, 3, trunk.stem_channels)
  for block in list_blocks(trunk):
    if block.expansion != 1:
      count += count_convolution(pixels, 1, block.inputs, block.hidden)
    pixels /= block.stride**2
    count += count_convolution(pixels, block.size, 1, block.hidden)
    count += 2 * count_convolution(1.0, 1, block.hidden, block.squeezed)
    count += count_convolution(pixels, 1, block.hidden, block.channels)
  return count


def _pad_same(length: int, size: int, stride: int) -> tuple[int, int]:
  """Returns the padding (before, after) of TensorFlow's 'SAME'."""
  outputs = math.ceil(length / stride)
  total = max((outputs - 1) * stride + size - length, 0)
  return total // 2, total - total // 2


def _convolve_depthwise(
    x: Float[Array, 'b h w c'],
    kernel: Float[Array, 'k k 1 c'],
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, 'b _ _ c']:
  size = kernel.shape[0]
  x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
  height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
  return add_all(
      x[
          :,
          row : row + stride * (height - 1) + 1 : stride,
          column : column + stride * (width - 1) + 1 : stride,
      ]
      * kernel[row, column][None, None]
      for row in range(size)
      for column in range(size)
  )
