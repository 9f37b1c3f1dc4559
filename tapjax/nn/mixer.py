"""Temporal mixer for track refinement, on whole videos or frame by frame.

A block mixes over time with two depthwise convolutions and over channels with
a two-layer perceptron. Depthwise convolutions of three taps are written as
shifted multiply-adds: on a CPU the equivalent grouped convolution takes fifty
times as long.
"""

from typing import Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from tapjax.nn.activations import gelu
from tapjax.nn.normalization import LayerNorm
from tapjax.ops.loops import add_all

TAPS = 3


class BlockMemory(NamedTuple):
  """Last two input frames of each temporal convolution of a block."""

  inputs: Float[Array, '*k n 2 c']
  hidden: Float[Array, '*k n 2 m c']


class DepthwiseTaps(hk.Module):
  """Weights and bias of a depthwise convolution over time.

  Weights are stored as published, `[taps, 1, channels * multiplier]`, and
  returned with the multiplier before the channels, so that channels are
  contiguous.
  """

  def __init__(self, channels: int, multiplier: int, name: str):
    super().__init__(name=name)
    self._shape = (TAPS, channels, multiplier)

  def __call__(
      self,
  ) -> tuple[Float[Array, 'taps m c'], Float[Array, 'm c']]:
    taps, channels, multiplier = self._shape
    size = channels * multiplier
    kernel = hk.get_parameter(
        'w', (taps, 1, size), init=hk.initializers.TruncatedNormal(taps**-0.5)
    )
    bias = hk.get_parameter('b', (size,), init=jnp.zeros)
    kernel = kernel.reshape(self._shape).swapaxes(1, 2)
    return kernel, bias.reshape(self._shape[1:]).T


class MixerBlock(hk.Module):
  """A residual block: mixing over time, then over channels."""

  def __init__(
      self,
      channels: int,
      multiplier: int,
      padding: tuple[int, int],
      name: str,
  ):
    super().__init__(name=name)
    self._padding = padding
    self._time_norm = LayerNorm('time_layer_norm', with_offset=False)
    self._expand = DepthwiseTaps(channels, multiplier, name='time_expand')
    self._reduce = DepthwiseTaps(channels, multiplier, name='time_reduce')
    self._channel_norm = LayerNorm('channel_layer_norm', with_offset=False)
    self._up = hk.Linear(channels * multiplier, name='channel_up')
    self._down = hk.Linear(channels, name='channel_down')

  def __call__(
      self,
      x: Float[Array, 'n t c'],
      memory: BlockMemory | None,
      is_frame: Bool[Array, 't'] | None,
  ) -> tuple[Float[Array, 'n t c'], BlockMemory | None]:
    mixed, memory = self._mix_time(self._time_norm(x), memory, is_frame)
    x += mixed
    y = gelu(self._up(self._channel_norm(x)))
    return x + self._down(y), memory

  def _mix_time(
      self,
      x: Float[Array, 'n t c'],
      memory: BlockMemory | None,
      is_frame: Bool[Array, 't'] | None,
  ) -> tuple[Float[Array, 'n t c'], BlockMemory | None]:
    """Sums branches of two temporal convolutions with a GELU in between."""
    expand, expand_bias = self._expand()
    reduce, reduce_bias = self._reduce()
    output = jnp.sum(reduce_bias, axis=0)[None, None]
    inputs = self._extend(
        _silence(x, is_frame), None if memory is None else memory.inputs
    )
    hiddens = []
    # One branch at a time: hidden activations stay in the cache.
    for branch in range(expand.shape[1]):
      hidden = _convolve_time(inputs, expand[:, branch])
      hidden += expand_bias[branch][None, None]
      hidden = self._extend(
          _silence(gelu(hidden), is_frame),
          None if memory is None else memory.hidden[:, :, branch],
      )
      output += _convolve_time(hidden, reduce[:, branch])
      hiddens.append(hidden)
    if memory is None:
      return output, None
    return output, BlockMemory(
        inputs=_get_last_frames(inputs),
        hidden=jnp.stack([_get_last_frames(h) for h in hiddens], axis=2),
    )

  def _extend(
      self, x: Float[Array, 'n t c'], past: Float[Array, 'n 2 c'] | None
  ) -> Float[Array, 'n padded c']:
    """Prepends the past frames; without a past, pads with zeros."""
    if past is None:
      return jnp.pad(x, ((0, 0), self._padding, (0, 0)))
    return jnp.concatenate([past, x], axis=1)


class Mixer(hk.Module):
  """Mixer blocks between two linear layers.

  With temporal 'past' the mixer is causal, and a video may be processed in
  segments of any length: the memory returned by one call is an argument of the
  next. The initial memory of a video is zeros.
  """

  def __init__(
      self,
      num_blocks: int,
      channels: int,
      multiplier: int,
      output_channels: int,
      temporal: Literal['both', 'past'],
      name: str,
  ):
    super().__init__(name=name)
    padding = (TAPS - 1, 0) if temporal == 'past' else (1, 1)
    self._input = hk.Linear(channels, name='input')
    self._blocks = [
        MixerBlock(channels, multiplier, padding, name=f'block_{i}')
        for i in range(num_blocks)
    ]
    self._norm = LayerNorm('layer_norm', with_offset=False)
    self._output = hk.Linear(output_channels, name='output')

  def __call__(
      self,
      x: Float[Array, 'n t c'],
      memory: BlockMemory | None = None,
      is_frame: Bool[Array, 't'] | None = None,
  ) -> tuple[Float[Array, 'n t o'], BlockMemory | None]:
    """Returns the output and, if `memory` is not None, the updated memory.

    Args:
      x: one sequence per query.
      memory: of all blocks, stacked on the first axis; None for a whole video.
      is_frame: False for padding at the end of the video, which has no
        influence on the frames before; None without padding.
    """
    x = self._input(x)
    memories = []
    for i, block in enumerate(self._blocks):
      block_memory = jax.tree.map(lambda array, i=i: array[i], memory)
      x, block_memory = block(x, block_memory, is_frame)
      memories.append(block_memory)
    output = self._output(self._norm(x))
    if memory is None:
      return output, None
    return output, jax.tree.map(lambda *arrays: jnp.stack(arrays), *memories)


def _silence(
    x: Float[Array, 'n t c'], is_frame: Bool[Array, 't'] | None
) -> Float[Array, 'n t c']:
  """Zeroes the padding at the end of a video, as the frames beyond it."""
  if is_frame is None:
    return x
  return jnp.where(is_frame[None, :, None], x, 0)


def _convolve_time(
    x: Float[Array, 'n padded c'], kernel: Float[Array, 'taps c']
) -> Float[Array, 'n t c']:
  """Convolves each channel over time, with padding 'VALID'."""
  num_frames = x.shape[1] - (TAPS - 1)
  return add_all(
      x[:, tap : tap + num_frames] * kernel[tap][None, None]
      for tap in range(TAPS)
  )


def _get_last_frames(x: Float[Array, 'n t c']) -> Float[Array, 'n 2 c']:
  return x[:, -(TAPS - 1) :]
