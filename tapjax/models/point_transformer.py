"""The point transformer: from where points begin to where they are, at once.

A small baseline. A residual network describes every frame by a grid of cells,
32 pixels wide, and one transformer sees all points on all frames of a window,

  token(t, n) = grid_t at p_n + embedding(p_n) + sines(index of the token)
  position(t, n) = p_n + head(transformer(tokens)(t, n))

where p_n is the first position of point n. Every frame is read there and
nowhere else, so a point that goes far cannot be followed. Nothing is said of
visibility.

It was trained on windows of eight frames and sets of eight points, which see
each other. So points that are asked on the same frame are tracked in sets of
that size, in the order of the queries; a set that is not full gets points in
the middle of the frame, as in training. A longer video is tracked window after
window, each of which begins where the one before ends, from the query's frame
to both ends of the video; a window that reaches beyond one sees the last frame
again and again. A shorter video is a window of its own length.

Weights: none are published; files of the training program load.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import math
from typing import Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Key

from tapjax.geometry import Resolution
from tapjax.models.base import Extent
from tapjax.models.base import get_query_frames
from tapjax.models.base import make_stages
from tapjax.models.base import NumFrames
from tapjax.models.base import NumQueries
from tapjax.models.base import Params
from tapjax.models.base import Precision
from tapjax.models.base import set_precision
from tapjax.models.base import Stages
from tapjax.models.base import TrackerFunctions
from tapjax.models.weight_names import list_torchvision_names
from tapjax.models.weight_names import WeightName
from tapjax.nn.attention import MultiHeadAttention
from tapjax.nn.embeddings import embed_sines
from tapjax.nn.normalization import BatchNorm
from tapjax.nn.normalization import LayerNorm
from tapjax.nn.resnet import count_convolution
from tapjax.nn.torchvision_resnet import count_resnet
from tapjax.nn.torchvision_resnet import ResNetConfig
from tapjax.nn.torchvision_resnet import TorchvisionResNet
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_in_frames
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class PointTransformerConfig:
  """Settings of a point transformer.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    backbone: 'basic' or 'bottleneck' blocks of the residual network.
    backbone_blocks: of each of its stages, each at half the size of the last.
    backbone_channels: of its stem.
    channels: of a token.
    num_blocks: of attention between tokens.
    num_heads: of each attention.
    window: frames that are tracked together, at least 2.
    num_points: that are tracked together.
    token_time: what tells tokens apart. 'published' is the number of the token,
      frame by frame, modulo the number of frames, which is no time at all where
      there are as many points; 'frame' is the frame, for training anew.
    dropout: share of values that training leaves out.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions.
  """

  resolution: Resolution = (256, 256)
  backbone: Literal['basic', 'bottleneck'] = 'basic'
  backbone_blocks: tuple[int, ...] = (2, 2, 2, 2)
  backbone_channels: int = 64
  channels: int = 256
  num_blocks: int = 4
  num_heads: int = 8
  window: int = 8
  num_points: int = 8
  token_time: Literal['published', 'frame'] = 'published'
  dropout: float = 0.1
  precision: Precision = 'highest'

  @property
  def resnet(self) -> ResNetConfig:
    """Settings of the residual network."""
    return ResNetConfig(
        self.backbone_blocks, self.backbone, 'batch', self.backbone_channels
    )


RESNET18 = PointTransformerConfig()
RESNET34 = dataclasses.replace(RESNET18, backbone_blocks=(3, 4, 6, 3))
RESNET50 = dataclasses.replace(RESNET34, backbone='bottleneck')

# Of the residual network's modules.
BACKBONE_PREFIX = 'point_transformer/~/backbone/~/'

_HIDDEN = 4
# Of token indices; the slowest wave takes about 600 of them.
_TEMPERATURE = 100.0
_SPREAD = hk.initializers.VarianceScaling(1 / 3, 'fan_in', 'uniform')
_CENTER = 0.5


class Prediction(NamedTuple):
  """Positions as shares of width and height, and who looked at whom.

  Attributes:
    positions_unit: (x, y) on every frame, the first included.
    attention: of each block, how much each token (second to last axis) takes of
      each other; their numbers are frame times points plus point.
    statistics: of batch norms behind this prediction.
  """

  positions_unit: Float[Array, 'b t n 2']
  attention: tuple[Float[Array, 'b k s s'], ...]
  statistics: PyTree


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
    self._hidden = _make_linear(channels, _HIDDEN * channels, 'hidden')
    self._output = _make_linear(_HIDDEN * channels, channels, 'output')

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
  """The parameters of a point transformer, and what they are for."""

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

  def encode(
      self, images: Float[Array, 'b h w 3'], *, is_training: bool = False
  ) -> Float[Array, 'b _ _ c']:
    """Returns the grid of each image, of colors in [0, 1]."""
    *_, coarsest = self._backbone(images, is_training=is_training)
    grid = self._projection(coarsest)
    return jax.nn.relu(self._projection_norm(grid, is_training=is_training))

  def embed(
      self,
      samples: Float[Array, 'b t n c'],
      points_unit: Float[Array, 'b n 2'],
  ) -> Float[Array, 'b t n c']:
    """Returns tokens of what the frames show at the points."""
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
    """Returns how far points are from where they begin, and attention."""
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

  def predict(
      self,
      samples: Float[Array, 'b t n c'],
      points_unit: Float[Array, 'b n 2'],
      keys: Key[Array, 'b'] | None = None,
  ) -> tuple[Float[Array, 'b t n 2'], tuple[Float[Array, 'b k s s'], ...]]:
    """Returns positions and attention; keys turn dropout on."""
    offsets, attention = self.transform(self.embed(samples, points_unit), keys)
    return points_unit[:, None] + offsets, attention

  def encode_for_training(
      self, images: Float[Array, 'b h w 3']
  ) -> Float[Array, 'b _ _ c']:
    """As `encode`, with norms over all of these images."""
    return self.encode(images, is_training=True)

  def touch(self) -> None:
    """Calls every part once, on the smallest of inputs."""
    grid = self.encode(jnp.zeros((1, 32, 32, 3), jnp.float32))
    self.predict(grid[:, :1, :1], jnp.zeros((1, 1, 2), jnp.float32))


def drop_values(
    keys: Key[Array, 'b'] | None,
    rate: float,
    index: int,
    values: Float[Array, 'b *n'],
) -> Float[Array, 'b *n']:
  """Leaves out a share of the values of each clip, if there are keys."""
  if keys is None or not rate:
    return values
  return jax.vmap(
      lambda key, own: hk.dropout(jax.random.fold_in(key, index), rate, own)
  )(keys, values)


def sample_points(
    grids: Float[Array, 't h w c'],
    frames: Int[Array, 'k'],
    points_unit: Float[Array, 'n 2'],
) -> Float[Array, 'k n c']:
  """Reads the grid of each frame at the points.

  Outside of a grid there are zeros.
  """
  height, width = grids.shape[1:3]
  # PARITY: shares of the frame, which lead from edge to edge, are taken as from
  # the center of the first cell to that of the last one
  # (test_point_transformer_parity).
  size_xy = jnp.asarray([[width, height]], points_unit.dtype)
  points_yx = jnp.flip(points_unit * (size_xy - 1), axis=-1) + 0.5
  padded = jnp.pad(grids, ((0, 0), (1, 1), (1, 1), (0, 0)))
  samples = read_in_frames(
      padded,
      frames.repeat(len(points_unit)),
      jnp.tile(points_yx + 1, (len(frames), 1)),
  )
  return samples.reshape(len(frames), len(points_unit), -1)


def assign_sets(
    frames: Int[Array, 'n'],
    num_points: int,
    num_queries: int | NumQueries,
) -> Int[Array, 'n m']:
  """Returns which queries make up each set; n stands for none.

  They are on the same frame and in their order. Behind the last set are empty
  ones. Queries from `num_queries` on are padding, and in no set.
  """
  capacity = len(frames)
  index = jnp.arange(capacity)
  frames = jnp.where(index < num_queries, frames, jnp.iinfo(jnp.int32).max)
  order = jnp.argsort(frames, stable=True)
  is_first = jnp.diff(frames[order], prepend=-1) != 0
  place = index - jax.lax.cummax(jnp.where(is_first, index, 0))
  slots = place % num_points
  numbers = jnp.cumsum(slots == 0) - 1
  empty = jnp.full((capacity, num_points), capacity)
  order = jnp.where(index < num_queries, order, capacity)
  return empty.at[numbers, slots].set(order)


def follow_points(
    predict: Callable[[Array, Array], Array],
    window: int,
    grids: Float[Array, 't h w c'],
    points_unit: Float[Array, 'n 2'],
    query_frame: Int[Array, ''],
    num_frames: int | NumFrames,
) -> Float[Array, 't n 2']:
  """Tracks a set of points from one frame to both ends of a video.

  Args:
    predict: from samples `[w, n, c]` and the positions on the first of these
      frames to positions `[w, n, 2]`.
    window: frames that are tracked together.
    grids: of every frame.
    points_unit: positions on the query's frame.
    query_frame: where to begin.
    num_frames: of the video; grids from there on are padding. It must fill a
      window if there are any.

  Returns:
    Positions on every frame. Where windows meet the earlier one counts.
  """
  num_points = len(points_unit)
  size = min(window, len(grids))
  advance = max(size - 1, 1)
  num_windows = max(1, -(-(len(grids) - 1) // advance))

  def track(step: Int[Array, '']) -> Float[Array, '_ n 2']:
    available = jnp.where(step > 0, num_frames - 1 - query_frame, query_frame)

    def track_window(
        points: Float[Array, 'n 2'], index: Int[Array, '']
    ) -> tuple[Float[Array, 'n 2'], Float[Array, 'w n 2']]:
      start = index * advance
      frames = query_frame + step * (start + jnp.arange(size))

      def look(points: Float[Array, 'n 2']) -> Float[Array, 'w n 2']:
        inside = jnp.clip(frames, 0, num_frames - 1)
        return predict(sample_points(grids, inside, points), points)

      def skip(points: Float[Array, 'n 2']) -> Float[Array, 'w n 2']:
        return jnp.repeat(points[None], size, axis=0)

      # The query's own frame belongs to what follows it.
      is_needed = (start < available) | ((index == 0) & (step > 0))
      positions = jax.lax.cond(is_needed, look, skip, points)
      return positions[-1], positions

    _, windows = jax.lax.scan(
        track_window, points_unit, jnp.arange(num_windows)
    )
    later = windows[1:, 1:].reshape(
        (num_windows - 1) * (size - 1), num_points, 2
    )
    return jnp.concatenate([windows[0], later])

  # One program for both ways.
  forward, back = jax.lax.map(track, jnp.asarray([1, -1]))
  offsets = jnp.arange(len(grids)) - query_frame
  distances = jnp.abs(offsets)
  return jnp.where(
      (offsets >= 0)[:, None, None], forward[distances], back[distances]
  )


@functools.cache
def make_functions(config: PointTransformerConfig) -> TrackerFunctions:
  """Returns a point transformer as pure functions; see `TrackerFunctions`.

  Equal configs get the same functions, and so share what was compiled.

  Features are the grids of every frame, query features the query points.
  """
  stages = _make_stages(config)

  def encode_video(
      params: Params,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Float[Array, 'b t _ _ c']:
    del num_frames  # Every frame is encoded by itself.
    grids = map_frames(
        lambda frame: stages.apply('encode', params, frame[None])[0],
        _get_colors(video).reshape(-1, *video.shape[2:]),
    )
    return grids.reshape(*video.shape[:2], *grids.shape[1:])

  def describe_queries(
      params: Params,
      features: Float[Array, 'b t h w c'],
      query_points: Float[Array, 'b n 3'],
  ) -> Float[Array, 'b n 3']:
    del params, features  # Every frame is read at the query, later.
    return query_points

  def initialize_tracks(
      params: Params,
      features: Float[Array, 'b t h w c'],
      query_features: Float[Array, 'b n 3'],
      query_points: Float[Array, 'b n 3'] | None,
      memory: None = None,
  ) -> TrackState:
    del params, query_points, memory  # Points begin where they were described.
    positions = jnp.flip(query_features[..., 1:], axis=-1)[:, :, None]
    return TrackState(
        jnp.repeat(positions, features.shape[1], axis=2), None, None
    )

  def refine_tracks(
      params: Params,
      features: Float[Array, 'b t h w c'],
      query_features: Float[Array, 'b n 3'],
      state: TrackState,
      memory: PyTree | None = None,
      extent: Extent | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
  ) -> tuple[TrackState, None]:
    del query_points  # The state begins at them.
    if memory is not None:
      raise ValueError(
          'memory must be None for a point transformer, which tracks to both '
          'ends of a video; got one - use a causal preset, such as '
          'causal_bootstapir'
      )

    def predict(
        samples: Float[Array, 'w n c'], points_unit: Float[Array, 'n 2']
    ) -> Float[Array, 'w n 2']:
      positions, _ = stages.apply(
          'predict', params, samples[None], points_unit[None]
      )
      return positions[0]

    def track(
        grids: Float[Array, 't h w c'],
        query_points: Float[Array, 'n 3'],
        positions: Float[Array, 'n t 2'],
    ) -> Float[Array, 'n t 2']:
      num_frames, num_queries = extent or (len(grids), len(query_points))
      frames = get_query_frames(query_points, num_frames)
      points_unit = pixels_to_shares(
          jnp.take_along_axis(positions, frames[:, None, None], axis=1)[:, 0],
          config.resolution,
      )

      def track_set(
          tracks: Float[Array, 'n t 2'], rows: Int[Array, 'm']
      ) -> tuple[Float[Array, 'n t 2'], None]:
        def follow(tracks: Float[Array, 'n t 2']) -> Float[Array, 'n t 2']:
          points = points_unit.at[rows].get(mode='fill', fill_value=_CENTER)
          found = follow_points(
              predict,
              config.window,
              grids,
              points,
              frames[rows[0]],
              num_frames,
          )
          return tracks.at[rows].set(found.swapaxes(0, 1), mode='drop')

        is_empty = rows[0] == len(frames)
        return (
            jax.lax.cond(is_empty, lambda tracks: tracks, follow, tracks),
            None,
        )

      tracks, _ = jax.lax.scan(
          track_set,
          jnp.zeros_like(positions),
          assign_sets(frames, config.num_points, num_queries),
      )
      return shares_to_pixels(tracks, config.resolution)

    positions = map_batch(track, features, query_features, state.positions)
    return TrackState(positions[None], None, None), None

  def finalize_tracks(states: TrackState) -> Tracks:
    positions = states.positions[-1]
    return Tracks(positions, jnp.ones(positions.shape[:-1], bool), None, None)

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
      shortest_padded=config.window,
  )
  return set_precision(functions, config.precision)


def predict_clips(
    config: PointTransformerConfig,
    params: Params,
    video: Float[Array, 'b t h w 3'],
    points_unit: Float[Array, 'b n 2'],
    keys: Key[Array, 'b'] | None = None,
    axis: str | None = None,
) -> Prediction:
  """Returns the positions of points of the first frame, in one window.

  Args:
    config: of the network.
    params: its parameters.
    video: of any size, in [-1, 1].
    points_unit: (x, y) on the first frame as shares of width and height.
    keys: of each clip, for training: values are left out, and norms are those
      of the batch.
    axis: of the mapped function whose shards are that batch together.
  """
  stages = _make_stages(config, axis)
  method = 'encode' if keys is None else 'encode_for_training'
  batch, num_frames = video.shape[:2]
  with jax.default_matmul_precision(config.precision):
    grids, statistics = stages.apply_with_statistics(
        method, params, None, _get_colors(video).reshape(-1, *video.shape[2:])
    )
    grids = grids.reshape(batch, num_frames, *grids.shape[1:])
    samples = jax.vmap(
        lambda grid, points: sample_points(grid, jnp.arange(num_frames), points)
    )(grids, points_unit)
    positions, attention = stages.apply(
        'predict', params, samples, points_unit, keys
    )
  return Prediction(positions, attention, statistics)


def pixels_to_shares(
    positions: Float[Array, '*n 2'], resolution: Resolution
) -> Float[Array, '*n 2']:
  """Returns raster (x, y) as shares of the width and the height."""
  height, width = resolution
  scale = jnp.asarray([width, height], positions.dtype)
  return positions / scale.reshape((1,) * (positions.ndim - 1) + (2,))


def shares_to_pixels(
    shares: Float[Array, '*n 2'], resolution: Resolution
) -> Float[Array, '*n 2']:
  """Undoes `pixels_to_shares`."""
  height, width = resolution
  scale = jnp.asarray([width, height], shares.dtype)
  return shares * scale.reshape((1,) * (shares.ndim - 1) + (2,))


def _get_colors(video: Float[Array, '*b 3']) -> Float[Array, '*b 3']:
  """Returns colors in [0, 1], which is all that the network wants of them."""
  return (video + 1) / 2


@functools.cache
def _make_stages(
    config: PointTransformerConfig, axis: str | None = None
) -> Stages:
  _check_config(config)
  return make_stages(
      lambda: PointTransformer(config, axis=axis),
      ('encode', 'encode_for_training', 'predict'),
      lambda module: module.touch(),
  )


def _make_bias_spread(fan_in: int) -> hk.initializers.Initializer:
  return hk.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)


def _make_linear(inputs: int, outputs: int, name: str) -> hk.Linear:
  return hk.Linear(
      outputs, w_init=_SPREAD, b_init=_make_bias_spread(inputs), name=name
  )


def _check_config(config: PointTransformerConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  lowest = {
      'backbone_channels': 1,
      'channels': 2,
      'num_blocks': 1,
      'num_heads': 1,
      'window': 2,
      'num_points': 1,
  }
  for name, low in lowest.items():
    if getattr(config, name) < low:
      raise ValueError(
          f'{name} must be at least {low}; got {getattr(config, name)}'
      )
  if not config.backbone_blocks or min(config.backbone_blocks) < 1:
    raise ValueError(
        'backbone_blocks must have an entry of at least 1 for each stage; got '
        f'{config.backbone_blocks}'
    )
  if config.channels % 2 or config.channels % config.num_heads:
    raise ValueError(
        'channels must be even and a multiple of num_heads; got '
        f'{config.channels} and {config.num_heads}'
    )
  if not 0 <= config.dropout < 1:
    raise ValueError(
        f'dropout must be at least 0 and less than 1; got {config.dropout}'
    )


def list_weight_names(config: PointTransformerConfig) -> Iterator[WeightName]:
  """Lists every module with its name in files of the training program."""
  ours = 'point_transformer/~/'
  torch = 'feature_extractor.backbone.'
  stages = range(4, 4 + len(config.backbone_blocks))
  yield from list_torchvision_names(
      BACKBONE_PREFIX,
      config.resnet,
      (f'{torch}0', f'{torch}1'),
      [f'{torch}{stage}.' for stage in stages],
  )
  torch = 'feature_extractor.projection.'
  yield WeightName('conv2d_bias', f'{ours}projection', torch=f'{torch}0')
  yield WeightName('running_norm', f'{ours}projection_norm', torch=f'{torch}1')
  yield WeightName('linear', f'{ours}embedding', torch='point_embed')
  for i in range(config.num_blocks):
    block, torch = f'{ours}block_{i}', f'transformer_layers.{i}.'
    for j in range(2):
      yield WeightName(
          'norm', f'{block}/~/norm_{j}', torch=f'{torch}norm{j + 1}'
      )
    for name, published in (
        ('attention', 'attn.qkv'),
        ('attention/~/output', 'attn.proj'),
        ('hidden', 'mlp.0'),
        ('output', 'mlp.3'),
    ):
      yield WeightName('linear', f'{block}/~/{name}', torch=torch + published)
  yield WeightName('linear', f'{ours}hidden', torch='output_head.0')
  yield WeightName('linear', f'{ours}output', torch='output_head.3')


def count_operations(
    config: PointTransformerConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video.

  Queries are taken to be on the first frame.
  """
  height, width = config.resolution
  channels = config.channels
  stride = 2 ** (1 + len(config.backbone_blocks))
  cells = float(math.ceil(height / stride) * math.ceil(width / stride))
  frame = count_resnet(config.resnet, height, width)
  frame += count_convolution(
      cells, 1, config.resnet.output_channels[-1], channels
  )

  size = min(config.window, num_frames)
  tokens = size * config.num_points
  token = config.num_blocks * (4 + 2 * _HIDDEN) * channels**2
  token += config.num_blocks * 2 * channels * tokens
  token += channels**2 // 2 + channels
  num_windows = max(1, -(-(num_frames - 1) // max(size - 1, 1)))
  num_sets = -(-num_queries // config.num_points)
  return num_frames * frame + 2.0 * num_sets * num_windows * tokens * token
