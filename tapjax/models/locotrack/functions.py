"""LocoTrack: tracks refined by local all-pair correspondence.

Cho et al., "Local All-Pair Correspondence for Point Tracking", ECCV 2024, arXiv
2407.15420. Frames have features at three strides. A query is the features q_ij
in a small square around its point, of each stride, and q their center. On every
frame t, alone, with two of the strides:

  cost_t = (q . coarse_t, q . middle_t)
  p_t = soft_argmax(softmax(temperature * conv(cost_t)))
  (o_t, e_t) = linear(mean, max and min of cost_t)

and then, `num_iterations` times and for all frames of a track together,

  K_t[a, b, i, j] = <features_t at p_t + (a, b), q_ij>, at each stride
  (dp, do, de) = transformer(o, e, encode(K), steps of p)
  p += dp, o += do, e += de

where `encode` sees K once as an image over (a, b) and once as one over (i, j).
With EfficientNets in the place of the residual network, and more or less wide,
it is LocoTrack-EfficientNet.

Weights: github.com/cvlab-kaist/locotrack, whose PyTorch and JAX programs each
have their own, and, with EfficientNets,
github.com/zyp-up/locotrack-pytorch-efficientnet; Apache 2.0.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import itertools
import math
import operator
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from tapjax import parallel
from tapjax.geometry import list_growing_resolutions
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.models.base import Extent
from tapjax.models.base import make_stages
from tapjax.models.base import NumFrames
from tapjax.models.base import Params
from tapjax.models.base import pass_through_queries
from tapjax.models.base import Precision
from tapjax.models.base import set_precision
from tapjax.models.base import TrackerFunctions
from tapjax.models.weight_names import Kind
from tapjax.models.weight_names import list_resnet_names
from tapjax.models.weight_names import make_haiku_name
from tapjax.models.weight_names import WeightName
from tapjax.nn.convolution import convolve
from tapjax.nn.convolution import list_windows
from tapjax.nn.convolution import make_row_weights
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.efficientnet import count_trunk
from tapjax.nn.efficientnet import EfficientNet
from tapjax.nn.efficientnet import list_blocks
from tapjax.nn.efficientnet import Trunk
from tapjax.nn.efficientnet import TRUNKS
from tapjax.nn.normalization import GroupNorm
from tapjax.nn.normalization import normalize_vectors
from tapjax.nn.resnet import count_convolution
from tapjax.nn.resnet import count_resnet
from tapjax.nn.resnet import ResNet
from tapjax.nn.temporal_transformer import Gelu
from tapjax.nn.temporal_transformer import TemporalTransformer
from tapjax.ops.correlation import correlate_neighborhoods
from tapjax.ops.heatmap import find_largest
from tapjax.ops.heatmap import soft_argmax
from tapjax.ops.loops import add_all
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_neighborhoods_at_time
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class LocoTrackConfig:
  """Settings of a LocoTrack network.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    initial_resolution: the refinement counts in its pixels; by default tracks
      are also initialized there.
    refinement_resolutions: each a multiple of 8; None derives them from
      `resolution`, in steps of at most about two.
    refined_levels: with 'last', tracks are initialized on the first of these
      resolutions and refined on the last; with 'every', they are initialized at
      `initial_resolution`, refined on one after the other, and the last
      iterations averaged.
    encoder: of frames; the EfficientNet 'b0_projected' has more channels.
    temperature: of the softmax over a frame.
    radius: of the squares that are correlated, in cells of each grid.
    encoder_layers: (size, stride, channels) of each convolution that encodes a
      correlation.
    num_iterations: of refinement.
    transformer_layers: of the refinement network.
    transformer_channels: of the refinement network.
    transformer_heads: of the refinement network, half of them per direction.
    inputs: of the refinement network: the logits and the correlation before or
      behind the motion, or behind it with the features of the track.
    gelu: the exact one, or its tanh approximation as in the JAX program.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (256, 256)
  initial_resolution: Resolution = (256, 256)
  refinement_resolutions: tuple[Resolution, ...] | None = None
  refined_levels: Literal['last', 'every'] = 'last'
  encoder: Literal[
      'resnet', 'b0', 'b0_projected', 'b0_deep', 'b2', 'b5', 'b256'
  ] = 'resnet'
  temperature: float = 20.0
  radius: int = 3
  encoder_layers: tuple[tuple[int, int, int], ...] = ((5, 4, 64), (2, 2, 128))
  num_iterations: int = 4
  transformer_layers: int = 3
  transformer_channels: int = 256
  transformer_heads: int = 4
  inputs: Literal[
      'motion_last', 'motion_first', 'motion_first_features_last'
  ] = 'motion_last'
  gelu: Gelu = 'exact'
  precision: Precision = 'highest'


SMALL = LocoTrackConfig()
BASE = dataclasses.replace(
    SMALL,
    encoder_layers=((3, 2, 64), (3, 2, 128), (2, 2, 128)),
    transformer_channels=384,
    transformer_heads=6,
)
EFFICIENTNET_B0 = dataclasses.replace(
    SMALL, encoder='b0', inputs='motion_first'
)
EFFICIENTNET_B2 = dataclasses.replace(EFFICIENTNET_B0, encoder='b2')
EFFICIENTNET_B5 = dataclasses.replace(
    EFFICIENTNET_B0,
    encoder='b5',
    resolution=(384, 512),
    initial_resolution=(384, 512),
)
EFFICIENTNET_B0_934 = dataclasses.replace(
    EFFICIENTNET_B0, inputs='motion_first_features_last'
)
EFFICIENTNET_B0_TINY = dataclasses.replace(
    EFFICIENTNET_B0_934,
    encoder_layers=((5, 4, 32), (2, 2, 64)),
    transformer_channels=128,
    transformer_heads=2,
)
EFFICIENTNET_B0_PROJ = dataclasses.replace(SMALL, encoder='b0_projected')
EFFICIENTNET_B0_DEEP = dataclasses.replace(EFFICIENTNET_B0, encoder='b0_deep')
EFFICIENTNET_256 = dataclasses.replace(EFFICIENTNET_B0, encoder='b256')

