"""TAP-Net: the baseline of TAP-Vid, one frame at a time.

Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video", arXiv
2211.03726. A residual network whose first units shift some channels to the
neighboring frames (temporal shift modules, arXiv 1811.08383) makes features at
stride 8; with q those at a query's point, on every frame t

  heatmap_t = softmax(temperature * conv(q . features_t))
  p_t = soft_argmax(heatmap_t);  o_t = mlp(conv(q . features_t))

Weights: github.com/google-deepmind/tapnet, Apache 2.0.
"""

from collections.abc import Iterator
import dataclasses
import functools
import math

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from tapjax import parallel
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import Resolution
from tapjax.models.arrows import pass_through_queries
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import Precision
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.weight_names import list_cost_volume_names
from tapjax.models.weight_names import WeightName
from tapjax.nn.convolution import Conv2D
from tapjax.nn.cost_volume import CostVolumeHead
from tapjax.nn.cost_volume import count_cost_volume
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.normalization import EPSILON
from tapjax.nn.normalization import normalize_vectors
from tapjax.nn.resnet import count_convolution
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_at_time
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class TapNetConfig:
  """Settings of a TAP-Net.

  Attributes:
    resolution: (height, width) at which the network sees the video; multiples
      of 8.
    channels: of each unit of the backbone.
    strides: of each unit, after a stem and a pooling of stride 2 each.
    shifted_units: number of first units that look at neighboring frames.
    temperature: of the softmax over a frame.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (256, 256)
  channels: tuple[int, ...] = (64, 128, 256)
  strides: tuple[int, ...] = (1, 2, 1)
  shifted_units: int = 2
  temperature: float = 10.0
  precision: Precision = 'highest'


TAPNET = TapNetConfig()

_STRIDE = 8
# Side of the frame that initializes a network.
_SMALL_SIDE = 32
_BLOCKS_PER_UNIT = 2
_SHIFTED_SHARE = 8


class ShiftBlock(hk.Module):
  """A residual block that may look at the neighboring frames."""

  def __init__(
      self,
      channels: int,
      stride: int,
      *,
      project: bool,
      shift: bool,
      is_training: bool,
      platform: str,
      name: str,
  ):
    super().__init__(name=name)
    self._shift = shift
    self._is_training = is_training
    self._norms = [
        hk.BatchNorm(
            create_scale=True,
            create_offset=True,
            decay_rate=0.9,
            eps=EPSILON,
            # Over the videos of all devices.
            cross_replica_axis=parallel.AXIS if is_training else None,
            name=norm,
        )
        for norm in ('batch_norm', 'batch_norm_1')
    ]
    self._convolutions = [
        Conv2D(channels, 3, step, with_bias=False, platform=platform, name=conv)
        for conv, step in (('conv_0', stride), ('conv_2', 1))
    ]
    self._shortcut = None
    if project:
      self._shortcut = Conv2D(
          channels,
          1,
          stride,
          with_bias=False,
          platform=platform,
          name='shortcut_conv',
      )

  def __call__(
      self,
      x: Float[Array, 'bt h w c'],
      length: int,
      is_frame: Bool[Array, 't'] | None,
  ) -> Float[Array, 'bt _ _ _']:
    # A batch norm makes its averages only when it trains.
    is_training = self._is_training or hk.running_init()
    y = jax.nn.relu(self._norms[0](x, is_training).astype(x.dtype))
    # PARITY: the projection reads the activated tensor, and the first unit has
    # one although its width does not change (test_tapnet_parity).
    shortcut = x if self._shortcut is None else self._shortcut(y)
    if self._shift:
      y = y.reshape(-1, length, *y.shape[1:])
      if is_frame is not None:
        y = jnp.where(is_frame[None, :, None, None, None], y, 0)
      y = shift_channels(y).reshape(-1, *y.shape[2:])
    y = self._convolutions[0](y)
    y = jax.nn.relu(self._norms[1](y, is_training).astype(x.dtype))
    return self._convolutions[1](y) + shortcut


class TapNet(hk.Module):
  """The parameters of TAP-Net, and its operations on a video or a frame."""

  def __init__(
      self,
      config: TapNetConfig,
      platform: str,
      name: str = 'tap_net',
      *,
      is_training: bool = False,
  ):
    super().__init__(name=name)
    self._stem = Conv2D(
        config.channels[0],
        7,
        2,
        with_bias=False,
        platform=platform,
        name='stem',
    )
    self._blocks = [
        ShiftBlock(
            channels,
            stride if block == 0 else 1,
            project=block == 0,
            shift=unit < config.shifted_units,
            is_training=is_training,
            platform=platform,
            name=f'unit_{unit}_block_{block}',
        )
        for unit, (channels, stride) in enumerate(
            zip(config.channels, config.strides, strict=True)
        )
        for block in range(_BLOCKS_PER_UNIT)
    ]
    # PARITY: no rectifier after the strided convolution, unlike TAPIR.
    self._cost_volume = CostVolumeHead(
        num_logits=1,
        temperature=config.temperature,
        rectify_pooled=False,
        platform=platform,
        name='cost_volume',
    )

  def __call__(self, video: Float[Array, 'b t h w 3']) -> FrameEstimate:
    """Finds the center of a video's first frame in this frame."""
    grid = self.encode_video(video)[0, 0]
    center = grid[grid.shape[0] // 2, grid.shape[1] // 2]
    return self.estimate_frame(grid, center[None])

  def encode_video(
      self,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Float[Array, 'b t h8 w8 c']:
    """Returns features of length 1 at stride 8.

    Frames from `num_frames` on are padding, which the others do not see.
    """
    batch, length = video.shape[:2]
    is_frame = None
    if num_frames is not None:
      is_frame = jnp.arange(length) < num_frames
    x = self._stem(video.reshape(batch * length, *video.shape[2:]))
    x = hk.max_pool(x, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
    for block in self._blocks:
      x = block(x, length, is_frame)
    return normalize_vectors(x).reshape(batch, length, *x.shape[1:])

  def estimate_frame(
      self, grid: Float[Array, 'h8 w8 c'], vectors: Float[Array, 'n c']
  ) -> FrameEstimate:
    """Guesses the position of each query in one frame."""
    return self._cost_volume(grid, vectors)


@dataclasses.dataclass(frozen=True)
class TapNetFunctions(TrackerFunctions):
  """TAP-Net as pure functions.

  Features are one grid, query features are vectors.
  """

  config: TapNetConfig
  platform: str = dataclasses.field(default_factory=jax.default_backend)

  def __post_init__(self) -> None:
    check_config(self.config)

  @property
  def temporal_context(self) -> int:  # type: ignore[override]
    """Number of frames on either side that shifted channels come from."""
    return self.config.shifted_units * _BLOCKS_PER_UNIT

  @functools.cached_property
  def _network(self) -> Network:
    return make_network(
        lambda: TapNet(self.config, self.platform),
        ('encode_video', 'estimate_frame'),
        lambda: (jnp.zeros((1, 1, _SMALL_SIDE, _SMALL_SIDE, 3), jnp.float32),),
    )

  @functools.cached_property
  def _training_network(self) -> Network:
    return make_network(
        lambda: TapNet(self.config, self.platform, is_training=True),
        ('encode_video',),
        lambda: (jnp.zeros((1, 1, _SMALL_SIDE, _SMALL_SIDE, 3), jnp.float32),),
    )

  def init(self, key: Array) -> Params:
    """Makes random parameters."""
    return self._network.init(key)

  @encodes_with_precision
  def encode_video(
      self,
      params: Params,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Float[Array, 'b t h8 w8 c']:
    """Encodes all frames together; each sees those next to it."""
    return self._network.apply('encode_video', params, video, num_frames)

  @encodes_with_precision
  def encode_in_training(
      self, params: Params, video: Float[Array, 'b t h w 3'], key: Array
  ) -> tuple[Float[Array, 'b t h8 w8 c'], PyTree]:
    """Encodes frames, with batch norms over the videos of all devices."""
    return self._training_network.apply_with_statistics(
        'encode_video', params, key, video
    )

  @with_precision
  def describe_queries(
      self,
      params: Params,
      features: Float[Array, 'b t h8 w8 c'],
      query_points: Float[Array, 'b n 3'],
  ) -> Float[Array, 'b n c']:
    """Interpolates the grid at the query points."""
    del params
    points = rescale_query_points(
        query_points, self.config.resolution, features.shape[2:4]
    )
    return map_batch(read_at_time, features, points)

  @with_precision
  def initialize_tracks(
      self,
      params: Params,
      features: Float[Array, 'b t h8 w8 c'],
      query_features: Float[Array, 'b n c'],
      query_points: Float[Array, 'b n 3'] | None,
      memory: PyTree = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Finds tracks frame by frame, from the cost volume of each alone."""
    del memory, target_points
    state = map_batch(
        functools.partial(self._initialize, params), features, query_features
    )
    if query_points is None:
      return state
    return pass_through_queries(state, query_points)

  def _initialize(
      self,
      params: Params,
      grids: Float[Array, 't h8 w8 c'],
      vectors: Float[Array, 'n c'],
  ) -> TrackState:
    """Finds the tracks of one video."""
    states = map_frames(
        lambda grid: self._find_in_frame(params, grid, vectors),
        grids,
        platform=self.platform,
    )
    return jax.tree.map(lambda array: array.swapaxes(0, 1), states)

  def _find_in_frame(
      self,
      params: Params,
      grid: Float[Array, 'h8 w8 c'],
      vectors: Float[Array, 'n c'],
  ) -> TrackState:
    """Returns the tracks on one frame, `[n]`."""
    estimate = self._network.apply('estimate_frame', params, grid, vectors)
    positions = rescale_positions(
        estimate.positions, grid.shape[:2], self.config.resolution
    )
    return TrackState(positions, estimate.logits[..., 0], None)

  def refine_tracks(
      self,
      params: Params,
      features: Float[Array, 'b t h8 w8 c'],
      query_features: Float[Array, 'b n c'],
      state: TrackState,
      memory: PyTree = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, None]:
    """Returns the guess alone; TAP-Net has no iterations."""
    del params, features, query_features, memory, valid, query_points
    del target_points
    return jax.tree.map(lambda array: array[None], state), None

  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Returns the guess; a point counts as visible up to a logit of 0."""
    last = jax.tree.map(lambda array: array[-1], states)
    visible = last.occlusion_logits <= 0
    return Tracks(last.positions, visible, last.occlusion_logits, None)


def check_config(config: TapNetConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  if len(config.channels) != len(config.strides) or any(
      width < _SHIFTED_SHARE or width % _SHIFTED_SHARE
      for width in config.channels
  ):
    raise ValueError(
        f'channels must be multiples of {_SHIFTED_SHARE}, as many as strides; '
        f'got {config.channels} and {config.strides}'
    )
  if not math.isfinite(config.temperature):
    raise ValueError(f'temperature must be finite; got {config.temperature}')
  if any(side < _STRIDE or side % _STRIDE for side in config.resolution):
    raise ValueError(
        f'resolution must be multiples of {_STRIDE} for TAP-Net; got '
        f'{config.resolution} - round it to the next multiple'
    )


def shift_channels(
    x: Float[Array, 'b t h w c'],
) -> Float[Array, 'b t h w c']:
  """Replaces two eighths of the channels by those of neighboring frames.

  The last channels of the next frame move to the front, the first channels of
  the previous frame to the end. Beyond the ends of the video there are zeros.
  """
  shifted = x.shape[-1] // _SHIFTED_SHARE
  no_padding = ((0, 0),) * 3
  following = jnp.pad(x[:, 1:, ..., -shifted:], ((0, 0), (0, 1), *no_padding))
  previous = jnp.pad(x[:, :-1, ..., :shifted], ((0, 0), (1, 0), *no_padding))
  return jnp.concatenate(
      [following, x[..., shifted:-shifted], previous], axis=-1
  )


def list_weight_names(config: TapNetConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  backbone = 'tap_net/~/tsm_resnet_video/tsm_resnet_'
  yield WeightName('conv2d', 'tap_net/~/stem', backbone + 'stem')
  for unit in range(len(config.channels)):
    for block in range(_BLOCKS_PER_UNIT):
      ours = f'tap_net/~/unit_{unit}_block_{block}/~/'
      haiku = f'{backbone}unit_{unit}/block_{block}/'
      for i in range(2):
        norm = ('batch_norm', 'batch_norm_1')[i]
        conv = ('conv_0', 'conv_2')[i]
        yield WeightName('batch_norm', ours + norm, haiku + norm)
        yield WeightName('conv2d', ours + conv, haiku + conv)
      if block == 0:
        yield WeightName(
            'conv2d', ours + 'shortcut_conv', haiku + 'shortcut_conv'
        )
  yield from list_cost_volume_names('tap_net/~/', 'conv3d_flat')


def count_operations(
    config: TapNetConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  pixels = math.prod(config.resolution) / 4
  inputs = config.channels[0]
  frame = count_convolution(pixels, 7, 3, inputs)
  pixels /= 4
  for channels, stride in zip(config.channels, config.strides, strict=True):
    pixels /= stride**2
    frame += count_convolution(pixels, 1, inputs, channels)
    frame += count_convolution(pixels, 3, inputs, channels)
    frame += 3 * count_convolution(pixels, 3, channels, channels)
    inputs = channels
  return num_frames * (frame + num_queries * count_cost_volume(pixels, inputs))
