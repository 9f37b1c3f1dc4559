"""The network of PIPs++: frame features and changes of tracks."""

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from tapjax.geometry import resize_corner_aligned
from tapjax.models.pips_plus_plus.config import BLOCKS_PER_STAGE
from tapjax.models.pips_plus_plus.config import LAGS
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.config import STAGE_STRIDES
from tapjax.models.pips_plus_plus.config import STRIDE
from tapjax.models.pips_plus_plus.correlation import correlate_tracks
from tapjax.models.pips_plus_plus.correlation import embed_motion
from tapjax.nn.normalization import EPSILON
from tapjax.nn.normalization import normalize_instances

TAPS = 3


class EncoderBlock(hk.Module):
  """Two 3x3 convolutions with norms; each ends in a rectifier."""

  def __init__(self, channels: int, stride: int, name: str):
    super().__init__(name=name)
    self._convolutions = [
        _make_convolution(channels, 3, step, f'conv_{i}')
        for i, step in enumerate((stride, 1))
    ]
    self._shortcut = None
    if stride != 1:
      self._shortcut = _make_convolution(channels, 1, stride, 'shortcut')

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ _']:
    y = x
    for convolution in self._convolutions:
      y = jax.nn.relu(normalize_instances(convolution(y)))
    if self._shortcut is not None:
      x = normalize_instances(self._shortcut(x))
    return jax.nn.relu(x + y)


class Encoder(hk.Module):
  """Stages of residual blocks, brought to one size and fused."""

  def __init__(self, config: PipsPlusPlusConfig, name: str):
    super().__init__(name=name)
    self._stem = _make_convolution(config.channels[0], 7, 2, 'stem')
    self._stages = [
        [
            EncoderBlock(
                channels,
                stride if block == 0 else 1,
                name=f'stage_{stage}_block_{block}',
            )
            for block in range(BLOCKS_PER_STAGE)
        ]
        for stage, (channels, stride) in enumerate(
            zip(config.channels, STAGE_STRIDES, strict=True)
        )
    ]
    self._fuse = _make_convolution(config.fused_channels, 3, 1, 'fuse')
    self._output = _make_convolution(config.feature_channels, 1, 1, 'output')

  def __call__(self, images: Float[Array, 'b h w c']) -> dict[str, Array]:
    """Returns the features, `output`, and the results of all layers before."""
    size = (images.shape[1] // STRIDE, images.shape[2] // STRIDE)
    values = {'stem': self._stem(images)}
    x = jax.nn.relu(normalize_instances(values['stem']))
    resized = []
    for i, stage in enumerate(self._stages):
      for block in stage:
        x = block(x)
      values[f'stage_{i}'] = x
      resized.append(resize_corner_aligned(x, size))
    values['fuse'] = self._fuse(jnp.concatenate(resized, axis=-1))
    x = jax.nn.relu(normalize_instances(values['fuse']))
    values['output'] = self._output(x)
    return values


class TemporalConv(hk.Module):
  """A convolution over three frames, as one matrix product."""

  def __init__(self, channels: int, name: str):
    super().__init__(name=name)
    self._channels = channels

  def __call__(
      self, x: Float[Array, 'n t c'], valid: Bool[Array, 'n t']
  ) -> Float[Array, 'n t o']:
    """Takes frames that are not valid, and those outside, as zeros."""
    inputs = x.shape[-1]
    shape = (TAPS, inputs, self._channels)
    spread = _make_torch_spread(TAPS * inputs)
    kernel = hk.get_parameter('w', shape, init=spread)
    bias = hk.get_parameter('b', shape[-1:], init=spread)
    padded = jnp.pad(
        jnp.where(valid[..., None], x, 0), ((0, 0), (1, 1), (0, 0))
    )
    num_frames = x.shape[1]
    taps = [padded[:, tap : tap + num_frames] for tap in range(TAPS)]
    product = jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, shape[-1])
    return product + bias[None, None]


