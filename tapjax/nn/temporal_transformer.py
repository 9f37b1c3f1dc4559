"""Transformer over time with directed heads and linear position biases.

Instead of position embeddings, each head subtracts from its logits the distance
in frames times its slope (ALiBi, arXiv 2108.12409), so that videos may be of
any length. The first half of the heads attends to a frame and those before it,
the second half to the frame and those after it.
"""

from collections.abc import Callable
from typing import Literal

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.nn.activations import gelu
from tapjax.nn.normalization import LayerNorm

Gelu = Literal['exact', 'tanh']
NumFrames = Int[Array | np.ndarray, '']

_WIDENING = 4
_SLOPE_BASE = 24.0
_HIDDEN = -1e9


class DirectedAttention(hk.Module):
  """Self-attention over time, half of the heads in either direction."""

  def __init__(self, channels: int, num_heads: int, name: str):
    super().__init__(name=name)
    self._num_heads = num_heads
    self._query, self._key, self._value, self._output = (
        hk.Linear(channels, name=part)
        for part in ('query', 'key', 'value', 'output')
    )

  def __call__(
      self, x: Float[Array, 'n t c'], num_frames: NumFrames
  ) -> Float[Array, 'n t c']:
    size = x.shape[-1] // self._num_heads
    query, key, value = (
        part(x).reshape(*x.shape[:2], self._num_heads, size)
        for part in (self._query, self._key, self._value)
    )
    logits = jnp.einsum('nikc,njkc->nkij', query * size**-0.5, key)
    bias = make_directed_bias(self._num_heads, x.shape[1])
    is_frame = jnp.arange(x.shape[1]) < num_frames
    bias = jnp.where(is_frame[None, None], bias, _HIDDEN)
    weights = jax.nn.softmax(logits + bias[None], axis=-1)
    mixed = jnp.einsum('nkij,njkc->nikc', weights, value)
    return self._output(mixed.reshape(x.shape))


class TransformerLayer(hk.Module):
  """Attention over time, then a perceptron, both pre-norm and residual."""

  def __init__(self, channels: int, num_heads: int, gelu: Gelu, name: str):
    super().__init__(name=name)
    self._activate = _GELUS[gelu]
    self._norms = [
        LayerNorm(f'layer_norm_{i}', with_offset=True) for i in range(2)
    ]
    self._attention = DirectedAttention(channels, num_heads, name='attention')
    self._up = hk.Linear(channels * _WIDENING, name='up')
    self._down = hk.Linear(channels, name='down')

  def __call__(
      self, x: Float[Array, 'n t c'], num_frames: NumFrames
  ) -> Float[Array, 'n t c']:
    x += self._attention(self._norms[0](x), num_frames)
    return x + self._down(self._activate(self._up(self._norms[1](x))))


class FirstColumns(hk.Module):
  """A linear layer that computes only the first `used` of `size` outputs.

  Published weights have more outputs than trackers use.
  """

  def __init__(self, size: int, used: int, name: str):
    super().__init__(name=name)
    self._size = size
    self._used = used

  def __call__(self, x: Float[Array, '*b c']) -> Float[Array, '*b o']:
    shape = (x.shape[-1], self._size)
    weights = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(shape[0] ** -0.5)
    )
    bias = hk.get_parameter('b', shape[1:], init=jnp.zeros)[: self._used]
    product = x @ weights[:, : self._used]
    return product + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class TemporalTransformer(hk.Module):
  """Transformer layers between two linear layers."""

  def __init__(
      self,
      num_layers: int,
      channels: int,
      num_heads: int,
      gelu: Gelu,
      output_channels: int,
      used_outputs: int,
      name: str,
  ):
    super().__init__(name=name)
    self._input = hk.Linear(channels, name='input')
    self._layers = [
        TransformerLayer(channels, num_heads, gelu, name=f'layer_{i}')
        for i in range(num_layers)
    ]
    self._norm = LayerNorm('layer_norm', with_offset=True)
    self._output = FirstColumns(output_channels, used_outputs, name='output')

  def __call__(
      self, x: Float[Array, 'n t c'], num_frames: NumFrames | None = None
  ) -> Float[Array, 'n t o']:
    """Returns the outputs; frames from `num_frames` on are masked padding."""
    if num_frames is None:
      num_frames = np.asarray(x.shape[1])
    x = self._input(x)
    for layer in self._layers:
      x = layer(x, num_frames)
    return self._output(self._norm(x))


def make_directed_bias(
    num_heads: int, num_frames: int
) -> Float[Array, 'k t t']:
  """Returns the bias of attention logits, [head, query frame, key frame].

  Backward and forward heads have the same slopes: powers of 1 / 24 down to
  1 / 24 itself.
  """
  half = num_heads // 2
  exponents = -(np.arange(half) + 1.0) / half
  slopes = np.power(_SLOPE_BASE, exponents).astype(np.float32)[:, None, None]
  frames = jnp.arange(num_frames)
  ahead = (frames[None] - frames[:, None])[None]
  back = jnp.where(ahead <= 0, slopes * ahead, _HIDDEN)
  return jnp.concatenate([back, back.swapaxes(1, 2)])


def _exact_gelu(x: Float[Array, '*b']) -> Float[Array, '*b']:
  return jax.nn.gelu(x, approximate=False)


_GELUS: dict[Gelu, Callable[[Array], Array]] = {
    'exact': _exact_gelu,
    'tanh': gelu,
}
