"""Layers of TAPTRv2: deformable attention of frames, and of points to them."""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.models.taptr.config import TaptrConfig
from tapjax.nn.attention import MultiHeadAttention
from tapjax.nn.attention import XAVIER
from tapjax.nn.embeddings import embed_sines
from tapjax.nn.normalization import LayerNorm
from tapjax.ops.deformable import read_samples
from tapjax.ops.deformable import sum_samples
from tapjax.ops.loops import map_frames

# Of the waves of embeddings.
TEMPERATURE = 10.0
_EPSILON = 1e-3
# Tokens that a CPU encodes at once.
_MOST_TOKENS = 1500


class TrackWindow(NamedTuple):
  """Points on the frames of a window.

  Attributes:
    vectors: of each point.
    boxes: logits, as in `LayerOutputs`.
    first_tokens: indices of the first token of each frame.
    tracked: whether the point's query is on this frame or an earlier one.
    updating: whether it is on an earlier one.
  """

  vectors: Float[Array, 't n c']
  boxes: Float[Array, 't n 4']
  first_tokens: Int[Array, 't']
  tracked: Bool[Array, 't n']
  updating: Bool[Array, 't n']


class EncoderLayer(hk.Module):
  """Deformable attention among the tokens of a frame, and a perceptron."""

  def __init__(self, config: TaptrConfig, platform: str, name: str):
    super().__init__(name=name)
    self._config = config
    self._platform = platform
    num_weights = config.num_heads * config.num_levels * config.num_samples
    zeros = jnp.zeros
    self._offsets = hk.Linear(
        2 * num_weights,
        w_init=zeros,
        b_init=functools.partial(_initialize_offsets, config),
        name='offsets',
    )
    self._weights = hk.Linear(
        num_weights, w_init=zeros, b_init=zeros, name='weights'
    )
    self._value = hk.Linear(config.channels, w_init=XAVIER, name='value')
    self._output = hk.Linear(config.channels, w_init=XAVIER, name='output')
    self._norms = [LayerNorm(f'norm_{i}', with_offset=True) for i in range(2)]
    self._mlp = make_mlp(config.hidden_channels, config.channels, name='mlp')

  def __call__(
      self,
      x: Float[Array, 's c'],
      position: Float[Array, 's c'],
      centers: Float[Array, 's 2'],
  ) -> Float[Array, 's c']:
    values = self._value(x).reshape(len(x), self._config.num_heads, -1)
    return _map_tokens(
        functools.partial(self._attend, values),
        x,
        position,
        centers,
        platform=self._platform,
    )

  def _attend(
      self,
      values: Float[Array, 's k d'],
      x: Float[Array, 'n c'],
      position: Float[Array, 'n c'],
      centers: Float[Array, 'n 2'],
  ) -> Float[Array, 'n c']:
    """Returns some tokens after the attention and the perceptron."""
    config = self._config
    heads = (config.num_heads, config.num_levels, config.num_samples)
    query = x + position
    offsets = self._offsets(query).reshape(len(x), *heads, 2)
    weights = self._weights(query).reshape(len(x), config.num_heads, -1)
    attended = sum_samples(
        values,
        config.sizes,
        centers[:, None, None, None] + _normalize_offsets(offsets, config),
        jax.nn.softmax(weights).reshape(len(x), *heads),
    )
    x = self._norms[0](x + self._output(attended.reshape(x.shape)))
    return self._norms[1](x + self._mlp(x))


class Matrix(hk.Module):
  """A linear layer that its caller applies: a matrix and a bias, by head."""

  def __init__(self, channels: int, num_heads: int, name: str):
    super().__init__(name=name)
    self._channels = channels
    self._num_heads = num_heads

  def __call__(self) -> tuple[Float[Array, 'c k d'], Float[Array, 'k d']]:
    shape = (self._channels, self._channels)
    matrix = hk.get_parameter('w', shape, init=XAVIER)
    bias = hk.get_parameter('b', shape[:1], init=jnp.zeros)
    return (
        matrix.reshape(self._channels, self._num_heads, -1),
        bias.reshape(self._num_heads, -1),
    )


class Attended(NamedTuple):
  """Result of attention to a frame, and the samples it is from.

  Offsets are from the point to its samples, in normalized coordinates.
  """

  vectors: Float[Array, 't n c']
  scores: Float[Array, 't n j']
  offsets: Float[Array, 't n j 2']