class UpdateBlock(hk.Module):
  """Two convolutions over time around which the input is carried."""

  def __init__(self, channels: int, *, is_first: bool, name: str):
    super().__init__(name=name)
    self._channels = channels
    self._is_first = is_first
    self._convolutions = [
        TemporalConv(channels, name=f'conv_{i}') for i in range(2)
    ]

  def __call__(
      self, x: Float[Array, 'n t c'], valid: Bool[Array, 'n t']
  ) -> Float[Array, 'n t o']:
    y = x
    if not self._is_first:
      y = jax.nn.relu(normalize_frames_of_tracks(y, valid))
    y = self._convolutions[0](y, valid)
    y = jax.nn.relu(normalize_frames_of_tracks(y, valid))
    y = self._convolutions[1](y, valid)
    # PARITY: new channels of the shortcut are zeros on both sides of the old
    # ones (test_pips_plus_plus_parity).
    more = self._channels - x.shape[-1]
    return y + jnp.pad(x, ((0, 0), (0, 0), (more // 2, more - more // 2)))


class UpdateNetwork(hk.Module):
  """Changes of positions from correlations and motion of tracks."""

  def __init__(self, config: PipsPlusPlusConfig, name: str):
    super().__init__(name=name)
    self._input = TemporalConv(config.block_channels[0], name='input')
    self._blocks = [
        UpdateBlock(channels, is_first=i == 0, name=f'block_{i}')
        for i, channels in enumerate(config.block_channels)
    ]
    spread = _make_torch_spread(config.block_channels[-1])
    self._output = hk.Linear(2, w_init=spread, b_init=spread, name='output')

  def __call__(
      self, x: Float[Array, 'n t c'], valid: Bool[Array, 'n t']
  ) -> Float[Array, 'n t 2']:
    x = jax.nn.relu(self._input(x, valid))
    for block in self._blocks:
      x = block(x, valid)
    return self._output(jax.nn.relu(x))


class PipsPlusPlus(hk.Module):
  """The parameters of PIPs++, and its operations on a frame or on tracks."""

  def __init__(
      self,
      config: PipsPlusPlusConfig,
      platform: str,
      name: str = 'pips_plus_plus',
  ):
    super().__init__(name=name)
    self._config = config
    self._platform = platform
    self._encoder = Encoder(config, name='encoder')
    self._update = UpdateNetwork(config, name='update')
    # PARITY: published files hold a norm that nothing uses.
    self._norm = hk.GroupNorm(groups=1, name='norm')

  def __call__(self, frame: Float[Array, 'h w 3']) -> Float[Array, '1 1 2']:
    """Tracks the first cell of a frame through the frame, for one iteration."""
    config = self._config
    pyramid = self.encode_frame(frame)
    self._norm(pyramid[0][None])
    vector = pyramid[0][0, 0]
    positions = jnp.zeros((1, 1, 2), frame.dtype)
    correlations = correlate_tracks(
        tuple(grid[None] for grid in pyramid),
        jnp.zeros((1, 1), jnp.int32),
        positions,
        jnp.broadcast_to(vector, (1, 1, 1 + len(LAGS), len(vector))),
        config.radius,
        self._platform,
    )
    motion = embed_motion(jnp.zeros_like(positions), config.frequencies)
    inputs = jnp.concatenate([correlations, motion], axis=-1)
    return self.update(inputs, jnp.ones((1, 1), bool))

  def encode_frame(
      self, frame: Float[Array, 'h w 3']
  ) -> tuple[Float[Array, '_ _ c'], ...]:
    """Returns the features of a frame at stride 8 and coarser."""
    pyramid = [self._encoder(frame[None])['output']]
    for _ in range(self._config.levels - 1):
      pyramid.append(
          hk.avg_pool(pyramid[-1], (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
      )
    return tuple(grid[0] for grid in pyramid)

  def update(
      self, inputs: Float[Array, 'n t c'], valid: Bool[Array, 'n t']
  ) -> Float[Array, 'n t 2']:
    """Returns the changes of positions, in cells."""
    return self._update(inputs, valid)


def normalize_frames_of_tracks(
    x: Float[Array, 'n t c'], valid: Bool[Array, 'n t']
) -> Float[Array, 'n t c']:
  """Gives each channel of each track its own mean and spread over time."""
  weights = valid[..., None].astype(x.dtype)
  count = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1)
  mean = jnp.sum(x * weights, axis=1, keepdims=True) / count
  variance = jnp.sum(jnp.square(x - mean) * weights, axis=1, keepdims=True)
  return (x - mean) * jax.lax.rsqrt(variance / count + EPSILON)


def make_small_frame(config: PipsPlusPlusConfig) -> Float[Array, 'h w 3']:
  """Returns a black frame with one cell on the coarsest grid."""
  return jnp.zeros((config.smallest_side, config.smallest_side, 3), jnp.float32)


def _make_convolution(
    channels: int, size: int, stride: int, name: str
) -> hk.Conv2D:
  """Returns a convolution that is padded alike on all sides."""
  return hk.Conv2D(
      channels,
      size,
      stride,
      padding=[(size // 2, size // 2)] * 2,
      w_init=hk.initializers.VarianceScaling(2.0, 'fan_out', 'normal'),
      name=name,
  )


def _make_torch_spread(fan_in: int) -> hk.initializers.Initializer:
  """Returns the uniform initializer that the published training starts with."""
  return hk.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