_MULTIPLE = 8
_RESNET_CHANNELS = (64, 128, 256, 256)
_RESNET_STRIDES = (1, 2, 2, 1)
_PROJECTED_CHANNELS = (64, 128, 256)
_GROUP_SIZE = 16
_PEAK_RADIUS = 5.0
# Position, occlusion and uncertainty, as the refinement network changes them.
_STATE_OUTPUTS = 4
_FREQUENCIES = 10
# Of steps forward and back in x and y: themselves, their sines and cosines.
_MOTION_INPUTS = 4 * (1 + 2 * _FREQUENCIES)
_KERNEL = 3


class FeatureGrids(NamedTuple):
  """Features at one resolution; strides are 2, 4 and 8, or up to 4, 8, 16."""

  fine: Float[Array, '*bt _ _ _']
  middle: Float[Array, '*bt _ _ _']
  coarse: Float[Array, '*bt _ _ _']


class Supports(NamedTuple):
  """Features in the squares around the query points, at one resolution."""

  fine: Float[Array, 'b n p p _']
  middle: Float[Array, 'b n p p _']
  coarse: Float[Array, 'b n p p _']


# One of each per distinct resolution, in the order of `list_resolutions`.
Features = tuple[FeatureGrids, ...]
QueryFeatures = tuple[Supports, ...]


# A kernel, or for each row of outputs what correlations are multiplied by where
# the image is their last pair of axes and where it is the other.
KernelForms = tuple[tuple[Array, ...], ...]


class Refinement(NamedTuple):
  """What one iteration of refinement passes to the next.

  Positions are (x, y) pixels of the initial resolution. Features are those of
  the track, for networks that read them.
  """

  positions: Float[Array, 'n t 2']
  occlusion_logits: Float[Array, 'n t']
  uncertainty_logits: Float[Array, 'n t']
  features: Float[Array, 'n t c'] | None


class Projection(hk.Module):
  """An EfficientNet whose taps are widened."""

  def __init__(self, name: str, axis: str | None):
    super().__init__(name=name)
    self._trunk = EfficientNet(TRUNKS['b0'], name='trunk', axis=axis)
    self._projections = [
        hk.Conv2D(width, 1, name=f'project_{i}')
        for i, width in enumerate(_PROJECTED_CHANNELS)
    ]

  def __call__(
      self, images: Float[Array, 'b h w 3'], *, is_training: bool = False
  ) -> list[Float[Array, 'b _ _ _']]:
    taps = self._trunk(images, is_training=is_training)
    return [
        project(tap)
        for project, tap in zip(self._projections, taps, strict=True)
    ]


class HeatmapConv(hk.Module):
  """A 3x3 convolution of two cost volumes to one heatmap.

  As a sum of shifted products; at such widths a CPU takes several times as long
  for a convolution.
  """

  def __call__(
      self, costs: tuple[Float[Array, 'n h w'], Float[Array, 'n h w']]
  ) -> Float[Array, 'n h w']:
    shape = (_KERNEL, _KERNEL, len(costs), 1)
    fan_in = _KERNEL**2 * len(costs)
    kernel = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(fan_in**-0.5)
    )
    bias = hk.get_parameter('b', (1,), init=jnp.zeros)
    height, width = costs[0].shape[1:]
    padded = [jnp.pad(cost, ((0, 0), (1, 1), (1, 1))) for cost in costs]
    heatmap = add_all(
        cost[:, row : row + height, column : column + width]
        * kernel[row, column, i][:, None, None]
        for i, cost in enumerate(padded)
        for row in range(_KERNEL)
        for column in range(_KERNEL)
    )
    return heatmap + bias[:, None, None]