class KeyAwareAttention(hk.Module):
  """Deformable attention in which keys of the samples decide their weights.

  Keys and values are linear in the tokens, so that the samples are read before
  either matrix is applied: the one for keys is applied to the query and the one
  for values to the weighted sum. Where a sample lies outside of its level there
  are zeros instead of keys and values, so that biases count only inside.
  """

  def __init__(self, config: TaptrConfig, platform: str, name: str):
    super().__init__(name=name)
    self._config = config
    self._platform = platform
    channels, num_heads = config.channels, config.num_heads
    self._offsets = hk.Linear(
        2 * num_heads * config.num_levels * config.num_samples,
        w_init=XAVIER,
        b_init=functools.partial(_initialize_offsets, config),
        name='offsets',
    )
    self._query = hk.Linear(channels, w_init=XAVIER, name='query')
    self._key = Matrix(channels, num_heads, name='key')
    self._value = Matrix(channels, num_heads, name='value')
    self._output = hk.Linear(channels, w_init=XAVIER, name='output')

  def __call__(
      self,
      x: Float[Array, 't n c'],
      positions: Float[Array, 't n 2'],
      first_tokens: Int[Array, 't'],
      tokens: Float[Array, 's c'],
  ) -> Attended:
    config = self._config
    leading = x.shape[:2]
    heads = (config.num_heads, config.num_levels, config.num_samples)
    offsets = _normalize_offsets(
        self._offsets(x).reshape(*leading, *heads, 2), config
    )
    points = positions[:, :, None, None, None] + offsets
    query = self._query(x).reshape(*leading, config.num_heads, -1)
    matrix, bias = self._key()
    vectors = jnp.einsum('tnkd,ckd->tnkc', query, matrix)
    constants = jnp.einsum('tnkd,kd->tnk', query, bias)
    # Samples take much memory; for gradients they are read again.
    attend = jax.checkpoint(
        functools.partial(_attend_frame, config, tokens, query.shape[-1])
    )
    scores, mean, inside = map_frames(
        attend,
        first_tokens,
        points,
        vectors,
        constants,
        platform=self._platform,
    )
    matrix, bias = self._value()
    values = jnp.einsum('tnkc,ckd->tnkd', mean, matrix)
    values += inside[..., None] * bias[None, None]
    return Attended(
        self._output(values.reshape(x.shape)),
        scores.reshape(*leading, -1),
        offsets.reshape(*leading, -1, 2),
    )


def _attend_frame(
    config: TaptrConfig,
    tokens: Float[Array, 's c'],
    head_channels: int,
    first_token: Int[Array, ''],
    points: Float[Array, 'n k l p 2'],
    vectors: Float[Array, 'n k c'],
    constants: Float[Array, 'n k'],
) -> tuple[Array, Array, Array]:
  """Returns scores, weighted means of samples, and the weight inside."""
  samples = read_samples(
      tokens, config.sizes, points, jnp.full(len(points), first_token)
  )
  scores = jnp.sum(samples.values * vectors[:, :, None, None], axis=-1)
  scores += samples.inside * constants[:, :, None, None]
  scores /= head_channels**0.5
  weights = jax.nn.softmax(scores, axis=(2, 3))
  mean = jnp.sum(samples.values * weights[..., None], axis=(2, 3))
  return scores, mean, jnp.sum(samples.inside * weights, axis=(2, 3))


