"""TAPTRv2: points are the queries of a detection transformer.

Li et al., "TAPTRv2: Attention-based Position Update Improves Tracking Any
Point", arXiv 2407.16291. A frame becomes a pyramid of tokens: a residual
network, then deformable attention among them. Points are tracked in windows of
frames. There every point of every frame is a vector f and a position p, which
each of some layers improves:

  s = <query(f), key(samples of the frame around p)>;  f += softmax(s) . values
  p += softmax(mlp(s)) . (samples - p)                 attention moves the point
  f += attention over frames;  f += attention over points;  f += mlp(f)
  p += mlp(f, how far the point moved);  visibility = linear(f, the same)

Positions are taken to the frames of the next window, and so are vectors. Since
points attend to each other, results depend on which of them are tracked
together.

Weights: github.com/IDEA-Research/TAPTR, for non-commercial research only.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import math
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
from tapjax.models.base import make_stages
from tapjax.models.base import Params
from tapjax.models.base import Precision
from tapjax.models.base import set_precision
from tapjax.models.base import Stages
from tapjax.models.base import TrackerFunctions
from tapjax.models.names import WeightName
from tapjax.models.names import list_resnet_names
from tapjax.nn.attention import MultiHeadAttention
from tapjax.nn.attention import XAVIER
from tapjax.nn.embeddings import embed_sines
from tapjax.nn.normalization import GroupNorm
from tapjax.nn.normalization import make_layer_norm
from tapjax.nn.torchvision_resnet import count_resnet
from tapjax.nn.torchvision_resnet import ResNetConfig
from tapjax.nn.torchvision_resnet import TorchvisionResNet
from tapjax.ops.deformable import count_tokens
from tapjax.ops.deformable import read_samples
from tapjax.ops.deformable import sum_samples
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.types import Tracks
from tapjax.types import TrackState


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
_COLOR_MEAN = (0.485, 0.456, 0.406)
_COLOR_DEVIATION = (0.229, 0.224, 0.225)
# Logits of something that is never asked for, of visible and of occluded.
_NUM_CLASSES = 3
_VISIBLE = 1
# Videos longer than this pass features on after fewer windows.
_TRAINED_FRAMES = 24


class QueryFeatures(NamedTuple):
  """What each query looks like, and where it is: (t, y, x) in pixels."""

  vectors: Float[Array, 'b n c']
  points: Float[Array, 'b n 3']


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
    self._norms = [
        make_layer_norm(f'norm_{i}', with_offset=True) for i in range(2)
    ]
    self._mlp = _make_mlp(config.hidden_channels, config.channels, name='mlp')

  def __call__(
      self,
      x: Float[Array, 's c'],
      position: Float[Array, 's c'],
      centers: Float[Array, 's 2'],
  ) -> Float[Array, 's c']:
    config = self._config
    num_tokens = x.shape[0]
    heads = (config.num_heads, config.num_levels, config.num_samples)
    query = x + position
    offsets = self._offsets(query).reshape(num_tokens, *heads, 2)
    weights = self._weights(query).reshape(num_tokens, config.num_heads, -1)
    attended = sum_samples(
        self._value(x).reshape(num_tokens, config.num_heads, -1),
        config.sizes,
        centers[:, None, None, None] + _offsets_to_shares(offsets, config),
        jax.nn.softmax(weights).reshape(num_tokens, *heads),
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
    self._frame_norm = make_layer_norm('frame_norm', with_offset=True)
    self._mover = _make_mlp(channels, channels, num_weights, name='mover')
    self._embedder = _make_mlp(channels, channels, name='embedder')
    self._time_attention = MultiHeadAttention(
        channels, config.num_heads, name='time_attention'
    )
    self._time_norm = make_layer_norm('time_norm', with_offset=True)
    self._point_attention = MultiHeadAttention(
        channels, config.num_heads, name='point_attention'
    )
    self._point_norm = make_layer_norm('point_norm', with_offset=True)
    self._mlp = _make_mlp(config.hidden_channels, channels, name='mlp')
    self._mlp_norm = make_layer_norm('mlp_norm', with_offset=True)

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
    moved = jax.nn.sigmoid(_compute_logit(boxes[..., :2] + step))
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
        hk.Linear(_NUM_CLASSES, name=f'classes_{i}') for i in layers
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
    x = jnp.concatenate([level.reshape(-1, config.channels) for level in levels])
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
      logits = _compute_logit(moved) + updating * self._boxes[i](fused)
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
    return self._window_updater(jnp.concatenate([first, before, after], axis=-1))


def _make_mlp(*sizes: int, name: str) -> hk.nets.MLP:
  return hk.nets.MLP(sizes, w_init=XAVIER, name=name)


def _initialize_offsets(
    config: TaptrConfig, shape: tuple[int, ...], dtype: Any
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


def _compute_logit(share: Float[Array, '*n']) -> Float[Array, '*n']:
  """Undoes a sigmoid, within a thousandth from 0 and 1."""
  share = jnp.clip(share, 0.0, 1.0)
  odds = jnp.maximum(share, _EPSILON) / jnp.maximum(1 - share, _EPSILON)
  return jnp.log(odds)


class WindowMemory(NamedTuple):
  """What windows leave to those after them, for a whole video."""

  vectors: Float[Array, 't n c']
  outputs: LayerOutputs


class Schedule(NamedTuple):
  """The windows of a video, in the order in which they are tracked.

  Attributes:
    starts: first frame of each.
    passes_on: whether the vectors of its last frame go to all frames beyond.
  """

  starts: tuple[int, ...]
  passes_on: tuple[bool, ...]


def plan_windows(num_frames: int, window: int) -> Schedule:
  """Returns windows that overlap by half, the last one as far as needed.

  In long videos only some windows pass vectors on to the frames beyond them.
  """
  stride = window // 2
  num_windows = max(0, math.ceil((num_frames - window) / stride)) + 1
  starts = [
      max(0, min(stride * i, num_frames - window)) for i in range(num_windows)
  ]
  gap = max(1, num_frames // _TRAINED_FRAMES)
  passes_on = [i % gap == 0 for i in range(num_windows)]
  return Schedule(tuple(starts), tuple(passes_on))


def track_windows(
    apply: Callable[..., Any],
    config: TaptrConfig,
    tokens: Float[Array, 't s c'],
    vectors: Float[Array, 'n c'],
    query_frames: Int[Array, 'n'],
    start: LayerOutputs,
    direction: Literal['forward', 'backward'],
) -> LayerOutputs:
  """Tracks points from their queries to one end of the video.

  Args:
    apply: calls a method of `Taptr`, as in `apply('decode_window', ...)`.
    config: the settings.
    tokens: of each frame.
    vectors: of each query.
    query_frames: where each query is.
    start: what is believed of all frames, of one layer; frames on the other
      side of the query, and its own, keep it.
    direction: to the last frame, or to the first.

  Returns:
    What each layer says, for the losses; the last one's is the result.
  """
  num_frames = tokens.shape[0]
  is_forward = direction == 'forward'
  # A short video is continued by its last frame, on the side of the future.
  missing = max(0, config.window - num_frames)
  before = 0 if is_forward else missing
  schedule = plan_windows(num_frames + missing, config.window)
  starts = np.asarray(schedule.starts)
  if not is_forward:
    starts = num_frames + missing - config.window - starts
  query_frames = query_frames + before
  all_tokens = tokens.reshape(-1, tokens.shape[-1])
  frames = jnp.arange(num_frames + missing)

  def pad(array: Array, axis: int) -> Array:
    widths = [(0, 0)] * array.ndim
    widths[axis] = (before, missing - before)
    return jnp.pad(array, widths, mode='edge')

  def step(
      memory: WindowMemory, now: tuple[Array, Array]
  ) -> tuple[WindowMemory, None]:
    first_frame, passes_on = now
    window_frames = first_frame + jnp.arange(config.window)
    if is_forward:
      updating = window_frames[:, None] > query_frames[None]
      tracked = window_frames[:, None] >= query_frames[None]
      last_frame = window_frames[-1]
      is_beyond = frames > last_frame
    else:
      updating = window_frames[:, None] < query_frames[None]
      tracked = window_frames[:, None] <= query_frames[None]
      last_frame = first_frame
      is_beyond = frames < last_frame

    def take(array: Array, axis: int) -> Array:
      return jax.lax.dynamic_slice_in_dim(
          array, first_frame, config.window, axis
      )

    def put(array: Array, part: Array, axis: int) -> Array:
      return jax.lax.dynamic_update_slice_in_dim(
          array, part, first_frame, axis
      )

    def pass_on(array: Array, axis: int) -> Array:
      last = jax.lax.dynamic_index_in_dim(array, last_frame, axis)
      shape = [1] * array.ndim
      shape[axis] = -1
      return jnp.where(is_beyond.reshape(shape), last, array)

    def track(memory: WindowMemory) -> WindowMemory:
      old = jax.tree.map(lambda array: take(array, 1), memory.outputs)
      before_vectors = take(memory.vectors, 0)
      video_frames = jnp.clip(window_frames - before, 0, num_frames - 1)
      window = Window(
          before_vectors,
          old.boxes[-1],
          video_frames * tokens.shape[1],
          tracked,
          updating,
      )
      new, after_vectors = apply('decode_window', window, all_tokens)
      outputs = jax.tree.map(
          lambda array, part, old: pass_on(
              put(array, jnp.where(updating[None, ..., None], part, old), 1), 1
          ),
          memory.outputs,
          new,
          old,
      )
      change = apply(
          'update_vectors',
          jnp.broadcast_to(vectors[None], before_vectors.shape),
          before_vectors,
          after_vectors,
      )
      changed = put(
          memory.vectors, before_vectors + updating[..., None] * change, 0
      )
      changed = jnp.where(passes_on, pass_on(changed, 0), changed)
      return WindowMemory(changed, outputs)

    # Nothing is passed on by windows that have nothing to track.
    memory = jax.lax.cond(
        jnp.any(updating), track, lambda memory: memory, memory
    )
    return memory, None

  start = jax.tree.map(
      lambda array: jnp.broadcast_to(
          pad(array, 0)[None],
          (config.decoder_layers, len(frames), *array.shape[1:]),
      ),
      start,
  )
  memory = WindowMemory(
      jnp.broadcast_to(vectors[None], (len(frames), *vectors.shape)), start
  )
  memory, _ = jax.lax.scan(
      step,
      memory,
      (jnp.asarray(starts), jnp.asarray(schedule.passes_on)),
  )
  return jax.tree.map(
      lambda array: array[:, before : before + num_frames], memory.outputs
  )


@functools.cache
def make_functions(config: TaptrConfig) -> TrackerFunctions:
  """Returns TAPTRv2 as pure functions; see `TrackerFunctions`.

  Equal configs get the same functions, and so share what was compiled.

  Features are the tokens of every frame, query features `QueryFeatures`.
  """
  stages = _make_stages(config)

  def encode_video(
      params: Params, video: Float[Array, 'b t h w 3']
  ) -> Float[Array, 'b t s c']:
    frames = video.reshape(-1, *video.shape[2:])
    tokens = map_frames(
        lambda frame: stages.apply('encode_frame', params, frame), frames
    )
    return tokens.reshape(*video.shape[:2], *tokens.shape[1:])

  def describe_queries(
      params: Params,
      features: Float[Array, 'b t s c'],
      query_points: Float[Array, 'b n 3'],
  ) -> QueryFeatures:
    def describe(
        tokens: Float[Array, 't s c'], points: Float[Array, 'n 3']
    ) -> Float[Array, 'n c']:
      samples = read_samples(
          tokens.reshape(-1, tokens.shape[-1]),
          config.sizes,
          _align_corners(_pixels_to_shares(points[:, :0:-1], config), config),
          _get_query_frames(points, len(tokens)) * tokens.shape[1],
      )
      samples = samples.values.reshape(len(points), -1)
      return stages.apply('describe', params, samples)

    return QueryFeatures(
        map_batch(describe, features, query_points), query_points
    )

  def initialize_tracks(
      params: Params,
      features: Float[Array, 'b t s c'],
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
  ) -> TrackState:
    del params, query_points  # Points begin where they were described.
    points = query_features.points[:, :, None, :0:-1]
    shape = (*points.shape[:2], features.shape[1])
    return TrackState(
        jnp.broadcast_to(points, (*shape, 2)),
        jnp.full(shape, -1, points.dtype),
        None,
    )

  def refine_tracks(
      params: Params,
      features: Float[Array, 'b t s c'],
      query_features: QueryFeatures,
      state: TrackState,
      memory: None = None,
  ) -> tuple[TrackState, None]:
    if memory is not None:
      raise ValueError(
          'memory must be None for TAPTRv2, which tracks to both ends of a '
          'video; got one - use a causal preset, such as causal_bootstapir'
      )

    def refine(
        tokens: Float[Array, 't s c'],
        queries: QueryFeatures,
        state: TrackState,
    ) -> TrackState:
      query_frames = _get_query_frames(queries.points, len(tokens))
      forward, backward = (
          track_windows(
              lambda method, *rest: stages.apply(method, params, *rest),
              config,
              tokens,
              queries.vectors,
              query_frames,
              _make_start(state, config),
              direction,
          )
          for direction in ('forward', 'backward')
      )
      frames = jnp.arange(len(tokens))[:, None]
      is_forward = (frames >= query_frames[None])[None, ..., None]
      outputs = jax.tree.map(
          lambda *both: jnp.where(is_forward, *both).swapaxes(1, 2),
          forward,
          backward,
      )
      return TrackState(
          _shares_to_pixels(jax.nn.sigmoid(outputs.boxes[..., :2]), config),
          -outputs.classes[..., _VISIBLE],
          None,
      )

    states = map_batch(refine, features, query_features, state)
    return jax.tree.map(lambda array: array.swapaxes(0, 1), states), None

  def finalize_tracks(states: TrackState) -> Tracks:
    last = jax.tree.map(lambda array: array[-1], states)
    visible = last.occlusion_logits < 0
    return Tracks(last.positions, visible, last.occlusion_logits, None)

  functions = TrackerFunctions(
      resolution=config.resolution,
      temporal_context=0,
      init=stages.init,
      encode_video=encode_video,
      describe_queries=describe_queries,
      initialize_tracks=initialize_tracks,
      refine_tracks=refine_tracks,
      finalize_tracks=finalize_tracks,
      make_memory=None,
      queries_independent=False,
  )
  return set_precision(functions, config.precision)


def _make_stages(config: TaptrConfig) -> Stages:
  _check_config(config)
  return make_stages(
      lambda: Taptr(config),
      ('encode_frame', 'describe', 'decode_window', 'update_vectors'),
      lambda module: _touch(module, config),
  )


def _make_start(state: TrackState, config: TaptrConfig) -> LayerOutputs:
  """Returns what is believed before the first window, time first."""
  assert state.occlusion_logits is not None, 'TAPTRv2 estimates them'
  shares = _pixels_to_shares(state.positions.swapaxes(0, 1), config)
  visible = -state.occlusion_logits.T
  logits = _compute_logit(shares)
  zeros = jnp.zeros_like(logits)
  boxes = jnp.concatenate([logits, zeros], axis=-1)
  classes = [jnp.zeros_like(visible)] * _NUM_CLASSES
  classes[_VISIBLE] = visible
  return LayerOutputs(
      boxes, jax.nn.sigmoid(boxes), jnp.stack(classes, axis=-1)
  )


def _get_query_frames(
    points: Float[Array, 'n 3'], num_frames: int
) -> Int[Array, 'n']:
  """Returns the frame nearest to each query's time."""
  nearest = jnp.round(points[:, 0]).astype(jnp.int32)
  return jnp.clip(nearest, 0, num_frames - 1)