class CorrelationConv(hk.Module):
  """Convolves a 4-D correlation over either pair of axes, by one kernel.

  The other pair are the channels.
  """

  def __init__(
      self, side: int, channels: int, size: int, stride: int, name: str
  ):
    super().__init__(name=name)
    self._side = side
    self._channels = channels
    self._size = size
    self._stride = stride
    # A CPU has all of its cores work on a product, and one on a convolution of
    # small images. Where windows are nearly as wide as the image, not much of
    # the products is with zeros.
    self._by_rows = jax.default_backend() == 'cpu' and 2 * size > side

  def prepare(self) -> KernelForms:
    """Returns the kernel as `__call__` takes it, for any number of calls."""
    shape = (self._size, self._size, self._side**2, self._channels)
    fan_in = math.prod(shape[:-1])
    kernel = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(fan_in**-0.5)
    )
    if not self._by_rows:
      return ((kernel,),)
    rows = make_row_weights(kernel, self._stride, self._side)
    width = rows[0].shape[-1]
    return tuple(
        (weights.swapaxes(0, 1).reshape(-1, width), weights.reshape(-1, width))
        for weights in rows
    )

  def __call__(
      self, correlation: Float[Array, 'n q p p'], prepared: KernelForms
  ) -> Float[Array, 'n2 r r o']:
    bias = hk.get_parameter('b', (self._channels,), init=jnp.zeros)
    side, num = self._side, correlation.shape[0]
    cells = correlation.reshape(num, side**2, side**2)
    if self._by_rows:
      x = self._multiply_rows(cells, prepared)
    else:
      ((kernel,),) = prepared
      images = jnp.concatenate([cells.swapaxes(1, 2), cells])
      images = images.reshape(2 * num, side, side, -1)
      x = convolve(images, kernel, self._stride)
    return x + bias[None, None, None]

  def _multiply_rows(
      self, cells: Float[Array, 'n q q'], prepared: KernelForms
  ) -> Float[Array, 'n2 r r o']:
    """Computes each row of outputs as one product."""
    num, side = cells.shape[0], self._side
    rows = []
    for window, (last_axis, middle_axis) in zip(
        list_windows(self._size, self._stride, side), prepared, strict=True
    ):
      seen = slice(window.start * side, window.stop * side)
      products = [
          cells[:, :, seen].reshape(num, -1) @ last_axis,
          cells[:, seen].reshape(num, -1) @ middle_axis,
      ]
      row = jnp.concatenate(products)
      rows.append(row.reshape(2 * num, -1, self._channels))
    return jnp.stack(rows, axis=1)


