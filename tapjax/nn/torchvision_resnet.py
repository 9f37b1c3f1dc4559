"""Residual networks as in torchvision: ResNet-18, 34, 50 and so on.

He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385. The
norm follows each convolution, the stride of a bottleneck is in its 3x3
convolution, and convolutions and pooling pad both sides equally.
"""

from collections.abc import Iterator
import dataclasses
from typing import Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.nn.normalization import apply_statistics
from tapjax.nn.normalization import BatchNorm
from tapjax.nn.normalization import EPSILON
from tapjax.nn.resnet import count_convolution

Norm = Literal['frozen', 'batch']


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
  """Settings of a residual network.

  Attributes:
    blocks: number of blocks in each stage.
    block: 'basic' has two 3x3 convolutions; 'bottleneck' has a 3x3 between two
      1x1, the last with four times the channels.
    norm: 'batch' is batch normalization; 'frozen' has constant statistics,
      scales and offsets.
    channels: channels of the stem and of the first stage, doubled at every
      further stage.
  """

  blocks: tuple[int, ...] = (3, 4, 6, 3)
  block: Literal['basic', 'bottleneck'] = 'bottleneck'
  norm: Norm = 'frozen'
  channels: int = 64

  @property
  def output_channels(self) -> tuple[int, ...]:
    """Number of output channels of each stage."""
    expansion = _EXPANSION[self.block]
    return tuple(
        expansion * self.channels * 2**i for i in range(len(self.blocks))
    )


_EXPANSION = {'basic': 1, 'bottleneck': 4}


class LayerShape(NamedTuple):
  """Channels, kernel size and stride of a convolution."""

  inputs: int
  outputs: int
  size: int
  stride: int


class BlockShape(NamedTuple):
  """Convolutions of a block; the skip is the identity without `shortcut`."""

  layers: tuple[LayerShape, ...]
  shortcut: LayerShape | None


def list_stages(config: ResNetConfig) -> Iterator[tuple[BlockShape, ...]]:
  """Yields the blocks of each stage."""
  inputs = config.channels
  for i, (outputs, num_blocks) in enumerate(
      zip(config.output_channels, config.blocks, strict=True)
  ):
    blocks = []
    for j in range(num_blocks):
      stride = 2 if i and not j else 1
      blocks.append(_describe_block(config.block, inputs, outputs, stride))
      inputs = outputs
    yield tuple(blocks)


def count_resnet(config: ResNetConfig, height: int, width: int) -> float:
  """Returns the FLOPs (2 per multiply-add) for one image."""
  pixels = height * width / 4
  stem = _describe_stem(config)
  total = count_convolution(pixels, stem.size, stem.inputs, stem.outputs)
  pixels /= 4
  for blocks in list_stages(config):
    for block in blocks:
      for layer in block.layers:
        pixels /= layer.stride**2
        total += count_convolution(
            pixels, layer.size, layer.inputs, layer.outputs
        )
      if block.shortcut is not None:
        inputs, outputs, size, _ = block.shortcut
        total += count_convolution(pixels, size, inputs, outputs)
  return total


def _describe_stem(config: ResNetConfig) -> LayerShape:
  return LayerShape(3, config.channels, size=7, stride=2)


def _describe_block(
    block: Literal['basic', 'bottleneck'],
    inputs: int,
    outputs: int,
    stride: int,
) -> BlockShape:
  layers: tuple[LayerShape, ...]
  if block == 'basic':
    layers = (
        LayerShape(inputs, outputs, 3, stride),
        LayerShape(outputs, outputs, 3, 1),
    )
  else:
    width = outputs // _EXPANSION[block]
    layers = (
        LayerShape(inputs, width, 1, 1),
        LayerShape(width, width, 3, stride),
        LayerShape(width, outputs, 1, 1),
    )
  shortcut = None
  if stride != 1 or inputs != outputs:
    shortcut = LayerShape(inputs, outputs, 1, stride)
  return BlockShape(layers, shortcut)


