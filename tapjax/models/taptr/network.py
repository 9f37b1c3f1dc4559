"""The network of TAPTRv2 and its settings; see `taptr`."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.geometry import Resolution
from tapjax.models.base import Precision
from tapjax.nn.attention import MultiHeadAttention
from tapjax.nn.attention import XAVIER
from tapjax.nn.embeddings import embed_sines
from tapjax.nn.normalization import GroupNorm
from tapjax.nn.normalization import LayerNorm
from tapjax.nn.torchvision_resnet import ResNetConfig
from tapjax.nn.torchvision_resnet import TorchvisionResNet
from tapjax.ops.deformable import read_samples
from tapjax.ops.deformable import sum_samples
from tapjax.ops.loops import map_frames


@dataclasses.dataclass(frozen=True)
class TaptrConfig:
  """Settings of a TAPTRv2 network.

  Attributes:
    resolution: (height, width) at which the network sees the video; a square.
    ends: what the network's coordinates 0 and 1 mean: the centers of the first
      and the last pixel, as it was trained, or the outer edges of the frame,
      which is what the published evaluation makes of them.
    backbone_blocks: of each stage of the residual network; each is a level.
    backbone_channels: of its stem.
    channels: of a token and of a point.
    hidden_channels: of the perceptron behind each attention.
    num_heads: of each attention.
    num_samples: that each head takes of each level.
    num_groups: of channels that are normalised together.
    encoder_layers: of attention among the tokens of a frame.
    decoder_layers: of refinement of a window.
    window: frames that are tracked together; the next begins half of it later.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (512, 512)
  ends: Literal['centers', 'edges'] = 'centers'
  backbone_blocks: tuple[int, ...] = (3, 4, 6, 3)
  backbone_channels: int = 64
  channels: int = 256
  hidden_channels: int = 2048
  num_heads: int = 8
  num_samples: int = 4
  num_groups: int = 32
  encoder_layers: int = 2
  decoder_layers: int = 5
  window: int = 8
  precision: Precision = 'highest'

  @property
  def backbone(self) -> ResNetConfig:
    """Settings of the residual network."""
    return ResNetConfig(
        self.backbone_blocks, 'bottleneck', 'frozen', self.backbone_channels
    )

  @property
  def num_levels(self) -> int:
    """Levels of the pyramid."""
    return len(self.backbone_blocks)

  @property
  def sizes(self) -> tuple[Resolution, ...]:
    """Size in cells of each level, the finest first."""
    height, width = self.resolution
    strides = (4 * 2**i for i in range(self.num_levels))
    return tuple((-(-height // s), -(-width // s)) for s in strides)


TAPTRV2 = TaptrConfig()

_TEMPERATURE = 10.0
_EPSILON = 1e-3
# That a CPU encodes at once.
_MOST_TOKENS = 1500
_COLOR_MEAN = (0.485, 0.456, 0.406)
_COLOR_DEVIATION = (0.229, 0.224, 0.225)
# Logits of something that is never asked for, of visible and of occluded.
NUM_CLASSES = 3


class LayerOutputs(NamedTuple):
  """What decoder layers say of every point on every frame.

  Attributes:
    boxes: logits of x, y, width and height as shares of the frame.
    moved: the same shares, not logits, as attention alone has moved them.
    classes: logits of three classes, of which 1 is visible and 2 occluded.
  """

  boxes: Float[Array, '*i t n 4']
  moved: Float[Array, '*i t n 4']
  classes: Float[Array, '*i t n 3']


class Window(NamedTuple):
  """What the decoder is given of some frames.

  Attributes:
    vectors: of each point.
    boxes: logits, as in `LayerOutputs`.
    first_tokens: where the tokens of each frame begin.
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

  def __init__(self, config: TaptrConfig, name: str):
    super().__init__(name=name)
    self._config = config
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
    self._mlp = _make_mlp(config.hidden_channels, config.channels, name='mlp')

  def __call__(
      self,
      x: Float[Array, 's c'],
      position: Float[Array, 's c'],
      centers: Float[Array, 's 2'],
  ) -> Float[Array, 's c']:
    config = self._config
    values = self._value(x).reshape(len(x), config.num_heads, -1)

    def attend(
        x: Float[Array, 'n c'],
        position: Float[Array, 'n c'],
        centers: Float[Array, 'n 2'],
    ) -> Float[Array, 'n c']:
      heads = (config.num_heads, config.num_levels, config.num_samples)
      query = x + position
      offsets = self._offsets(query).reshape(len(x), *heads, 2)
      weights = self._weights(query).reshape(len(x), config.num_heads, -1)
      attended = sum_samples(
          values,
          config.sizes,
          centers[:, None, None, None] + _offsets_to_shares(offsets, config),
          jax.nn.softmax(weights).reshape(len(x), *heads),
      )
      x = self._norms[0](x + self._output(attended.reshape(x.shape)))
      return self._norms[1](x + self._mlp(x))

    return _map_tokens(attend, x, position, centers)


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
  """What a point sees of its frame: vectors, scores, and where they are from.

  Offsets are shares of the frame.
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

  def __init__(self, config: TaptrConfig, name: str):
    super().__init__(name=name)
    self._config = config
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
    offsets = _offsets_to_shares(
        self._offsets(x).reshape(*leading, *heads, 2), config
    )
    points = positions[:, :, None, None, None] + offsets
    query = self._query(x).reshape(*leading, config.num_heads, -1)
    matrix, bias = self._key()
    vectors = jnp.einsum('tnkd,ckd->tnkc', query, matrix)
    constants = jnp.einsum('tnkd,kd->tnk', query, bias)

    # What is read is large; for gradients it is read again.
    @jax.checkpoint
    def attend(
        first_token: Int[Array, ''],
        points: Float[Array, 'n k l p 2'],
        vectors: Float[Array, 'n k c'],
        constants: Float[Array, 'n k'],
    ) -> tuple[Array, Array, Array]:
      samples = read_samples(
          tokens, config.sizes, points, jnp.full(len(points), first_token)
      )
      scores = jnp.sum(samples.values * vectors[:, :, None, None], axis=-1)
      scores += samples.inside * constants[:, :, None, None]
      scores /= query.shape[-1] ** 0.5
      weights = jax.nn.softmax(scores, axis=(2, 3))
      mean = jnp.sum(samples.values * weights[..., None], axis=(2, 3))
      return scores, mean, jnp.sum(samples.inside * weights, axis=(2, 3))

    scores, mean, inside = map_frames(
        attend, first_tokens, points, vectors, constants
    )
    matrix, bias = self._value()
    values = jnp.einsum('tnkc,ckd->tnkd', mean, matrix)
    values += inside[..., None] * bias[None, None]
    return Attended(
        self._output(values.reshape(x.shape)),
        scores.reshape(*leading, -1),
        offsets.reshape(*leading, -1, 2),
    )


class DecoderLayer(hk.Module):
  """Looks at the frame, moves each point, and lets frames and points talk."""

  def __init__(self, config: TaptrConfig, name: str):
    super().__init__(name=name)
    channels = config.channels
    num_weights = config.num_heads * config.num_levels * config.num_samples
    self._frame_attention = KeyAwareAttention(config, name='frame_attention')
    self._frame_norm = LayerNorm('frame_norm', with_offset=True)
    self._mover = _make_mlp(channels, channels, num_weights, name='mover')
    self._embedder = _make_mlp(channels, channels, name='embedder')
    self._time_attention = MultiHeadAttention(
        channels, config.num_heads, name='time_attention'
    )
    self._time_norm = LayerNorm('time_norm', with_offset=True)
    self._point_attention = MultiHeadAttention(
        channels, config.num_heads, name='point_attention'
    )
    self._point_norm = LayerNorm('point_norm', with_offset=True)
    self._mlp = _make_mlp(config.hidden_channels, channels, name='mlp')
    self._mlp_norm = LayerNorm('mlp_norm', with_offset=True)

  def __call__(
      self,
      x: Float[Array, 't n c'],
      position: Float[Array, 't n c'],
      boxes: Float[Array, 't n 4'],
      window: Window,
      tokens: Float[Array, 's c'],
  ) -> tuple[Float[Array, 't n c'], Float[Array, 't n 4']]:
    """Returns vectors and moved boxes; boxes are shares, not logits."""
    attended = self._frame_attention(
        x + position, boxes[..., :2], window.first_tokens, tokens
    )
    x = self._frame_norm(x + attended.vectors)
    weights = jax.nn.softmax(self._mover(attended.scores))
    step = jnp.sum(weights[..., None] * attended.offsets, axis=-2)
    moved = jax.nn.sigmoid(compute_logit(boxes[..., :2] + step))
    moved = jnp.concatenate([moved, boxes[..., 2:]], axis=-1)
    moved = jnp.where(window.updating[..., None], moved, boxes)
    position = self._embedder(_embed_boxes(moved, x.shape[-1]))

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


class Taptr(hk.Module):
  """The parameters of TAPTRv2 and what it does to a frame or to a window."""

  def __init__(self, config: TaptrConfig, name: str = 'taptr'):
    super().__init__(name=name)
    self._config = config
    channels = config.channels
    layers = range(config.decoder_layers)
    self._backbone = TorchvisionResNet(config.backbone, name='backbone')
    self._projections = [
        hk.Conv2D(channels, 1, w_init=XAVIER, name=f'projection_{i}')
        for i in range(config.num_levels)
    ]
    self._projection_norms = [
        GroupNorm(config.num_groups, name=f'projection_norm_{i}')
        for i in range(config.num_levels)
    ]
    self._encoder = [
        EncoderLayer(config, name=f'encoder_{i}')
        for i in range(config.encoder_layers)
    ]
    self._describer = hk.Linear(channels, name='describer')
    self._embedder = _make_mlp(channels, channels, name='embedder')
    self._updater = _make_mlp(channels, channels, name='updater')
    self._fuser = _make_mlp(channels, channels, channels, name='fuser')
    self._decoder = [DecoderLayer(config, name=f'decoder_{i}') for i in layers]
    self._boxes = [
        _make_mlp(channels, channels, 4, name=f'boxes_{i}') for i in layers
    ]
    self._classes = [
        hk.Linear(NUM_CLASSES, name=f'classes_{i}') for i in layers
    ]
    self._window_updater = _make_mlp(channels, channels, name='window_updater')

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> Float[Array, 's c']:
    """Returns the tokens of a frame."""
    config = self._config
    deviation = np.asarray(_COLOR_DEVIATION, np.float32)[None, None]
    mean = np.asarray(_COLOR_MEAN, np.float32)[None, None]
    colors = ((frame + 1) / 2 - mean) / deviation
    levels = [
        norm(projection(x))
        for x, projection, norm in zip(
            self._backbone(colors[None]),
            self._projections,
            self._projection_norms,
            strict=True,
        )
    ]
    embeddings = hk.get_parameter(
        'level_embeddings',
        (config.num_levels, config.channels),
        init=hk.initializers.RandomNormal(),
    )
    x = jnp.concatenate(
        [level.reshape(-1, config.channels) for level in levels]
    )
    position = jnp.concatenate(
        [
            _embed_cells(size, config.channels) + embedding[None]
            for size, embedding in zip(config.sizes, embeddings, strict=True)
        ]
    )
    centers = jnp.concatenate([_list_centers(size) for size in config.sizes])
    for layer in self._encoder:
      x = layer(x, position, centers)
    return x

  def describe(self, samples: Float[Array, 'n l_c']) -> Float[Array, 'n c']:
    """Returns what a point is like from what it is like on every level."""
    return self._describer(samples)

  def decode_window(
      self, window: Window, tokens: Float[Array, 's c']
  ) -> tuple[LayerOutputs, Float[Array, 't n c']]:
    """Returns the outputs of all layers, and the last one's vectors."""
    channels = self._config.channels
    updating = window.updating[..., None]
    boxes = jax.nn.sigmoid(window.boxes)
    x = window.vectors
    outputs = []
    for i, layer in enumerate(self._decoder):
      if i:
        x += self._updater(jnp.concatenate([x, window.vectors], axis=-1))
      position = self._embedder(_embed_boxes(boxes, channels))
      x, moved = layer(x, position, boxes, window, tokens)
      step = jnp.flip((moved - boxes)[..., :2], axis=-1)
      step = embed_sines(step, channels // 2, _TEMPERATURE)
      fused = self._fuser(jnp.concatenate([x, step], axis=-1))
      logits = compute_logit(moved) + updating * self._boxes[i](fused)
      outputs.append(LayerOutputs(logits, moved, self._classes[i](fused)))
      boxes = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *outputs), fused

  def update_vectors(
      self,
      first: Float[Array, 't n c'],
      before: Float[Array, 't n c'],
      after: Float[Array, 't n c'],
  ) -> Float[Array, 't n c']:
    """Returns how to change the vectors that the next window starts from."""
    return self._window_updater(
        jnp.concatenate([first, before, after], axis=-1)
    )


def _map_tokens(
    function: Callable[..., Array], *tokens: Float[Array, 's _']
) -> Float[Array, 's c']:
  """Applies a function of Haiku modules to tokens that do not see each other.

  A CPU takes some at a time, so that what becomes of them stays in its cache;
  an accelerator takes them all at once.
  """
  number = len(tokens[0])
  sizes = range(min(number, _MOST_TOKENS), _MOST_TOKENS // 4, -1)
  size = next((size for size in sizes if number % size == 0), number)
  if size == number or jax.default_backend() != 'cpu':
    return function(*tokens)
  pieces = [array.reshape(-1, size, array.shape[-1]) for array in tokens]
  mapped = hk.map(lambda piece: function(*piece), pieces)
  return mapped.reshape(number, -1)


def _make_mlp(*sizes: int, name: str) -> hk.nets.MLP:
  return hk.nets.MLP(sizes, w_init=XAVIER, name=name)


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


def _offsets_to_shares(
    offsets: Float[Array, '*n k l p 2'], config: TaptrConfig
) -> Float[Array, '*n k l p 2']:
  """Returns offsets in cells of each level as shares of the frame."""
  sizes_xy = np.asarray(config.sizes, np.float32)[:, None, ::-1]
  leading = (1,) * (offsets.ndim - 3)
  return offsets / sizes_xy.reshape(*leading, -1, 1, 2)


def _embed_cells(size: Resolution, channels: int) -> Float[Array, '_ c']:
  """Returns sines of the row and of the column of every cell of a level."""
  # PARITY: cells are counted from 1, and the last is almost a full turn
  # (test_taptr_parity).
  rows, columns = ((jnp.arange(side) + 1) / (side + 1e-6) for side in size)
  y, x = jnp.meshgrid(rows, columns, indexing='ij')
  values = jnp.stack([y, x], axis=-1).reshape(-1, 2)
  return embed_sines(values, channels // 2, _TEMPERATURE)


def _list_centers(size: Resolution) -> Float[Array, '_ 2']:
  """Returns the (x, y) of the cells of a level as shares of the frame."""
  rows, columns = ((jnp.arange(side) + 0.5) / side for side in size)
  y, x = jnp.meshgrid(rows, columns, indexing='ij')
  return jnp.stack([x, y], axis=-1).reshape(-1, 2)


def _embed_boxes(
    boxes: Float[Array, 't n 4'], channels: int
) -> Float[Array, 't n _']:
  """Returns sines of y, x, width and height."""
  values = boxes[..., np.asarray([1, 0, 2, 3])]
  return embed_sines(values, channels // 2, _TEMPERATURE)


def compute_logit(share: Float[Array, '*n']) -> Float[Array, '*n']:
  """Undoes a sigmoid, within a thousandth from 0 and 1."""
  share = jnp.clip(share, 0.0, 1.0)
  odds = jnp.maximum(share, _EPSILON) / jnp.maximum(1 - share, _EPSILON)
  return jnp.log(odds)


def check_config(config: TaptrConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  height, width = config.resolution
  if height != width or height < 2:
    raise ValueError(
        'resolution must be a square for TAPTRv2, which was published for no '
        f'other; got {config.resolution} - use ({height}, {height})'
    )
  if not config.backbone_blocks or min(config.backbone_blocks) < 1:
    raise ValueError(
        'backbone_blocks must have an entry above 0 for each stage; got '
        f'{config.backbone_blocks}'
    )
  counts = (
      'backbone_channels',
      'channels',
      'hidden_channels',
      'num_heads',
      'num_samples',
      'num_groups',
      'decoder_layers',
  )
  for name in counts:
    if getattr(config, name) < 1:
      raise ValueError(
          f'{name} must be at least 1; got {getattr(config, name)}'
      )
  if config.encoder_layers < 0:
    raise ValueError(
        f'encoder_layers must be at least 0; got {config.encoder_layers}'
    )
  for name, value in (
      ('num_heads', config.num_heads),
      ('num_groups', config.num_groups),
      ('4, for its sines', 4),
  ):
    if config.channels % value:
      raise ValueError(
          f'channels must be a multiple of {name}; got {config.channels}'
      )
  if config.window < 2 or config.window % 2:
    raise ValueError(f'window must be even and positive; got {config.window}')


def touch(module: Taptr, config: TaptrConfig) -> None:
  """Calls every part of the module once, on the smallest of inputs."""
  tokens = module.encode_frame(jnp.zeros((*config.resolution, 3), jnp.float32))
  samples = jnp.zeros((1, config.num_levels * config.channels), jnp.float32)
  vectors = module.describe(samples)[None]
  started = jnp.ones((1, 1), bool)
  boxes = jnp.zeros((1, 1, 4), jnp.float32)
  first = jnp.zeros((1,), jnp.int32)
  window = Window(vectors, boxes, first, started, started)
  _, after = module.decode_window(window, tokens)
  module.update_vectors(vectors, vectors, after)
