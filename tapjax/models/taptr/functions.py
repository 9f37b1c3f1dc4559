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
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.models.base import Extent
from tapjax.models.base import get_query_frames
from tapjax.models.base import make_stages
from tapjax.models.base import NumFrames
from tapjax.models.base import Params
from tapjax.models.base import set_precision
from tapjax.models.base import Stages
from tapjax.models.base import TrackerFunctions
from tapjax.models.taptr.network import check_config
from tapjax.models.taptr.network import compute_logit
from tapjax.models.taptr.network import LayerOutputs
from tapjax.models.taptr.network import NUM_CLASSES
from tapjax.models.taptr.network import Taptr
from tapjax.models.taptr.network import TaptrConfig
from tapjax.models.taptr.network import touch
from tapjax.models.taptr.network import Window
from tapjax.nn.torchvision_resnet import count_resnet
from tapjax.ops.deformable import count_tokens
from tapjax.ops.deformable import read_samples
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

_DROPOUT = 0.6
_VISIBLE = 1
# Longer videos than those of training pass vectors on after fewer windows.
_TRAINED_FRAMES = 24


class QueryFeatures(NamedTuple):
  """What each query looks like, and where it is: (t, y, x) in pixels."""

  vectors: Float[Array, 'b n c']
  points: Float[Array, 'b n 3']


class WindowMemory(NamedTuple):
  """What windows leave to those after them, for a whole video."""

  vectors: Float[Array, 't n c']
  outputs: LayerOutputs


class Schedule(NamedTuple):
  """The windows of a video, in the order in which they are tracked.

  Attributes:
    starts: first frame of each.
    exists: False for those behind the last one.
    passes_on: whether the vectors of its last frame go to all frames beyond.
  """

  starts: Int[Array, 'w']
  exists: Bool[Array, 'w']
  passes_on: Bool[Array, 'w']