class DecoderLayer(hk.Module):
  """Attention of points to their frame, over frames and to each other."""

  def __init__(self, config: TaptrConfig, platform: str, name: str):
    super().__init__(name=name)
    channels = config.channels
    num_weights = config.num_heads * config.num_levels * config.num_samples
    self._frame_attention = KeyAwareAttention(
        config, platform, name='frame_attention'
    )
    self._frame_norm = LayerNorm('frame_norm', with_offset=True)
    self._mover = make_mlp(channels, channels, num_weights, name='mover')
    self._embedder = make_mlp(channels, channels, name='embedder')
    self._time_attention = MultiHeadAttention(
        channels, config.num_heads, name='time_attention'
    )
    self._time_norm = LayerNorm('time_norm', with_offset=True)
    self._point_attention = MultiHeadAttention(
        channels, config.num_heads, name='point_attention'
    )
    self._point_norm = LayerNorm('point_norm', with_offset=True)
    self._mlp = make_mlp(config.hidden_channels, channels, name='mlp')
    self._mlp_norm = LayerNorm('mlp_norm', with_offset=True)

  def __call__(
      self,
      x: Float[Array, 't n c'],
      position: Float[Array, 't n c'],
      boxes: Float[Array, 't n 4'],
      window: TrackWindow,
      tokens: Float[Array, 's c'],
  ) -> tuple[Float[Array, 't n c'], Float[Array, 't n 4']]:
    """Returns vectors and moved boxes; boxes are normalized, not logits."""
    attended = self._frame_attention(
        x + position, boxes[..., :2], window.first_tokens, tokens
    )
    x = self._frame_norm(x + attended.vectors)
    weights = jax.nn.softmax(self._mover(attended.scores))
    step = jnp.sum(weights[..., None] * attended.offsets, axis=-2)
    moved = jax.nn.sigmoid(compute_logit(boxes[..., :2] + step))
    moved = jnp.concatenate([moved, boxes[..., 2:]], axis=-1)
    moved = jnp.where(window.updating[..., None], moved, boxes)
    position = self._embedder(embed_boxes(moved, x.shape[-1]))

    tracked = window.tracked.T
    mask = tracked[:, :, None] == tracked[:, None]
    by_point = x.swapaxes(0, 1)
    change = self._time_attention(
        by_point + position.swapaxes(0, 1), by_point, mask
    )
    x = self._time_norm(x + change.swapaxes(0, 1))
    mask = window.tracked[:, :, None] == window.tracked[:, None]
    x = self._point_norm(x + self._point_attention(x + position, x, mask))
    return self._mlp_norm(x + self._mlp(x)), moved


def make_mlp(*sizes: int, name: str) -> hk.nets.MLP:
  """Returns a perceptron with Xavier's matrices."""
  return hk.nets.MLP(sizes, w_init=XAVIER, name=name)


def embed_boxes(
    boxes: Float[Array, 't n 4'], channels: int
) -> Float[Array, 't n _']:
  """Returns sines of y, x, width and height."""
  values = boxes[..., np.asarray([1, 0, 2, 3])]
  return embed_sines(values, channels // 2, TEMPERATURE)


def compute_logit(normalized: Float[Array, '*n']) -> Float[Array, '*n']:
  """Undoes a sigmoid, within a thousandth from 0 and 1."""
  normalized = jnp.clip(normalized, 0.0, 1.0)
  odds = jnp.maximum(normalized, _EPSILON) / jnp.maximum(
      1 - normalized, _EPSILON
  )
  return jnp.log(odds)


def _map_tokens(
    function: Callable[..., Array],
    *tokens: Float[Array, 's _'],
    platform: str,
) -> Float[Array, 's c']:
  """Applies a function of Haiku modules to tokens that do not see each other.

  A CPU takes some at a time, so that activations stay in its cache; an
  accelerator takes them all at once.
  """
  number = len(tokens[0])
  sizes = range(min(number, _MOST_TOKENS), _MOST_TOKENS // 4, -1)
  size = next((size for size in sizes if number % size == 0), number)
  if size == number or platform != 'cpu':
    return function(*tokens)
  pieces = [array.reshape(-1, size, array.shape[-1]) for array in tokens]
  mapped = hk.map(lambda piece: function(*piece), pieces)
  return mapped.reshape(number, -1)


def _initialize_offsets(
    config: TaptrConfig, shape: Sequence[int], dtype: Any
) -> Array:
  """Samples of head after head look into as many directions, ever further."""
  angles = 2 * np.pi * np.arange(config.num_heads) / config.num_heads
  directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
  directions /= np.abs(directions).max(axis=-1, keepdims=True)
  steps = np.arange(config.num_samples)[:, None] + 1
  offsets = directions[:, None, None] * steps
  offsets = offsets.repeat(config.num_levels, axis=1)
  return jnp.asarray(offsets.reshape(shape), dtype)


def _normalize_offsets(
    offsets: Float[Array, '*n k l p 2'], config: TaptrConfig
) -> Float[Array, '*n k l p 2']:
  """Returns offsets in cells of each level in normalized coordinates."""
  sizes_xy = np.asarray(config.sizes, np.float32)[:, None, ::-1]
  leading = (1,) * (offsets.ndim - 3)
  return offsets / sizes_xy.reshape(*leading, -1, 1, 2)
