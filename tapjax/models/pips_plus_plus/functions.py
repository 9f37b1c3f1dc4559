"""PIPs++: tracks that are refined over many frames at once, by convolutions.

Zheng et al., "PointOdyssey: A Large-Scale Synthetic Dataset for Long-Term Point
Tracking", arXiv 2307.15055. A query is a vector q of frame features at its
point, and every track begins by standing still. `num_iterations` times,

  c_t = patches of (q . features_t), (f_{t-2} . features_t) and
        (f_{t-4} . features_t) around p_t, at four scales
  dp = network(c, p_{t+1} - p_t);  p += dp;  p is put back on the query

where f_t are the features at p_t, and the network is residual convolutions over
time, whose norms see all frames of a window. A longer video is chained: each
window begins on the last frame of the one before and takes over its vectors.
Tracks run from the query's own frame to both ends of the video.

The network counts pixel centers as integers, ours are raster coordinates: they
differ by half a pixel, in whole frames as in cells of any size.

Weights: github.com/aharley/pips2, MIT.
"""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools
import math
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.geometry import resize_corner_aligned
from tapjax.geometry import Resolution
from tapjax.models.base import Chain
from tapjax.models.base import Extent
from tapjax.models.base import make_stages
from tapjax.models.base import NumFrames
from tapjax.models.base import Params
from tapjax.models.base import Precision
from tapjax.models.base import round_query_times
from tapjax.models.base import set_precision
from tapjax.models.base import TrackerFunctions
from tapjax.models.weight_names import WeightName
from tapjax.nn.normalization import EPSILON
from tapjax.nn.normalization import normalize_instances
from tapjax.nn.resnet import count_convolution
from tapjax.ops.correlation import correlate_patches_in_frames
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_in_frames
from tapjax.types import Tracks
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class PipsPlusPlusConfig:
  """Settings of a PIPs++ network.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    channels: of the four stages of the encoder; the first is also the stem's.
    fused_channels: between the stages and the features.
    feature_channels: of the features.
    levels: grids to correlate with, each half the size of the one before.
    radius: of a correlated patch, in cells of its grid.
    frequencies: sines and cosines for each coordinate of the motion.
    block_channels: of each residual block over time; the first is also that of
      the convolution before them.
    num_iterations: of refinement, in every window.
    window: frames that are refined together, at least 2. Longer videos are
      chained.
    late_step: what changes are multiplied by in the last quarter of the
      iterations; the published demo takes 0.5 and its evaluation 1.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (512, 896)
  channels: tuple[int, ...] = (64, 96, 128, 128)
  fused_channels: int = 256
  feature_channels: int = 128
  levels: int = 4
  radius: int = 3
  frequencies: int = 32
  block_channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512, 1024, 1024)
  num_iterations: int = 16
  window: int = 128
  late_step: float = 1.0
  precision: Precision = 'highest'


PIPS_PLUS_PLUS = PipsPlusPlusConfig()

_STRIDE = 8
_STAGE_STRIDES = (1, 2, 2, 2)
_BLOCKS_PER_STAGE = 2
# How far back the refreshed vectors come from, in frames.
_LAGS = (2, 4)
_TAPS = 3
_HALF_PIXEL = 0.5

# Frame features at stride 8 and then 16, 32, ...
Features = tuple[Float[Array, 'b t _ _ c'], ...]
Pyramid = tuple[Float[Array, 't _ _ c'], ...]
# (x, y) in cells of the finest grid, with the first center at (0, 0).
Cells = Float[Array, '*n 2']


class QueryVectors(NamedTuple):
  """Features at the query points, and the frames of these."""

  vectors: Float[Array, 'b n c']
  frames: Int[Array, 'b n']


class Progress(NamedTuple):
  """How far the tracks of a long video have come.

  Windows of a query are counted from its own frame, first those forward to the
  end of the video, then those back to its beginning.

  Attributes:
    num_frames: of the video; positions behind them are padding.
    frames: of the queries.
    next_window: the window of each query that comes next.
    positions: in cells, one set for each iteration that is kept; the last one
      is the answer.
    vectors: at the query points.
    lagged: on every frame of the last window, features at its own positions
      some frames earlier, one for each lag.
  """

  num_frames: NumFrames
  frames: Int[Array, 'n']
  next_window: Int[Array, 'n']
  positions: Float[Array, 'i n t 2']
  vectors: Float[Array, 'n c']
  lagged: Float[Array, 'n w k c']


class Window(NamedTuple):
  """The window of each query that comes next.

  Attributes:
    exists: whether there is another one.
    is_first: whether it begins on the query itself.
    step: 1 forward in time, -1 back.
    start: its first frame, counted from the query's in its direction.
    length: frames of it that exist; all but in windows shorter than usual.
  """

  exists: Bool[Array, 'n']
  is_first: Bool[Array, 'n']
  step: Int[Array, 'n']
  start: Int[Array, 'n']
  length: Int[Array, 'n']


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
            for block in range(_BLOCKS_PER_STAGE)
        ]
        for stage, (channels, stride) in enumerate(
            zip(config.channels, _STAGE_STRIDES, strict=True)
        )
    ]
    self._fuse = _make_convolution(config.fused_channels, 3, 1, 'fuse')
    self._output = _make_convolution(config.feature_channels, 1, 1, 'output')

  def __call__(self, images: Float[Array, 'b h w c']) -> dict[str, Array]:
    """Returns the features, `output`, and what leads to them."""
    size = (images.shape[1] // _STRIDE, images.shape[2] // _STRIDE)
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
    shape = (_TAPS, inputs, self._channels)
    spread = _make_torch_spread(_TAPS * inputs)
    kernel = hk.get_parameter('w', shape, init=spread)
    bias = hk.get_parameter('b', shape[-1:], init=spread)
    padded = jnp.pad(
        jnp.where(valid[..., None], x, 0), ((0, 0), (1, 1), (0, 0))
    )
    num_frames = x.shape[1]
    taps = [padded[:, tap : tap + num_frames] for tap in range(_TAPS)]
    product = jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, shape[-1])
    return product + bias[None, None]


class UpdateBlock(hk.Module):
  """A residual convolution over time of one block."""

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
  """From correlations and motion of tracks to how they should change."""

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
  """The parameters of PIPs++ and what it does to a frame or to tracks."""

  def __init__(self, config: PipsPlusPlusConfig, name: str = 'pips_plus_plus'):
    super().__init__(name=name)
    self._config = config
    self._encoder = Encoder(config, name='encoder')
    self._update = UpdateNetwork(config, name='update')
    # PARITY: published files hold a norm that nothing uses.
    self._norm = hk.GroupNorm(groups=1, name='norm')

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
    """Returns how to change the positions, in cells."""
    return self._update(inputs, valid)

  def touch(self) -> None:
    """Calls every part once, on the smallest of inputs."""
    size = _STRIDE * 2 ** (self._config.levels - 1)
    features, *_ = self.encode_frame(jnp.zeros((size, size, 3), jnp.float32))
    self._norm(features[None])
    inputs = jnp.zeros((1, 1, _count_inputs(self._config)), jnp.float32)
    self.update(inputs, jnp.ones((1, 1), bool))


@functools.cache
def make_functions(config: PipsPlusPlusConfig) -> TrackerFunctions:
  """Returns PIPs++ as pure functions; see `TrackerFunctions`.

  Equal configs get the same functions, and so share what was compiled.

  Features are `Features`, query features `QueryVectors`. `refine_tracks`
  returns one state more than iterations: the last one is the answer, in which
  tracks are back on their queries, while the others are what the network said
  and what a loss compares.
  """
  _check_config(config)
  stages = make_stages(
      lambda: PipsPlusPlus(config),
      ('encode_frame', 'update'),
      lambda module: module.touch(),
  )

  def encode_video(
      params: Params,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Features:
    del num_frames  # Every frame is encoded by itself.
    batch, length = video.shape[:2]
    grids = map_frames(
        lambda frame: stages.apply('encode_frame', params, frame),
        video.reshape(batch * length, *video.shape[2:]),
    )
    return jax.tree.map(
        lambda grid: grid.reshape(batch, length, *grid.shape[1:]), grids
    )

  def describe_queries(
      params: Params, features: Features, query_points: Float[Array, 'b n 3']
  ) -> QueryVectors:
    del params  # Interpolation has none.
    frames = round_query_times(query_points)
    cells = _get_query_cells(query_points)
    vectors = map_batch(_read_features, features[0], frames, cells)
    return QueryVectors(vectors, frames)

  def initialize_tracks(
      params: Params,
      features: Features,
      query_features: QueryVectors,
      query_points: Float[Array, 'b n 3'] | None,
      memory: None = None,
  ) -> TrackState:
    del params, query_features, memory  # Every track begins by standing still.
    if query_points is None:
      raise ValueError(
          'query_points must be given to PIPs++, which cannot search for them;'
          ' got None'
      )
    positions = jnp.flip(query_points[..., 1:], axis=-1)[:, :, None]
    num_frames = features[0].shape[1]
    return TrackState(jnp.repeat(positions, num_frames, axis=2), None, None)

  def update_in(params: Params) -> Callable[[Array, Array], Array]:
    return lambda *arguments: stages.apply('update', params, *arguments)

  def refine_tracks(
      params: Params,
      features: Features,
      query_features: QueryVectors,
      state: TrackState,
      memory: None = None,
      extent: Extent | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
  ) -> tuple[TrackState, None]:
    del memory, query_points  # It does not stream, and starts from the state.
    length = features[0].shape[1]
    num_frames = length if extent is None else extent.num_frames

    def refine(
        pyramid: Pyramid,
        queries: QueryVectors,
        positions: Float[Array, 'n t 2'],
    ) -> Float[Array, 'i n t 2']:
      cells = _get_cells(positions)
      progress = _begin(
          config,
          num_frames,
          queries.frames,
          queries.vectors,
          jnp.repeat(cells[None], config.num_iterations + 1, axis=0),
      )
      progress = _advance(config, update_in(params), pyramid, 0, progress)
      return _get_pixels(progress.positions)

    positions = map_batch(refine, features, query_features, state.positions)
    return TrackState(positions.swapaxes(0, 1), None, None), None

  def finalize_tracks(states: TrackState) -> Tracks:
    positions = states.positions[-1]
    return Tracks(positions, jnp.ones(positions.shape[:-1], bool), None, None)

  def begin_chain(
      query_points: Float[Array, 'n 3'], num_frames: NumFrames, capacity: int
  ) -> Progress:
    cells = _get_query_cells(query_points)
    return _begin(
        config,
        num_frames,
        round_query_times(query_points),
        jnp.zeros((len(query_points), config.feature_channels), jnp.float32),
        jnp.repeat(cells[:, None], capacity, axis=1)[None],
    )

  def advance_chain(
      params: Params, features: Features, origin: Array, progress: Progress
  ) -> Progress:
    pyramid = jax.tree.map(lambda grid: grid[0], features)
    frames = progress.frames - origin
    is_near = (frames >= 0) & (frames < pyramid[0].shape[0])
    # Tracks pass through their queries from the beginning.
    cells = _take(progress.positions[-1], progress.frames[:, None])[:, 0]
    found = _read_features(pyramid[0], frames, cells)
    progress = progress._replace(
        vectors=jnp.where(is_near[:, None], found, progress.vectors)
    )
    return _advance(config, update_in(params), pyramid, origin, progress)

  def finish_chain(progress: Progress) -> Tracks:
    positions = _get_pixels(progress.positions[-1])
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
      chain=Chain(config.window, begin_chain, advance_chain, finish_chain),
  )
  return set_precision(functions, config.precision)


def embed_motion(
    motion: Float[Array, 'n t 2'], frequencies: int
) -> Float[Array, 'n t c']:
  """Returns sines and cosines of each coordinate, then the motion itself."""
  exponents = np.arange(frequencies) / (frequencies - 1)
  omega = (10000.0**-exponents).astype(np.float32)
  angles = motion[..., None] * omega[None, None, None]
  waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-2)
  waves = waves.reshape(*motion.shape[:-1], -1)
  return jnp.concatenate([waves, motion], axis=-1)


def normalize_frames_of_tracks(
    x: Float[Array, 'n t c'], valid: Bool[Array, 'n t']
) -> Float[Array, 'n t c']:
  """Gives each channel of each track its own mean and spread over time."""
  weights = valid[..., None].astype(x.dtype)
  count = jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1)
  mean = jnp.sum(x * weights, axis=1, keepdims=True) / count
  variance = jnp.sum(jnp.square(x - mean) * weights, axis=1, keepdims=True)
  return (x - mean) * jax.lax.rsqrt(variance / count + EPSILON)


def correlate_tracks(
    pyramid: Pyramid,
    frames: Int[Array, 'n w'],
    positions: Float[Array, 'n w 2'],
    vectors: Float[Array, 'n w k c'],
    radius: int,
) -> Float[Array, 'n w p']:
  """Correlates vectors of tracks with the grids around their positions.

  `positions` are cells, `frames` index the grids. Each vector gets a patch on
  every level in turn.
  """

  def correlate(
      frames: Int[Array, 'n'],
      positions: Float[Array, 'n 2'],
      vectors: Float[Array, 'n k c'],
  ) -> Float[Array, 'n p']:
    patches = []
    for level, grids in enumerate(pyramid):
      points_yx = jnp.flip(positions / 2**level + _HALF_PIXEL, axis=-1)
      scores = correlate_patches_in_frames(
          grids, frames, points_yx, vectors, radius
      )
      # PARITY: columns before rows (test_pips_plus_plus_parity).
      patches.append(scores.swapaxes(2, 3).reshape(*scores.shape[:2], -1))
    scores = jnp.concatenate(patches, axis=-1) / math.sqrt(vectors.shape[-1])
    return scores.reshape(scores.shape[0], -1)

  return map_frames(
      correlate,
      frames.swapaxes(0, 1),
      positions.swapaxes(0, 1),
      vectors.swapaxes(0, 1),
  ).swapaxes(0, 1)


def refine_window(
    config: PipsPlusPlusConfig,
    update: Callable[[Array, Array], Array],
    pyramid: Pyramid,
    frames: Int[Array, 'n w'],
    length: Int[Array, 'n'],
    start: Float[Array, 'n w 2'],
    vectors: Float[Array, 'n c'],
    lagged: Float[Array, 'n w k c'],
) -> tuple[Float[Array, 'i n w 2'], Float[Array, 'n w k c']]:
  """Refines the tracks of one window.

  Args:
    config: of the network.
    update: of the network; from its inputs and which of them are valid to
      changes of positions.
    pyramid: features of frames.
    frames: which of these belong to the window, for each query.
    length: how many of them count.
    start: positions in cells; on the first frame they are taken as true.
    vectors: features of what is tracked.
    lagged: features that the first iteration takes for those at the track's own
      positions some frames earlier.

  Returns:
    Positions after each iteration, with the first frame as it comes out, then
    the answer, with the first frame as it came in; and the features at earlier
    positions that the last iteration used.
  """
  slots = jnp.arange(frames.shape[1])
  valid = slots[None] < length[:, None]
  query = start[:, :1]
  # Motion is that to the next frame; the last frame repeats it.
  moves = jnp.minimum(slots[None], jnp.maximum(length - 2, 0)[:, None])

  def iterate(
      state: tuple[Array, Array], iteration: Array
  ) -> tuple[tuple[Array, Array], Array]:
    positions, lagged = state
    positions = jax.lax.stop_gradient(positions)
    seen = _read_features(
        pyramid[0], frames.reshape(-1), positions.reshape(-1, 2)
    ).reshape(*frames.shape, -1)
    earlier = [seen[:, jnp.maximum(slots - lag, 0)] for lag in _LAGS]
    lagged = jnp.where(iteration == 0, lagged, jnp.stack(earlier, axis=2))
    first = jnp.repeat(vectors[:, None, None], seen.shape[1], axis=1)
    correlation = correlate_tracks(
        pyramid,
        frames,
        positions,
        jnp.concatenate([first, lagged], axis=2),
        config.radius,
    )
    following = jnp.minimum(moves + 1, (length - 1)[:, None])
    motion = _take(positions, following) - _take(positions, moves)
    inputs = jnp.concatenate(
        [correlation, embed_motion(motion, config.frequencies)], axis=-1
    )
    is_late = iteration > 3 * config.num_iterations // 4
    change = update(inputs, valid)
    change *= jnp.where(is_late, config.late_step, 1.0)
    moved = positions + change
    return (jnp.concatenate([query, moved[:, 1:]], axis=1), lagged), moved

  (answer, lagged), moved = jax.lax.scan(
      iterate, (start, lagged), jnp.arange(config.num_iterations)
  )
  return jnp.concatenate([moved, answer[None]]), lagged


def _begin(
    config: PipsPlusPlusConfig,
    num_frames: int | NumFrames,
    frames: Int[Array, 'n'],
    vectors: Float[Array, 'n c'],
    positions: Float[Array, 'i n t 2'],
) -> Progress:
  """Returns the progress of queries that have none."""
  window = min(config.window, positions.shape[2])
  shape = (frames.shape[0], window, len(_LAGS), vectors.shape[-1])
  return Progress(
      num_frames=jnp.asarray(num_frames, jnp.int32),
      frames=frames,
      next_window=jnp.zeros_like(frames),
      positions=positions,
      vectors=vectors,
      lagged=jnp.zeros(shape, vectors.dtype),
  )


def _find_window(progress: Progress) -> Window:
  """Returns the window of each query that comes next."""
  size = progress.lagged.shape[1]
  # A video of one frame has no windows.
  advance = max(size - 1, 1)
  ahead = progress.num_frames - 1 - progress.frames
  behind = progress.frames
  forward, back = -(-ahead // advance), -(-behind // advance)
  is_forward = progress.next_window < forward
  index = progress.next_window - jnp.where(is_forward, 0, forward)
  available = jnp.where(is_forward, ahead, behind) + 1
  # The last window slides back until it is full.
  start = jnp.minimum(index * advance, jnp.maximum(available - size, 0))
  return Window(
      exists=progress.next_window < forward + back,
      is_first=index == 0,
      step=jnp.where(is_forward, 1, -1),
      start=start,
      length=jnp.minimum(available, size),
  )


def _advance(
    config: PipsPlusPlusConfig,
    update: Callable[[Array, Array], Array],
    pyramid: Pyramid,
    origin: Array | int,
    progress: Progress,
) -> Progress:
  """Refines every window that lies in a piece of the video, in order.

  `origin` is the frame of the video with which the piece begins.
  """
  capacity, size = progress.positions.shape[2], progress.lagged.shape[1]
  num_available = pyramid[0].shape[0]
  kept = progress.positions.shape[0]

  def is_inside(window: Window) -> Bool[Array, 'n']:
    first = progress.frames + window.step * window.start
    last = first + window.step * (window.length - 1)
    low, high = jnp.minimum(first, last), jnp.maximum(first, last)
    return (low >= origin) & (high < origin + num_available)

  def refine(arguments: tuple[Progress, Window, Array]) -> Progress:
    now, window, is_due = arguments
    slots = window.start[:, None] + jnp.arange(size)[None]
    frames = now.frames[:, None] + window.step[:, None] * slots
    # What lies behind the end of a short window is not used.
    frames = jnp.clip(frames, 0, now.num_frames - 1)
    vectors = jnp.broadcast_to(now.vectors[:, None, None], now.lagged.shape)
    positions, lagged = refine_window(
        config,
        update,
        pyramid,
        jnp.clip(frames - origin, 0, num_available - 1),
        window.length,
        _take(now.positions[-1], frames),
        now.vectors,
        jnp.where(window.is_first[:, None, None, None], vectors, now.lagged),
    )
    # Frames behind the window stay where it ends.
    place = window.step[:, None] * (
        jnp.arange(capacity)[None] - now.frames[:, None]
    )
    place -= window.start[:, None]
    source = jnp.clip(place, 0, window.length[:, None] - 1)
    is_new = is_due[:, None] & (place >= 0)
    moved = jax.vmap(lambda rows: _take(rows, source))(positions[-kept:])
    return now._replace(
        next_window=now.next_window + is_due,
        positions=jnp.where(is_new[None, :, :, None], moved, now.positions),
        lagged=jnp.where(is_due[:, None, None, None], lagged, now.lagged),
    )

  def refine_due(now: Progress, _: None) -> tuple[Progress, None]:
    window = _find_window(now)
    is_due = window.exists & is_inside(window)
    return (
        jax.lax.cond(
            jnp.any(is_due),
            refine,
            lambda arguments: arguments[0],
            (now, window, is_due),
        ),
        None,
    )

  # A query in the middle may need one window more than one at an end.
  most = math.ceil((min(capacity, num_available) - 1) / max(size - 1, 1)) + 1
  progress, _ = jax.lax.scan(refine_due, progress, None, length=most)
  return progress


def _take(
    rows: Float[Array, 'n t c'], indices: Int[Array, 'n s']
) -> Float[Array, 'n s c']:
  """Returns some frames of each row."""
  return jnp.take_along_axis(rows, indices[..., None], axis=1)


def _read_features(
    grids: Float[Array, 't h w c'],
    frames: Int[Array, 'n'],
    positions: Float[Array, 'n 2'],
) -> Float[Array, 'n c']:
  """Reads features at positions in cells."""
  return read_in_frames(
      grids, frames, jnp.flip(positions + _HALF_PIXEL, axis=-1)
  )


def _get_cells(positions: Cells) -> Cells:
  """Moves raster pixels to cells whose first center is at (0, 0)."""
  return (positions - _HALF_PIXEL) / _STRIDE


def _get_pixels(cells: Cells) -> Cells:
  """Undoes `_get_cells`."""
  return cells * _STRIDE + _HALF_PIXEL


def _get_query_cells(query_points: Float[Array, '*b 3']) -> Cells:
  return _get_cells(jnp.flip(query_points[..., 1:], axis=-1))


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


def _count_inputs(config: PipsPlusPlusConfig) -> int:
  """Returns the channels that the update network takes."""
  patches = config.levels * (2 * config.radius + 1) ** 2
  return (1 + len(_LAGS)) * patches + 4 * config.frequencies + 2


def _check_config(config: PipsPlusPlusConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  if len(config.channels) != len(_STAGE_STRIDES):
    raise ValueError(
        'channels must have four entries, one for each stage; got '
        f'{config.channels}'
    )
  lowest = {
      'fused_channels': 1,
      'feature_channels': 1,
      'levels': 1,
      'radius': 0,
      'frequencies': 2,
      'num_iterations': 1,
      'window': 2,
  }
  for name, low in lowest.items():
    if getattr(config, name) < low:
      raise ValueError(
          f'{name} must be at least {low}; got {getattr(config, name)}'
      )
  widths = config.block_channels
  if not widths or min(widths) < 1 or sorted(widths) != list(widths):
    raise ValueError(
        'block_channels must have an entry and never shrink; got '
        f'{config.block_channels}'
    )
  if not math.isfinite(config.late_step):
    raise ValueError(f'late_step must be finite; got {config.late_step}')
  smallest = _STRIDE * 2 ** (config.levels - 1)
  if min(config.resolution) < smallest:
    raise ValueError(
        f'resolution must be at least {smallest} with {config.levels} levels; '
        f'got {config.resolution} - choose a larger one'
    )


def list_weight_names(config: PipsPlusPlusConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  ours = 'pips_plus_plus/~/encoder/~/'
  yield WeightName('conv2d_bias', ours + 'stem', torch='fnet.conv1')
  for stage, stride in enumerate(_STAGE_STRIDES):
    for block in range(_BLOCKS_PER_STAGE):
      name = f'{ours}stage_{stage}_block_{block}/~/'
      torch = f'fnet.layer{stage + 1}.{block}.'
      for i in range(2):
        yield WeightName(
            'conv2d_bias', f'{name}conv_{i}', torch=f'{torch}conv{i + 1}'
        )
      if block == 0 and stride != 1:
        yield WeightName(
            'conv2d_bias', name + 'shortcut', torch=torch + 'downsample.0'
        )
  yield WeightName('conv2d_bias', ours + 'fuse', torch='fnet.conv2')
  yield WeightName('conv2d_bias', ours + 'output', torch='fnet.conv3')

  ours, torch = 'pips_plus_plus/~/update/~/', 'delta_block.'
  yield WeightName(
      'conv1d', ours + 'input', torch=torch + 'first_block_conv.conv'
  )
  for block in range(len(config.block_channels)):
    for i in range(2):
      yield WeightName(
          'conv1d',
          f'{ours}block_{block}/~/conv_{i}',
          torch=f'{torch}basicblock_list.{block}.conv{i + 1}.conv',
      )
  yield WeightName('linear', ours + 'output', torch=torch + 'dense')
  yield WeightName('norm', 'pips_plus_plus/~/norm', torch='norm')


def count_operations(
    config: PipsPlusPlusConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  pixels = math.prod(config.resolution) / 4
  inputs = config.channels[0]
  frame = count_convolution(pixels, 7, 3, inputs)
  for channels, stride in zip(config.channels, _STAGE_STRIDES, strict=True):
    pixels /= stride**2
    if stride != 1:
      frame += count_convolution(pixels, 1, inputs, channels)
    frame += count_convolution(pixels, 3, inputs, channels)
    frame += 3 * count_convolution(pixels, 3, channels, channels)
    inputs = channels
  cells = math.prod(config.resolution) / _STRIDE**2
  fused = config.fused_channels
  frame += count_convolution(cells, 3, sum(config.channels), fused)
  frame += count_convolution(cells, 1, fused, config.feature_channels)

  inputs = config.block_channels[0]
  weights = _TAPS * _count_inputs(config) * inputs
  for channels in config.block_channels:
    weights += _TAPS * (inputs + channels) * channels
    inputs = channels
  weights += 2 * inputs
  side = 2 * config.radius + 2
  weights += (
      (1 + len(_LAGS)) * config.levels * side**2 * config.feature_channels
  )
  return num_frames * (
      frame + num_queries * config.num_iterations * 2 * weights
  )