def count_windows(num_frames: int | NumFrames, window: int) -> int | NumFrames:
  """Returns how many windows overlap by half in at least one window."""
  return -((window - num_frames) // (window // 2)) + 1


def plan_windows(
    num_frames: int | NumFrames, window: int, most: int
) -> Schedule:
  """Returns windows that overlap by half, the last one as far as needed.

  In long videos only some windows pass vectors on to the frames beyond them.
  The schedule is that of `num_frames`, at least a window, and has `most` rows.
  """
  index = jnp.arange(most)
  gap = jnp.maximum(1, num_frames // _TRAINED_FRAMES)
  return Schedule(
      starts=jnp.minimum(window // 2 * index, num_frames - window),
      exists=index < count_windows(num_frames, window),
      passes_on=index % gap == 0,
  )


def track_windows(
    apply: Callable[..., Any],
    config: TaptrConfig,
    tokens: Float[Array, 't s c'],
    vectors: Float[Array, 'n c'],
    query_frames: Int[Array, 'n'],
    start: LayerOutputs,
    is_forward: Bool[Array, ''],
    dropout_key: Array | None = None,
    extent: Extent | None = None,
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
    is_forward: whether to go to the last frame, or else to the first.
    dropout_key: drops out part of what vectors learn from window to window.
    extent: how much of tokens and vectors is true, if not all.

  Returns:
    What each layer says, for the losses; the last one's is the result.
  """
  capacity, window = len(tokens), config.window
  num_frames, num_queries = extent or (capacity, len(vectors))
  is_query = jnp.arange(len(vectors)) < num_queries
  # A short video is continued by the frame at its end.
  missing = jnp.maximum(0, window - num_frames)
  before = jnp.where(is_forward, 0, missing)
  longest = max(capacity, window)
  # How much of a padded video is missing is not known yet.
  frames = jnp.arange(longest if extent is None else capacity + window)
  video_frames = jnp.clip(frames - before, 0, num_frames - 1)
  query_frames = query_frames + before
  continued = num_frames + missing
  schedule = plan_windows(
      continued, window, int(count_windows(longest, window))
  )
  starts = schedule.starts
  starts = jnp.where(is_forward, starts, continued - window - starts)
  sign = jnp.where(is_forward, 1, -1)
  all_tokens = tokens.reshape(-1, tokens.shape[-1])

  def step(memory: WindowMemory, now: Schedule) -> tuple[WindowMemory, None]:
    first_frame, exists, passes_on = now
    window_frames = first_frame + jnp.arange(config.window)
    last_frame = jnp.where(is_forward, window_frames[-1], first_frame)
    is_beyond = sign * (frames - last_frame) > 0
    age = sign * (window_frames[:, None] - query_frames[None])
    # Points attend to those that are tracked, too.
    age = jnp.where(is_query[None], age, -1)

    def take(array: Array, axis: int) -> Array:
      return jax.lax.dynamic_slice_in_dim(
          array, first_frame, config.window, axis
      )

    def put(array: Array, part: Array, axis: int) -> Array:
      return jax.lax.dynamic_update_slice_in_dim(array, part, first_frame, axis)

    def pass_on(array: Array, axis: int) -> Array:
      last = jax.lax.dynamic_index_in_dim(array, last_frame, axis)
      shape = [1] * array.ndim
      shape[axis] = -1
      return jnp.where(is_beyond.reshape(shape), last, array)

    def track(memory: WindowMemory) -> WindowMemory:
      old = jax.tree.map(lambda array: take(array, 1), memory.outputs)
      before_vectors = take(memory.vectors, 0)
      window = Window(
          before_vectors,
          old.boxes[-1],
          video_frames[window_frames] * tokens.shape[1],
          tracked=age >= 0,
          updating=age > 0,
      )
      new, after_vectors = apply('decode_window', window, all_tokens)
      outputs = jax.tree.map(
          lambda array, part, old: pass_on(
              put(array, jnp.where(age[None, ..., None] > 0, part, old), 1), 1
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
      if dropout_key is not None:
        key = jax.random.fold_in(dropout_key, first_frame)
        is_kept = jax.random.bernoulli(key, 1 - _DROPOUT, change.shape)
        change = jnp.where(is_kept, change / (1 - _DROPOUT), 0)
      change = jnp.where(age[..., None] > 0, change, 0)
      changed = put(memory.vectors, before_vectors + change, 0)
      changed = jnp.where(passes_on, pass_on(changed, 0), changed)
      return WindowMemory(changed, outputs)

    # Nothing is passed on by windows that have nothing to track.
    memory = jax.lax.cond(
        exists & jnp.any(age > 0), track, lambda memory: memory, memory
    )
    return memory, None

  outputs = jax.tree.map(
      lambda array: jnp.broadcast_to(
          array[video_frames][None],
          (config.decoder_layers, len(frames), *array.shape[1:]),
      ),
      start,
  )
  vectors_everywhere = jnp.broadcast_to(
      vectors[None], (len(frames), *vectors.shape)
  )
  memory, _ = jax.lax.scan(
      step,
      WindowMemory(vectors_everywhere, outputs),
      schedule._replace(starts=starts),
  )
  return jax.tree.map(
      lambda array: jax.lax.dynamic_slice_in_dim(array, before, capacity, 1),
      memory.outputs,
  )


@functools.cache
def make_functions(config: TaptrConfig) -> TrackerFunctions:
  """Returns TAPTRv2 as pure functions; see `TrackerFunctions`.

  Equal configs get the same functions, and so share what was compiled.

  Features are the tokens of every frame, query features `QueryFeatures`.
  """
  stages = _make_stages(config)

  def encode_video(
      params: Params,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Float[Array, 'b t s c']:
    del num_frames  # Every frame is encoded by itself.
    frames = video.reshape(-1, *video.shape[2:])

    # For gradients a frame's layers are computed again, one frame at a time.
    @jax.checkpoint
    def encode(
        params: Params, frame: Float[Array, 'h w 3']
    ) -> Float[Array, 's c']:
      return stages.apply('encode_frame', params, frame)

    tokens = map_frames(lambda frame: encode(params, frame), frames)
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
          _align_corners(pixels_to_shares(points[:, :0:-1], config), config),
          get_query_frames(points, len(tokens)) * tokens.shape[1],
      )
      levels = samples.values.reshape(len(points), -1)
      return stages.apply('describe', params, levels)

    return QueryFeatures(
        map_batch(describe, features, query_points), query_points
    )

  def initialize_tracks(
      params: Params,
      features: Float[Array, 'b t s c'],
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: None = None,
  ) -> TrackState:
    del params, query_points, memory  # Points begin where they were described.
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
      memory: PyTree | None = None,
      extent: Extent | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
  ) -> tuple[TrackState, None]:
    del query_points  # The state begins at them.
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
      num_frames = len(tokens) if extent is None else extent.num_frames
      query_frames = get_query_frames(queries.points, num_frames)
      start = _make_start(state, config)

      def track(is_forward: Bool[Array, '']) -> LayerOutputs:
        return track_windows(
            lambda method, *rest: stages.apply(method, params, *rest),
            config,
            tokens,
            queries.vectors,
            query_frames,
            start,
            is_forward,
            extent=extent,
        )

      # One program for both ways.
      both = jax.lax.map(track, jnp.asarray([True, False]))
      frames = jnp.arange(len(tokens))[:, None]
      is_forward = (frames >= query_frames[None])[None, ..., None]
      boxes, classes = (
          jnp.where(is_forward, outputs[0], outputs[1]).swapaxes(1, 2)
          for outputs in (both.boxes, both.classes)
      )
      return TrackState(
          shares_to_pixels(jax.nn.sigmoid(boxes[..., :2]), config),
          -classes[..., _VISIBLE],
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


def predict_layers(
    config: TaptrConfig,
    params: Params,
    features: Float[Array, 'b t s c'],
    query_features: QueryFeatures,
    dropout_key: Array | None = None,
) -> LayerOutputs:
  """Returns what every layer says, for losses: `[b, i, t, n, ...]`.

  Points are tracked forward alone. What precedes their queries, and what is on
  the queries' own frames, is the query.
  """
  stages = _make_stages(config)

  def predict(
      tokens: Float[Array, 't s c'], queries: QueryFeatures
  ) -> LayerOutputs:
    positions = jnp.broadcast_to(
        queries.points[:, None, :0:-1], (len(queries.points), len(tokens), 2)
    )
    visible = -jnp.ones(positions.shape[:2], positions.dtype)
    return track_windows(
        lambda method, *rest: stages.apply(method, params, *rest),
        config,
        tokens,
        queries.vectors,
        get_query_frames(queries.points, len(tokens)),
        _make_start(TrackState(positions, visible, None), config),
        jnp.ones((), bool),
        dropout_key,
    )

  with jax.default_matmul_precision(config.precision):
    return map_batch(predict, features, query_features)


def _make_stages(config: TaptrConfig) -> Stages:
  check_config(config)
  return make_stages(
      lambda: Taptr(config),
      ('encode_frame', 'describe', 'decode_window', 'update_vectors'),
      lambda module: touch(module, config),
  )


def _make_start(state: TrackState, config: TaptrConfig) -> LayerOutputs:
  """Returns what is believed before the first window, time first."""
  assert state.occlusion_logits is not None, 'TAPTRv2 estimates them'
  shares = pixels_to_shares(state.positions.swapaxes(0, 1), config)
  visible = -state.occlusion_logits.T
  logits = compute_logit(shares)
  zeros = jnp.zeros_like(logits)
  boxes = jnp.concatenate([logits, zeros], axis=-1)
  classes = [jnp.zeros_like(visible)] * NUM_CLASSES
  classes[_VISIBLE] = visible
  return LayerOutputs(boxes, jax.nn.sigmoid(boxes), jnp.stack(classes, axis=-1))


def pixels_to_shares(
    positions: Float[Array, '*n 2'], config: TaptrConfig
) -> Float[Array, '*n 2']:
  """Returns raster (x, y) in the network's coordinates, about 0 to 1."""
  side = config.resolution[0]
  if config.ends == 'edges':
    return positions / side
  return (positions - 0.5) / (side - 1)


def shares_to_pixels(
    shares: Float[Array, '*n 2'], config: TaptrConfig
) -> Float[Array, '*n 2']:
  """Undoes `pixels_to_shares`."""
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
  frame += (
      2.0
      * channels
      * sum(
          height * width * inputs
          for (height, width), inputs in zip(
              config.sizes, config.backbone.output_channels, strict=True
          )
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
  num_windows = count_windows(max(num_frames, config.window), config.window)
  entries = int(num_windows) * config.window * num_queries
  return (
      num_frames * frame
      + 2.0 * entries * (config.decoder_layers * point + 4 * channels**2)
      + 2.0 * num_queries * config.num_levels * channels**2
  )
