"""The network of a point transformer: grids of frames and a transformer."""

import functools
import math

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Key

from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.nn.attention import MultiHeadAttention
from tapjax.nn.embeddings import embed_sines
from tapjax.nn.normalization import BatchNorm
from tapjax.nn.normalization import LayerNorm
from tapjax.nn.torchvision_resnet import TorchvisionResNet

# Module path of the residual network's modules.
BACKBONE_PREFIX = 'point_transformer/~/backbone/~/'
# Channels of a perceptron, in those of a token.
HIDDEN = 4
# Of token indices; the slowest wave takes about 600 of them.
_TEMPERATURE = 100.0
_SPREAD = hk.initializers.VarianceScaling(1 / 3, 'fan_in', 'uniform')
_CENTER = 0.5
_SMALL_SIDE = 32


class Block(hk.Module):
  """Attention between tokens and a perceptron; both add to their input."""

  def __init__(self, config: PointTransformerConfig, name: str):
    super().__init__(name=name)
    channels = config.channels
    self._dropout = config.dropout
    self._norms = [LayerNorm(f'norm_{i}', with_offset=True) for i in range(2)]
    self._attention = MultiHeadAttention(
        channels,
        config.num_heads,
        name='attention',
        w_init=_SPREAD,
        b_init=_make_bias_spread(channels),
    )
    self._hidden = _make_linear(channels, HIDDEN * channels, 'hidden')
    self._output = _make_linear(HIDDEN * channels, channels, 'output')

  def __call__(
      self, x: Float[Array, 'b s c'], keys: Key[Array, 'b'] | None
  ) -> tuple[Float[Array, 'b s c'], Float[Array, 'b k s s']]:
    """Returns tokens and attention; keys turn dropout on."""
    drop = functools.partial(drop_values, keys, self._dropout)
    used = []

    def weigh(weights: Float[Array, 'b k s s']) -> Float[Array, 'b k s s']:
      used.append(drop(0, weights))
      return used[0]

    y = self._norms[0](x)
    x += self._attention(y, y, weigh=weigh)
    # The exact function, not its approximation by a hyperbolic tangent.
    y = jax.nn.gelu(self._hidden(self._norms[1](x)), approximate=False)
    return x + drop(2, self._output(drop(1, y))), used[0]


class PointTransformer(hk.Module):
  """The parameters of a point transformer, and its operations on a window."""

  def __init__(
      self,
      config: PointTransformerConfig,
      name: str = 'point_transformer',
      axis: str | None = None,
  ):
    """Makes the network.

    Args:
      config: its settings.
      name: of the module.
      axis: of the mapped function whose shards norms see together in training.
    """
    super().__init__(name=name)
    self._config = config
    channels = config.channels
    self._backbone = TorchvisionResNet(config.resnet, 'backbone', axis)
    inputs = config.resnet.output_channels[-1]
    self._projection = hk.Conv2D(
        channels,
        1,
        w_init=_SPREAD,
        b_init=_make_bias_spread(inputs),
        name='projection',
    )
    self._projection_norm = BatchNorm(name='projection_norm', axis=axis)
    self._embedding = _make_linear(2, channels, 'embedding')
    self._blocks = [
        Block(config, name=f'block_{i}') for i in range(config.num_blocks)
    ]
    self._hidden = _make_linear(channels, channels // 2, 'hidden')
    self._output = _make_linear(channels // 2, 2, 'output')

  def __call__(self, image: Float[Array, 'h w 3']) -> Float[Array, '1 1 1 2']:
    """Tracks the center of an image through a window of the image alone."""
    grid = self.encode(image[None])
    center = jnp.full((1, 1, 2), _CENTER, image.dtype)
    positions, _ = self.predict(grid[:, :1, :1], center)
    return positions

  def encode(
      self, images: Float[Array, 'b h w 3'], *, is_training: bool = False
  ) -> Float[Array, 'b _ _ c']:
    """Returns the grid of each image, of colors in [0, 1]."""
    *_, coarsest = self._backbone(images, is_training=is_training)
    grid = self._projection(coarsest)
    return jax.nn.relu(self._projection_norm(grid, is_training=is_training))

  def encode_for_training(
      self, images: Float[Array, 'b h w 3']
  ) -> Float[Array, 'b _ _ c']:
    """Returns the same grids, with norms over all of these images."""
    return self.encode(images, is_training=True)

  def predict(
      self,
      samples: Float[Array, 'b t n c'],
      points_unit: Float[Array, 'b n 2'],
      keys: Key[Array, 'b'] | None = None,
  ) -> tuple[Float[Array, 'b t n 2'], tuple[Float[Array, 'b k s s'], ...]]:
    """Returns positions and attention; keys turn dropout on."""
    offsets, attention = self.transform(self.embed(samples, points_unit), keys)
    return points_unit[:, None] + offsets, attention

  def embed(
      self,
      samples: Float[Array, 'b t n c'],
      points_unit: Float[Array, 'b n 2'],
  ) -> Float[Array, 'b t n c']:
    """Returns tokens from samples of the frames at the points."""
    num_frames, num_points, channels = samples.shape[1:]
    if self._config.token_time == 'published':
      # PARITY: tokens are counted through all points of a frame, and yet modulo
      # the number of frames (test_point_transformer_parity).
      index = jnp.arange(num_frames * num_points) % num_frames
    else:
      index = jnp.arange(num_frames).repeat(num_points)
    turns = index / (2 * math.pi)
    waves = embed_sines(turns[:, None], channels, _TEMPERATURE)
    waves = waves.reshape(1, num_frames, num_points, channels)
    return samples + self._embedding(points_unit)[:, None] + waves

  def transform(
      self,
      tokens: Float[Array, 'b t n c'],
      keys: Key[Array, 'b'] | None = None,
  ) -> tuple[Float[Array, 'b t n 2'], tuple[Float[Array, 'b k s s'], ...]]:
    """Returns offsets of points from their first positions, and attention."""
    x = tokens.reshape(len(tokens), -1, tokens.shape[-1])
    count = len(self._blocks) + 1
    parts: list[Array | None] = [None] * count
    if keys is not None:
      split = jax.vmap(functools.partial(jax.random.split, num=count))(keys)
      parts = [split[:, i] for i in range(count)]
    attention = []
    for block, block_keys in zip(self._blocks, parts[1:], strict=True):
      x, weights = block(x, block_keys)
      attention.append(weights)
    hidden = jax.nn.relu(self._hidden(x))
    offsets = self._output(
        drop_values(parts[0], self._config.dropout, 0, hidden)
    )
    return offsets.reshape(*tokens.shape[:3], 2), tuple(attention)


def drop_values(
    keys: Key[Array, 'b'] | None,
    rate: float,
    index: int,
    values: Float[Array, 'b *n'],
) -> Float[Array, 'b *n']:
  """Drops out a share of the values of each clip, given keys."""
  if keys is None or not rate:
    return values
  return jax.vmap(
      lambda key, own: hk.dropout(jax.random.fold_in(key, index), rate, own)
  )(keys, values)


def make_small_image() -> Float[Array, 'h w 3']:
  """Returns a black image."""
  return jnp.zeros((_SMALL_SIDE, _SMALL_SIDE, 3), jnp.float32)


def _make_bias_spread(fan_in: int) -> hk.initializers.Initializer:
  return hk.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)


def _make_linear(inputs: int, outputs: int, name: str) -> hk.Linear:
  return hk.Linear(
      outputs, w_init=_SPREAD, b_init=_make_bias_spread(inputs), name=name
  )