class CorrelationEncoder(hk.Module):
  """Describes a 4-D correlation by convolutions over either pair of axes."""

  def __init__(
      self, side: int, layers: tuple[tuple[int, int, int], ...], name: str
  ):
    super().__init__(name=name)
    (size, stride, channels), *rest = layers
    self._first = CorrelationConv(side, channels, size, stride, name='conv_0')
    self._convolutions = [
        hk.Conv2D(channels, size, stride, name=f'conv_{i}')
        for i, (size, stride, channels) in enumerate(rest, 1)
    ]
    self._norms = [
        GroupNorm(channels // _GROUP_SIZE, name=f'group_norm_{i}')
        for i, (_, _, channels) in enumerate(layers)
    ]

  def prepare(self) -> KernelForms:
    """Returns the first kernel as `__call__` takes it."""
    return self._first.prepare()

  def __call__(
      self, correlation: Float[Array, 'n q p p'], prepared: KernelForms
  ) -> Float[Array, 'n e']:
    x = self._first(correlation, prepared)
    x = jax.nn.relu(self._norms[0](x))
    for convolution, norm in zip(
        self._convolutions, self._norms[1:], strict=True
    ):
      x = jax.nn.relu(norm(convolution(x)))
    # The image over the last pair of axes, then that over the other.
    first, second = jnp.split(jnp.mean(x, axis=(1, 2)), 2)
    return jnp.concatenate([first, second], axis=-1)


class LocoTrack(hk.Module):
  """The parameters of LocoTrack and what it does to a frame or to a track."""

  def __init__(
      self,
      config: LocoTrackConfig,
      name: str = 'locotrack',
      *,
      axis: str | None = None,
  ):
    """Makes the parameters.

    Args:
      config: settings of the network.
      name: of the module.
      axis: of the mapped function whose shards norms see together in training.
    """
    super().__init__(name=name)
    self._config = config
    self._encoder = _make_encoder(config, axis)
    self._heatmap = HeatmapConv(name='heatmap')
    self._logits = hk.Linear(2, name='logits')
    self._correlation_encoders = [
        CorrelationEncoder(
            2 * config.radius + 1,
            config.encoder_layers,
            name=f'encode_{grid}',
        )
        for grid in FeatureGrids._fields
    ]
    outputs = _STATE_OUTPUTS + count_track_features(config)
    self._transformer = TemporalTransformer(
        config.transformer_layers,
        config.transformer_channels,
        config.transformer_heads,
        config.gelu,
        output_channels=outputs,
        used_outputs=outputs if _reads_features(config) else _STATE_OUTPUTS,
        name='transformer',
    )

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> FeatureGrids:
    """Returns the features of a frame that has the size of a level."""
    outputs = self._encoder(frame[None])
    if self._config.encoder == 'resnet':
      outputs = [outputs[1], outputs[2], outputs[4]]
    return FeatureGrids(*(normalize_vectors(grid)[0] for grid in outputs))

  def encode_in_training(
      self, frames: Float[Array, 'bt h w 3']
  ) -> FeatureGrids:
    """Returns the features of frames whose batch norms see all of them."""
    outputs = self._encoder(frames, is_training=True)
    return FeatureGrids(*(normalize_vectors(grid) for grid in outputs))

  def estimate_frame(
      self,
      middle: Float[Array, 'h4 w4 c4'],
      coarse: Float[Array, 'h8 w8 c8'],
      middle_vectors: Float[Array, 'n c4'],
      coarse_vectors: Float[Array, 'n c8'],
  ) -> FrameEstimate:
    """Guesses where one frame shows each query, in cells of the middle grid."""
    cost = _correlate_frame(middle, middle_vectors)
    coarse_cost = _correlate_frame(coarse, coarse_vectors)
    coarse_cost = resize_video(coarse_cost[..., None], cost.shape[1:])[..., 0]
    costs = (coarse_cost, cost)
    heatmap = self._heatmap(costs) * self._config.temperature
    positions = soft_argmax(heatmap, _PEAK_RADIUS)
    summary = jnp.stack(
        [
            reduce(cost)
            for reduce in (_find_mean, find_largest, _find_smallest)
            for cost in costs
        ],
        axis=-1,
    )
    return FrameEstimate(positions, self._logits(summary))

  def prepare(self) -> tuple[KernelForms, ...]:
    """Returns kernels as `embed` takes them, which has many frames to see."""
    return tuple(encoder.prepare() for encoder in self._correlation_encoders)

  def embed(
      self,
      prepared: tuple[KernelForms, ...],
      fine: Float[Array, 'n q p p'],
      middle: Float[Array, 'n q p p'],
      coarse: Float[Array, 'n q p p'],
  ) -> Float[Array, 'n e']:
    """Describes the correlations of points with one frame."""
    embedded = [
        encode(correlation, kernel)
        for encode, correlation, kernel in zip(
            self._correlation_encoders,
            (fine, middle, coarse),
            prepared,
            strict=True,
        )
    ]
    return jnp.concatenate([embedded[1], embedded[2], embedded[0]], axis=-1)

  def mix(
      self, inputs: Float[Array, 'n t c'], num_frames: NumFrames | None = None
  ) -> Float[Array, 'n t o']:
    """Returns how to change the state of each track."""
    return self._transformer(inputs, num_frames)


@functools.cache
def make_functions(config: LocoTrackConfig) -> TrackerFunctions:
  """Returns LocoTrack as pure functions; see `TrackerFunctions`.

  Equal configs get the same functions, and so share what was compiled.

  Features are a tuple of `FeatureGrids`, query features one of `Supports`.
  """
  _check_config(config)
  stages = make_stages(
      lambda: LocoTrack(config),
      ('encode_frame', 'estimate_frame', 'prepare', 'embed', 'mix'),
      lambda module: _touch(module, config),
  )
  training_stages = make_stages(
      lambda: LocoTrack(config, axis=parallel.AXIS),
      ('encode_in_training',),
      lambda module: _touch(module, config),
  )
  resolutions = list_resolutions(config)
  initial = config.initial_resolution
  first = resolutions.index(_get_first_resolution(config))

  def resize_frames(
      video: Float[Array, 'b t h w 3'], resolution: Resolution
  ) -> Float[Array, 'bt _ _ 3']:
    # PARITY: only the JAX program antialiases (test_locotrack_parity).
    frames = resize_video(
        video, resolution, antialias=config.refined_levels == 'every'
    )
    return frames.reshape(-1, *resolution, 3)

  def encode_video(
      params: Params,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Features:
    del num_frames  # Every frame is encoded by itself.

    def encode_at(resolution: Resolution) -> FeatureGrids:
      grids = map_frames(
          lambda frame: stages.apply('encode_frame', params, frame),
          resize_frames(video, resolution),
      )
      return _split_frames(grids, video)

    return tuple(encode_at(resolution) for resolution in resolutions)

  def encode_in_training(
      params: Params, video: Float[Array, 'b t h w 3'], key: Array
  ) -> tuple[Features, PyTree]:
    features = []
    # Each resolution moves the statistics on, as in consecutive calls.
    for i, resolution in enumerate(resolutions):
      grids, statistics = training_stages.apply_with_statistics(
          'encode_in_training',
          params,
          jax.random.fold_in(key, i),
          resize_frames(video, resolution),
      )
      params = params._replace(statistics=statistics)
      features.append(_split_frames(grids, video))
    return tuple(features), params.statistics

  def describe_queries(
      params: Params, features: Features, query_points: Float[Array, 'b n 3']
  ) -> QueryFeatures:
    del params  # Interpolation has none.

    def describe(
        grid: Float[Array, 'b t h w c'],
    ) -> Float[Array, 'b n p p c']:
      points = rescale_query_points(
          query_points, config.resolution, grid.shape[2:4]
      )
      return map_batch(
          lambda grid, points: read_neighborhoods_at_time(
              grid, points, config.radius
          ),
          grid,
          points,
      )

    return tuple(
        Supports(*(describe(grid) for grid in grids)) for grids in features
    )

  def initialize_tracks(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: None = None,
  ) -> TrackState:
    del memory  # It does not stream.

    def initialize(grids: FeatureGrids, supports: Supports) -> TrackState:
      vectors = get_centers(supports)
      estimates = map_frames(
          lambda middle, coarse: stages.apply(
              'estimate_frame',
              params,
              middle,
              coarse,
              vectors.middle,
              vectors.coarse,
          ),
          grids.middle,
          grids.coarse,
      )
      positions = rescale_positions(
          estimates.positions, grids.middle.shape[1:3], config.resolution
      )
      occlusion, uncertainty = jnp.moveaxis(estimates.logits, -1, 0)
      return TrackState(positions.swapaxes(0, 1), occlusion.T, uncertainty.T)

    state = map_batch(initialize, features[first], query_features[first])
    if query_points is None:
      return state
    return pass_through_queries(state, query_points)

  def refine_tracks(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
      memory: None = None,
      extent: Extent | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
  ) -> tuple[TrackState, None]:
    del query_points  # The state begins at them.
    num_frames = None if extent is None else extent.num_frames
    if memory is not None:
      raise ValueError(
          'memory must be None for a tracker that sees the future; got one - '
          'use a causal preset, such as causal_bootstapir'
      )

    def refine(
        features: Features, query_features: QueryFeatures, state: TrackState
    ) -> TrackState:
      positions = rescale_positions(state.positions, config.resolution, initial)
      occlusion, uncertainty = state.occlusion_logits, state.uncertainty_logits
      assert occlusion is not None, 'LocoTrack estimates both logits'
      assert uncertainty is not None, 'LocoTrack estimates both logits'
      states = []
      for resolution, frames in list_refined_levels(config):
        level = resolutions.index(frames)
        # PARITY: each level starts from the first guess of the logits, but from
        # the last level's positions (test_locotrack_parity, two levels).
        start = Refinement(
            positions,
            occlusion,
            uncertainty,
            _repeat_over_time(
                query_features[level], config, positions.shape[1]
            ),
        )
        level_states = _refine_at_level(
            lambda method, *arguments: stages.apply(method, params, *arguments),
            features[level],
            query_features[level],
            start,
            config,
            resolution,
            num_frames,
        )
        positions = level_states.positions[-1]
        states.append(level_states)
      states = jax.tree.map(lambda *parts: jnp.concatenate(parts), *states)
      positions = rescale_positions(
          states.positions, initial, config.resolution
      )
      return states._replace(positions=positions)

    states = map_batch(refine, features, query_features, state)
    return jax.tree.map(lambda array: array.swapaxes(0, 1), states), None

  def finalize_tracks(states: TrackState) -> Tracks:
    last = jax.tree.map(
        lambda array: jnp.mean(
            array[config.num_iterations - 1 :: config.num_iterations], axis=0
        ),
        states,
    )
    shown = jax.nn.sigmoid(-last.occlusion_logits) * jax.nn.sigmoid(
        -last.uncertainty_logits
    )
    return Tracks(
        last.positions,
        shown >= 0.5,
        last.occlusion_logits,
        last.uncertainty_logits,
    )

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
      encode_in_training=(
          None if config.encoder == 'resnet' else encode_in_training
      ),
  )
  return set_precision(functions, config.precision)


def _split_frames(
    grids: FeatureGrids, video: Float[Array, 'b t h w 3']
) -> FeatureGrids:
  """Gives the features of all frames the batch and the time of the video."""
  return jax.tree.map(
      lambda grid: grid.reshape(*video.shape[:2], *grid.shape[1:]), grids
  )


class Level(NamedTuple):
  """A resolution of the refinement, and that of the frames it looks at."""

  resolution: Resolution
  frames: Resolution


def list_resolutions(config: LocoTrackConfig) -> tuple[Resolution, ...]:
  """Returns the distinct resolutions at which features are computed."""
  refined = (level.frames for level in list_refined_levels(config))
  return tuple(dict.fromkeys((_get_first_resolution(config), *refined)))


def list_refined_levels(config: LocoTrackConfig) -> tuple[Level, ...]:
  """Returns where tracks are refined, in order."""
  levels = _list_levels(config)
  if config.refined_levels == 'every':
    return tuple(Level(level, level) for level in levels)
  frames = levels[0]
  for before, level in itertools.pairwise(levels):
    # PARITY: behind a level of the video's own size, the PyTorch program takes
    # the video as it is for the next one
    # (test_a_level_behind_one_of_the_size_of_the_video).
    if level != before:
      frames = before if before == config.resolution else level
  return (Level(levels[-1], frames),)


def _get_first_resolution(config: LocoTrackConfig) -> Resolution:
  """Returns the resolution at which tracks are initialized."""
  if config.refined_levels == 'every':
    return config.initial_resolution
  return _list_levels(config)[0]


def _list_levels(config: LocoTrackConfig) -> tuple[Resolution, ...]:
  if config.refinement_resolutions is not None:
    return config.refinement_resolutions
  return list_growing_resolutions(
      config.initial_resolution, config.resolution, _MULTIPLE
  )


def _check_config(config: LocoTrackConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  for name in (
      'num_iterations',
      'transformer_layers',
      'transformer_channels',
      'radius',
  ):
    if getattr(config, name) < 1:
      raise ValueError(
          f'{name} must be at least 1; got {getattr(config, name)}'
      )
  heads = config.transformer_heads
  if heads < 2 or heads % 2 or config.transformer_channels % heads:
    raise ValueError(
        'transformer_heads must be even and divide transformer_channels; got '
        f'{heads} and {config.transformer_channels}'
    )
  if not config.encoder_layers or any(
      min(size, stride, channels) < 1 or channels % _GROUP_SIZE
      for size, stride, channels in config.encoder_layers
  ):
    raise ValueError(
        'encoder_layers must be (size, stride, channels), the channels '
        f'multiples of {_GROUP_SIZE}; got {config.encoder_layers}'
    )
  if not math.isfinite(config.temperature):
    raise ValueError(f'temperature must be finite; got {config.temperature}')
  if not _list_levels(config):
    raise ValueError('refinement_resolutions must have an entry; got none')
  smallest = 4 * _MULTIPLE
  for resolution in (config.initial_resolution, *_list_levels(config)):
    if any(side % _MULTIPLE or side < smallest for side in resolution):
      raise ValueError(
          'initial_resolution and refinement_resolutions must be multiples of '
          f'{_MULTIPLE}, of at least {smallest}; got {resolution} (where not '
          f'given, they follow from resolution {config.resolution}) - choose '
          'a larger one'
      )


def _make_encoder(
    config: LocoTrackConfig, axis: str | None
) -> Callable[..., list[Array]]:
  if config.encoder == 'resnet':
    return ResNet(
        _RESNET_CHANNELS,
        _RESNET_STRIDES,
        blocks_per_group=2,
        stem_channels=_RESNET_CHANNELS[0],
        name='resnet',
    )
  if config.encoder == 'b0_projected':
    return Projection(name='projection', axis=axis)
  return EfficientNet(TRUNKS[config.encoder], name='efficientnet', axis=axis)


def count_channels(config: LocoTrackConfig) -> tuple[int, int, int]:
  """Returns the number of channels of the fine, middle and coarse grid."""
  if config.encoder == 'resnet':
    return _RESNET_CHANNELS[0], _RESNET_CHANNELS[1], _RESNET_CHANNELS[3]
  if config.encoder == 'b0_projected':
    return _PROJECTED_CHANNELS
  trunk = TRUNKS[config.encoder]
  blocks = list(list_blocks(trunk))
  fine, middle, coarse = (blocks[tap].channels for tap in trunk.taps)
  return fine, middle, coarse


def count_track_features(config: LocoTrackConfig) -> int:
  """Returns how many features of a track the refinement changes.

  Most networks change them and never read them.
  """
  fine, middle, coarse = count_channels(config)
  return middle + coarse + (fine if _reads_features(config) else 0)


def _reads_features(config: LocoTrackConfig) -> bool:
  return config.inputs == 'motion_first_features_last'


def get_centers(supports: Supports) -> FeatureGrids:
  """Returns the features at the query points themselves."""
  return FeatureGrids(
      *(
          grid[..., grid.shape[-3] // 2, grid.shape[-2] // 2, :]
          for grid in supports
      )
  )


def _repeat_over_time(
    supports: Supports, config: LocoTrackConfig, num_frames: int
) -> Float[Array, 'n t c'] | None:
  """Returns the features that a track starts with, the same on every frame."""
  if not _reads_features(config):
    return None
  fine, middle, coarse = get_centers(supports)
  features = jnp.concatenate([middle, coarse, fine], axis=-1)
  return jnp.repeat(features[:, None], num_frames, axis=1)


def _correlate_frame(
    grid: Float[Array, 'h w c'], vectors: Float[Array, 'n c']
) -> Float[Array, 'n h w']:
  height, width, channels = grid.shape
  cost = vectors @ grid.reshape(-1, channels).T
  return cost.reshape(-1, height, width)


def _find_mean(costs: Float[Array, 'n h w']) -> Float[Array, 'n']:
  return jnp.mean(costs, axis=(1, 2))


def _find_smallest(costs: Float[Array, 'n h w']) -> Float[Array, 'n']:
  return -find_largest(-costs)


def _refine_at_level(
    apply: Callable[..., Any],
    grids: FeatureGrids,
    supports: Supports,
    start: Refinement,
    config: LocoTrackConfig,
    resolution: Resolution,
    num_frames: NumFrames | None,
) -> TrackState:
  """Refines tracks on one set of grids; positions at the initial resolution."""
  initial = config.initial_resolution

  def iterate(now: Refinement, unused: None) -> tuple[Refinement, TrackState]:
    del unused
    now = now._replace(
        positions=jax.lax.stop_gradient(now.positions),
        occlusion_logits=jax.lax.stop_gradient(now.occlusion_logits),
        uncertainty_logits=jax.lax.stop_gradient(now.uncertainty_logits),
    )
    embedded = _embed_correlations(apply, grids, supports, now, config)
    inputs = join_inputs(now, embedded, config, resolution, num_frames)
    changes = apply('mix', inputs, num_frames)
    features = now.features
    if features is not None:
      features += changes[..., _STATE_OUTPUTS:]
    now = Refinement(
        positions=now.positions
        + rescale_positions(changes[..., :2], resolution, initial),
        occlusion_logits=now.occlusion_logits + changes[..., 2],
        uncertainty_logits=now.uncertainty_logits + changes[..., 3],
        features=features,
    )
    return now, TrackState(*now[:3])

  _, states = jax.lax.scan(iterate, start, length=config.num_iterations)
  return states


def join_inputs(
    now: Refinement,
    embedded: Float[Array, 'n t e'],
    config: LocoTrackConfig,
    resolution: Resolution,
    num_frames: NumFrames | None = None,
) -> Float[Array, 'n t c']:
  """Returns what the refinement network reads."""
  initial = config.initial_resolution
  logits = jnp.stack([now.occlusion_logits, now.uncertainty_logits], axis=-1)
  motion = encode_motion(
      rescale_positions(now.positions, initial, resolution),
      initial,
      num_frames,
  )
  if config.inputs == 'motion_last':
    inputs = [logits, embedded, motion]
  elif config.inputs == 'motion_first':
    inputs = [motion, logits, embedded]
  else:
    assert now.features is not None, 'the network reads features'
    inputs = [motion, logits, embedded, now.features]
  return jnp.concatenate(inputs, axis=-1)


def encode_motion(
    positions: Float[Array, 'n t 2'],
    initial: Resolution,
    num_frames: NumFrames | None = None,
) -> Float[Array, 'n t m']:
  """Returns waves of each step to the next frame and from the last one.

  Positions are pixels of the level; steps count in sides of the initial
  resolution. Frames from `num_frames` on are padding; no step leads there.
  """
  # PARITY: not in sides of the level, and without pi (test_locotrack_parity).
  sides = np.asarray([initial[1], initial[0]], np.float32)
  steps = (positions[:, :-1] - positions[:, 1:]) / sides[None, None]
  if num_frames is not None:
    is_step = jnp.arange(1, positions.shape[1]) < num_frames
    steps = jnp.where(is_step[None, :, None], steps, 0)
  forward = jnp.pad(steps, ((0, 0), (0, 1), (0, 0)))
  backward = jnp.pad(-steps, ((0, 0), (1, 0), (0, 0)))
  motion = jnp.concatenate([forward, backward], axis=-1)
  scales = 2.0 ** np.arange(_FREQUENCIES, dtype=np.float32)
  phases = motion[..., None, :] * scales[None, None, :, None]
  phases = phases.reshape(*motion.shape[:2], -1)
  waves = jnp.sin(jnp.concatenate([phases, phases + np.pi / 2], axis=-1))
  return jnp.concatenate([motion, waves], axis=-1)


def _embed_correlations(
    apply: Callable[..., Any],
    grids: FeatureGrids,
    supports: Supports,
    now: Refinement,
    config: LocoTrackConfig,
) -> Float[Array, 'n t e']:
  """Describes how each track's neighborhoods fit its query's."""
  size = (2 * config.radius + 1) ** 2
  vectors = [
      support.reshape(support.shape[0], size, -1) for support in supports
  ]

  prepared = apply('prepare')

  def embed(
      grids: FeatureGrids, positions: Float[Array, 'n 2']
  ) -> Float[Array, 'n e']:
    correlations = []
    for grid, support in zip(grids, vectors, strict=True):
      points = rescale_positions(
          positions, config.initial_resolution, grid.shape[:2]
      )
      correlations.append(
          correlate_neighborhoods(
              grid, jnp.flip(points, axis=-1), support, config.radius
          )
      )
    return apply('embed', prepared, *correlations)

  embedded = map_frames(embed, grids, now.positions.swapaxes(0, 1))
  return embedded.swapaxes(0, 1)


def _touch(module: LocoTrack, config: LocoTrackConfig) -> None:
  """Calls every part of the module once, on the smallest of inputs."""
  _, middle, coarse = module.encode_frame(jnp.zeros((32, 32, 3), jnp.float32))
  module.estimate_frame(middle, coarse, middle[0, :1], coarse[0, :1])
  side = 2 * config.radius + 1
  correlation = jnp.zeros((1, side**2, side, side), jnp.float32)
  module.embed(module.prepare(), correlation, correlation, correlation)
  module.mix(jnp.zeros((1, 1, count_inputs(config)), jnp.float32))


def count_inputs(config: LocoTrackConfig) -> int:
  """Returns how many numbers the refinement network reads."""
  embedded = 2 * len(FeatureGrids._fields) * config.encoder_layers[-1][-1]
  features = count_track_features(config) if _reads_features(config) else 0
  return _MOTION_INPUTS + 2 + embedded + features


def list_weight_names(config: LocoTrackConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  root = 'locotrack/~/'
  if config.encoder == 'resnet':
    yield from list_resnet_names(
        root + 'resnet/~/', 'resnet_torch.', len(_RESNET_CHANNELS)
    )
  else:
    yield from _list_efficientnet_names(config)
  yield WeightName(
      'conv2d_bias', root + 'heatmap', root + 'cost_volume', 'cost_conv'
  )
  yield WeightName(
      'linear', root + 'logits', root + 'occlusion_out', 'occ_linear'
  )
  for i, grid in enumerate(('middle', 'coarse', 'fine')):
    ours = f'{root}encode_{grid}/~/'
    haiku = f'{root}{make_haiku_name("cmd_top", i)}/~/'
    for layer in range(len(config.encoder_layers)):
      torch = f'cmdtop.{i}.conv.{layer}.'
      yield WeightName(
          'conv2d_bias',
          f'{ours}conv_{layer}',
          haiku + make_haiku_name('conv2_d', layer),
          torch + '0',
      )
      yield WeightName(
          'norm',
          f'{ours}group_norm_{layer}',
          haiku + make_haiku_name('group_norm', layer),
          torch + '1',
      )
  yield from _list_transformer_names(config)


def _list_transformer_names(config: LocoTrackConfig) -> Iterator[WeightName]:
  """Lists the modules of the refinement network."""
  ours = 'locotrack/~/transformer/~/'
  haiku = 'locotrack/~/pips_transformer/'
  torch = 'torch_pips_mixer.'
  num_layers = config.transformer_layers
  yield WeightName(
      'linear', ours + 'input', haiku + 'linear', torch + 'input_proj'
  )
  yield WeightName(
      'linear', ours + 'output', haiku + 'linear_1', torch + 'output_proj'
  )
  haiku += '~/transformer/'
  torch += 'transformer.'
  yield WeightName(
      'norm',
      ours + 'layer_norm',
      haiku + make_haiku_name('layer_norm', 2 * num_layers),
      torch + 'ln_out',
  )
  for layer in range(num_layers):
    prefix = f'{ours}layer_{layer}/~/'
    block = f'{torch}layers.{layer}.'
    for i, part in enumerate(('up', 'down')):
      yield WeightName(
          'norm',
          f'{prefix}layer_norm_{i}',
          haiku + make_haiku_name('layer_norm', 2 * layer + i),
          f'{block}layer_norm{i + 1}',
      )
      yield WeightName(
          'linear',
          prefix + part,
          haiku + make_haiku_name('linear', 2 * layer + i),
          f'{block}dense.{2 * i}',
      )
    attention = haiku + make_haiku_name('multi_head_attention', layer)
    for part, theirs, published in (
        ('query', 'query', 'query'),
        ('key', 'key', 'key'),
        ('value', 'value', 'value'),
        ('output', 'linear', 'final'),
    ):
      yield WeightName(
          'linear',
          f'{prefix}attention/~/{part}',
          f'{attention}/{theirs}',
          f'{block}attn.{published}_proj',
      )


def _list_efficientnet_names(config: LocoTrackConfig) -> Iterator[WeightName]:
  """Lists the modules of the EfficientNet."""
  torch = 'efficientnet_feature_extractor.'
  if config.encoder == 'b0_projected':
    root = 'locotrack/~/projection/~/'
    for i in range(len(_PROJECTED_CHANNELS)):
      yield WeightName(
          'conv2d_bias', f'{root}project_{i}', torch=f'{torch}proj_{i + 1}'
      )
    yield from list_trunk_names(TRUNKS['b0'], root + 'trunk/~/', torch)
  else:
    assert config.encoder != 'resnet', 'a residual network has other names'
    yield from list_trunk_names(
        TRUNKS[config.encoder], 'locotrack/~/efficientnet/~/', torch
    )


def list_trunk_names(
    trunk: Trunk, prefix: str, torch_prefix: str
) -> Iterator[WeightName]:
  """Lists the modules of an `EfficientNet`."""
  yield WeightName('conv2d', prefix + 'stem', torch=torch_prefix + '_conv_stem')
  yield WeightName(
      'running_norm', prefix + 'stem_norm', torch=torch_prefix + '_bn0'
  )
  layers: tuple[tuple[Kind, str, str], ...] = (
      ('conv2d', 'expand', '_expand_conv'),
      ('running_norm', 'expand_norm', '_bn0'),
      ('conv2d', 'depthwise', '_depthwise_conv'),
      ('running_norm', 'depthwise_norm', '_bn1'),
      ('conv2d_bias', 'squeeze', '_se_reduce'),
      ('conv2d_bias', 'excite', '_se_expand'),
      ('conv2d', 'project', '_project_conv'),
      ('running_norm', 'project_norm', '_bn2'),
  )
  for i, block in enumerate(list_blocks(trunk)):
    for kind, ours, torch in layers:
      if block.expansion != 1 or not ours.startswith('expand'):
        yield WeightName(
            kind,
            f'{prefix}block_{i}/~/{ours}',
            torch=f'{torch_prefix}_blocks.{i}.{torch}',
        )


def infer_config(
    config: LocoTrackConfig, shapes: Mapping[str, tuple[int, ...]]
) -> LocoTrackConfig:
  """Follows the program that a file is of: the JAX one differs in details.

  It approximates the GELU, and refines on every resolution. `shapes` are those
  of the file, under its own names.
  """
  if any(name.startswith('params|locotrack/') for name in shapes):
    return dataclasses.replace(config, gelu='tanh', refined_levels='every')
  return config


def count_operations(
    config: LocoTrackConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  frame = count_frame_operations(config)
  return num_frames * (
      frame + num_queries * count_point_operations(config, num_frames)
  )


def count_frame_operations(config: LocoTrackConfig) -> float:
  """Returns multiply-adds times two of encoding a frame."""
  return sum(
      _count_encoder(config, float(math.prod(resolution)))
      for resolution in list_resolutions(config)
  )


def _count_encoder(config: LocoTrackConfig, pixels: float) -> float:
  if config.encoder == 'resnet':
    return count_resnet(pixels, _RESNET_CHANNELS, _RESNET_STRIDES)
  if config.encoder == 'b0_projected':
    count = count_trunk(TRUNKS['b0'], pixels)
    blocks = list(list_blocks(TRUNKS['b0']))
    for tap, width, stride in zip(
        TRUNKS['b0'].taps, _PROJECTED_CHANNELS, (2, 4, 8), strict=True
    ):
      count += count_convolution(
          pixels / stride**2, 1, blocks[tap].channels, width
      )
    return count
  return count_trunk(TRUNKS[config.encoder], pixels)


def count_point_operations(config: LocoTrackConfig, num_frames: int) -> float:
  """Returns multiply-adds times two of tracking a point through one frame."""
  channels = count_channels(config)
  middle, coarse = _get_strides(config)[1:]
  pixels = math.prod(_get_first_resolution(config))
  cells = pixels / middle**2
  first = 2 * (
      cells * channels[1]
      + pixels / coarse**2 * channels[2]
      + cells * _KERNEL**2 * 2
  )

  side = 2 * config.radius + 1
  correlation = 2 * (side + 1) ** 2 * side**2 * sum(channels)
  encoder = 0.0
  inputs = side**2
  for size, stride, outputs in config.encoder_layers:
    side = math.ceil(side / stride)
    encoder += count_convolution(1.0 * side**2, size, inputs, outputs)
    inputs = outputs
  width = config.transformer_channels
  outputs = _STATE_OUTPUTS
  if _reads_features(config):
    outputs += count_track_features(config)
  transformer = (
      2
      * width
      * (
          count_inputs(config)
          + config.transformer_layers * (12 * width + 2 * num_frames)
          + outputs
      )
  )
  iteration = correlation + 6 * encoder + transformer
  num_iterations = len(list_refined_levels(config)) * config.num_iterations
  return first + num_iterations * iteration


def _get_strides(config: LocoTrackConfig) -> tuple[int, int, int]:
  """Returns pixels per cell of the fine, middle and coarse grid."""
  if config.encoder == 'resnet':
    return 2, 4, 8
  trunk = TRUNKS['b0' if config.encoder == 'b0_projected' else config.encoder]
  strides = list(
      itertools.accumulate(
          (block.stride for block in list_blocks(trunk)),
          operator.mul,
          initial=2,
      )
  )[1:]
  fine, middle, coarse = (strides[tap] for tap in trunk.taps)
  return fine, middle, coarse