def _pixels_to_shares(
    positions: Float[Array, '*n 2'], config: TaptrConfig
) -> Float[Array, '*n 2']:
  """Returns raster (x, y) in the network's coordinates, about 0 to 1."""
  side = config.resolution[0]
  if config.ends == 'edges':
    return positions / side
  return (positions - 0.5) / (side - 1)


def _shares_to_pixels(
    shares: Float[Array, '*n 2'], config: TaptrConfig
) -> Float[Array, '*n 2']:
  """Undoes `_pixels_to_shares`."""
  side = config.resolution[0]
  if config.ends == 'edges':
    return shares * side
  return shares * (side - 1) + 0.5


def _align_corners(
    shares: Float[Array, 'n 2'], config: TaptrConfig
) -> Float[Array, 'n k l p 2']:
  """Returns where 0 and 1 are the centers of each level's outermost cells."""
  # PARITY: attention reads the same coordinates as shares from edge to edge
  # (test_taptr_parity).
  sizes_xy = np.asarray(config.sizes, np.float32)[None, :, ::-1]
  inside = jnp.clip(shares, 0.0, 1.0)[:, None]
  aligned = (inside * (sizes_xy - 1) + 0.5) / sizes_xy
  return aligned[:, None, :, None]


def _check_config(config: TaptrConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  height, width = config.resolution
  if height != width or height < 2:
    raise ValueError(
        'resolution must be a square for TAPTRv2, which was published for no '
        f'other; got {config.resolution} - use ({height}, {height})'
    )
  counts = (
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


def _touch(module: Taptr, config: TaptrConfig) -> None:
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


def list_weight_names(config: TaptrConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  ours = 'taptr/~/'
  yield WeightName('level_embeddings', 'taptr', torch='transformer')
  torch = 'backbone.0.body.'
  stages = [f'{torch}layer{i + 1}.' for i in range(config.num_levels)]
  yield from list_resnet_names(
      f'{ours}backbone/~/', config.backbone, (f'{torch}conv1', f'{torch}bn1'), stages
  )
  for i in range(config.num_levels):
    torch = f'input_proj.{i}.'
    yield WeightName('conv2d_bias', f'{ours}projection_{i}', torch=f'{torch}0')
    yield WeightName('norm', f'{ours}projection_norm_{i}', torch=f'{torch}1')
  yield WeightName(
      'linear',
      f'{ours}describer',
      torch='transformer.query_feature_initializer',
  )
  for i in range(config.encoder_layers):
    layer, torch = f'{ours}encoder_{i}/~/', f'transformer.encoder.layers.{i}.'
    for name, published in (
        ('offsets', 'sampling_offsets'),
        ('weights', 'attention_weights'),
        ('value', 'value_proj'),
        ('output', 'output_proj'),
    ):
      yield WeightName(
          'linear', layer + name, torch=f'{torch}self_attn.{published}'
      )
    for j in range(2):
      yield WeightName('norm', f'{layer}norm_{j}', torch=f'{torch}norm{j + 1}')
    yield from _list_mlp_names(layer + 'mlp', f'{torch}linear1', f'{torch}linear2')

  torch = 'transformer.decoder.'
  yield from _list_mlp_names(
      f'{ours}embedder', *(f'{torch}ref_point_head.layers.{j}' for j in range(2))
  )
  yield from _list_mlp_names(
      f'{ours}updater', *(f'{torch}query_updater.{j}' for j in (0, 2))
  )
  yield from _list_mlp_names(
      f'{ours}fuser', *(f'{torch}ca_update_fuser.{j}' for j in (0, 2, 4))
  )
  yield from _list_mlp_names(
      f'{ours}window_updater',
      *(f'query_between_window_updater.{j}' for j in (0, 2)),
  )
  for i in range(config.decoder_layers):
    yield from _list_mlp_names(
        f'{ours}boxes_{i}', *(f'bbox_embed.{i}.layers.{j}' for j in range(3))
    )
    yield WeightName(
        'linear', f'{ours}classes_{i}', torch=f'class_embed.{i}'
    )
    yield from _list_decoder_names(f'{ours}decoder_{i}/~/', f'{torch}layers.{i}.')


def _list_decoder_names(ours: str, torch: str) -> Iterator[WeightName]:
  """Lists the modules of a `DecoderLayer` below a module path."""
  for name, published in (
      ('offsets', 'sampling_offsets'),
      ('query', 'query_proj'),
      ('key', 'key_proj'),
      ('value', 'value_proj'),
      ('output', 'output_proj'),
  ):
    yield WeightName(
        'linear',
        f'{ours}frame_attention/~/{name}',
        torch=f'{torch}cross_attn.{published}',
    )
  for name, published in (
      ('time_attention', 'temp_self_attn'),
      ('point_attention', 'self_attn'),
  ):
    yield WeightName('attention', ours + name, torch=torch + published)
    yield WeightName(
        'linear', f'{ours}{name}/~/output', torch=f'{torch}{published}.out_proj'
    )
  for name, published in (
      ('frame_norm', 'norm1'),
      ('time_norm', 'norm_temp'),
      ('point_norm', 'norm2'),
      ('mlp_norm', 'norm3'),
  ):
    yield WeightName('norm', ours + name, torch=torch + published)
  yield from _list_mlp_names(
      ours + 'mover',
      f'{torch}caupdate_weight_normalizer.0',
      f'{torch}caupdate_weight_normalizer.2',
      f'{torch}caupdate_weight_regressor.0',
  )
  yield from _list_mlp_names(
      ours + 'embedder',
      *(f'{torch}update_pos_embed_head.layers.{j}' for j in range(2)),
  )
  yield from _list_mlp_names(
      ours + 'mlp', f'{torch}linear1', f'{torch}linear2'
  )


def _list_mlp_names(ours: str, *layers: str) -> Iterator[WeightName]:
  for i, torch in enumerate(layers):
    yield WeightName('linear', f'{ours}/~/linear_{i}', torch=torch)


def select_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays of a published PyTorch file that are weights.

  Names lose what parallel training adds to them; the heads are stored once more
  as parts of the decoder, and only the first copy counts.
  """
  aliases = tuple(
      f'transformer.decoder.{head}_embed.' for head in ('bbox', 'class')
  )
  names = {name: name.replace('module.', '') for name in arrays}
  return {
      names[name]: array
      for name, array in arrays.items()
      if not names[name].startswith(aliases)
      and not names[name].endswith('.num_batches_tracked')
  }


def count_operations(
    config: TaptrConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video.

  Queries are taken to be on the first frame.
  """
  channels, hidden = config.channels, config.hidden_channels
  samples = config.num_heads * config.num_levels * config.num_samples
  tokens = count_tokens(config.sizes)
  frame = count_resnet(config.backbone, *config.resolution)
  frame += 2.0 * channels * sum(
      height * width * inputs
      for (height, width), inputs in zip(
          config.sizes, config.backbone.output_channels, strict=True
      )
  )
  # Offsets, weights, values and output; four cells a sample; the perceptron.
  token = channels * (3 * samples + 2 * channels + 2 * hidden)
  token += samples * 4 * channels // config.num_heads
  frame += 2.0 * config.encoder_layers * tokens * token

  # The five matrices, two of which are applied by head; samples, read at four
  # cells, scored and summed; the step; two attentions; the perceptrons.
  point = channels * (2 * samples + 4 * channels)
  point += 6 * samples * channels
  point += 2 * samples * channels + channels**2
  point += 8 * channels**2 + 2 * channels * (config.window + num_queries)
  point += 2 * channels * hidden
  # Embeddings of two boxes, the update, the fusion and the heads.
  point += (3 * 2 + 1 + 3 + 4 + 2) * channels**2 + 7 * channels
  windows = plan_windows(max(num_frames, config.window), config.window)
  entries = len(windows.starts) * config.window * num_queries
  return (
      num_frames * frame
      + 2.0 * entries * (config.decoder_layers * point + 4 * channels**2)
      + 2.0 * num_queries * config.num_levels * channels**2
  )