class FrozenNorm(hk.Module):
  """Batch normalization with constant statistics, scale and offset."""

  def __call__(
      self, x: Float[Array, 'b h w c'], *, is_training: bool = False
  ) -> Float[Array, 'b h w c']:
    del is_training  # It is frozen.
    shape = x.shape[-1:]
    return apply_statistics(
        x,
        mean=hk.get_state('mean', shape, init=jnp.zeros),
        variance=hk.get_state('variance', shape, init=jnp.ones),
        scale=hk.get_state('scale', shape, init=jnp.ones),
        offset=hk.get_state('offset', shape, init=jnp.zeros),
        epsilon=EPSILON,
    )


class _Layer(hk.Module):
  """A convolution followed by a norm."""

  def __init__(
      self, shape: LayerShape, norm: Norm, name: str, axis: str | None
  ):
    super().__init__(name=name)
    self._convolution = hk.Conv2D(
        shape.outputs,
        shape.size,
        shape.stride,
        padding=[(shape.size // 2, shape.size // 2)] * 2,
        with_bias=False,
        w_init=hk.initializers.VarianceScaling(2.0, 'fan_out', 'normal'),
        name='conv',
    )
    self._norm: FrozenNorm | BatchNorm
    if norm == 'frozen':
      self._norm = FrozenNorm(name='norm')
    else:
      self._norm = BatchNorm(name='norm', axis=axis)

  def __call__(
      self, x: Float[Array, 'b h w c'], *, is_training: bool
  ) -> Float[Array, 'b _ _ _']:
    return self._norm(self._convolution(x), is_training=is_training)


class _Block(hk.Module):
  """Two or three layers with a skip connection."""

  def __init__(
      self,
      config: ResNetConfig,
      shape: BlockShape,
      name: str,
      axis: str | None,
  ):
    super().__init__(name=name)
    self._layers = [
        _Layer(layer, config.norm, f'layer_{i}', axis)
        for i, layer in enumerate(shape.layers)
    ]
    self._shortcut = None
    if shape.shortcut is not None:
      self._shortcut = _Layer(shape.shortcut, config.norm, 'shortcut', axis)

  def __call__(
      self, x: Float[Array, 'b h w c'], *, is_training: bool
  ) -> Float[Array, 'b _ _ _']:
    y = x
    for i, layer in enumerate(self._layers):
      y = layer(jax.nn.relu(y) if i else y, is_training=is_training)
    if self._shortcut is not None:
      x = self._shortcut(x, is_training=is_training)
    return jax.nn.relu(x + y)


class TorchvisionResNet(hk.Module):
  """A 7x7 stem of stride 2, max pooling of stride 2, and stages of blocks.

  All stages except the first halve the grid, rounding sizes up.
  """

  def __init__(self, config: ResNetConfig, name: str, axis: str | None = None):
    """Initializes the module.

    Args:
      config: settings of the network.
      name: name of the module.
      axis: device axis over which batch statistics are averaged in training;
        None uses statistics of the local batch.
    """
    super().__init__(name=name)
    self._stem = _Layer(_describe_stem(config), config.norm, 'stem', axis)
    self._stages = [
        [
            _Block(config, shape, f'stage_{i}_block_{j}', axis)
            for j, shape in enumerate(stage)
        ]
        for i, stage in enumerate(list_stages(config))
    ]

  def __call__(
      self, images: Float[Array, 'b h w c'], *, is_training: bool = False
  ) -> list[Float[Array, 'b _ _ _']]:
    """Returns the output of every stage, the finest first."""
    x = jax.nn.relu(self._stem(images, is_training=is_training))
    x = jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        (1, 3, 3, 1),
        (1, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
    )
    outputs = []
    for stage in self._stages:
      for block in stage:
        x = block(x, is_training=is_training)
      outputs.append(x)
    return outputs
