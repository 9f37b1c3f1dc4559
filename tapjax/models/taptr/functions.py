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

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

from tapjax.models.arrows import get_query_frames
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.taptr.config import check_config
from tapjax.models.taptr.config import TaptrConfig
from tapjax.models.taptr.coordinates import align_corners
from tapjax.models.taptr.coordinates import normalized_to_pixels
from tapjax.models.taptr.coordinates import pixels_to_normalized
from tapjax.models.taptr.layers import compute_logit
from tapjax.models.taptr.network import LayerOutputs
from tapjax.models.taptr.network import make_black_frame
from tapjax.models.taptr.network import NUM_CLASSES
from tapjax.models.taptr.network import Taptr
from tapjax.models.taptr.windows import track_windows
from tapjax.ops.deformable import read_samples
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

_VISIBLE = 1


class QueryFeatures(NamedTuple):
  """Vectors of the queries, and their points (t, y, x) in pixels."""

  vectors: Float[Array, 'b n c']
  points: Float[Array, 'b n 3']


@dataclasses.dataclass(frozen=True)
class TaptrFunctions(TrackerFunctions):
  """TAPTRv2 as pure functions.

  Features are the tokens of every frame, query features `QueryFeatures`.
  """

  config: TaptrConfig
  platform: str = dataclasses.field(default_factory=jax.default_backend)

  queries_independent = False

  def __post_init__(self) -> None:
    check_config(self.config)

  @functools.cached_property
  def _network(self) -> Network:
    return make_network(
        lambda: Taptr(self.config, self.platform),
        ('encode_frame', 'describe', 'decode_window', 'update_vectors'),
        lambda: (make_black_frame(self.config),),
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
  ) -> Float[Array, 'b t s c']:
    """Encodes every frame by itself."""
    del num_frames
    frames = video.reshape(-1, *video.shape[2:])
    # For gradients a frame's layers are computed again, one frame at a time.
    encode = jax.checkpoint(
        functools.partial(self._network.apply, 'encode_frame')
    )
    tokens = map_frames(
        lambda frame: encode(params, frame), frames, platform=self.platform
    )
    return tokens.reshape(*video.shape[:2], *tokens.shape[1:])

  @with_precision
  def describe_queries(
      self,
      params: Params,
      features: Float[Array, 'b t s c'],
      query_points: Float[Array, 'b n 3'],
  ) -> QueryFeatures:
    """Projects samples of all levels at the query points."""
    vectors = map_batch(
        lambda *video: self._describe(params, *video), features, query_points
    )
    return QueryFeatures(vectors, query_points)

  def _describe(
      self,
      params: Params,
      tokens: Float[Array, 't s c'],
      points: Float[Array, 'n 3'],
  ) -> Float[Array, 'n c']:
    config = self.config
    normalized = pixels_to_normalized(points[:, :0:-1], config)
    samples = read_samples(
        tokens.reshape(-1, tokens.shape[-1]),
        config.sizes,
        align_corners(normalized, config),
        get_query_frames(points, len(tokens)) * tokens.shape[1],
    )
    levels = samples.values.reshape(len(points), -1)
    return self._network.apply('describe', params, levels)

  def initialize_tracks(
      self,
      params: Params,
      features: Float[Array, 'b t s c'],
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Repeats the query: every track begins by standing still, visible."""
    del params, query_points, memory, target_points
    points = query_features.points[:, :, None, :0:-1]
    shape = (*points.shape[:2], features.shape[1])
    return TrackState(
        jnp.broadcast_to(points, (*shape, 2)),
        jnp.full(shape, -1, points.dtype),
        None,
    )

  @with_precision
  def refine_tracks(
      self,
      params: Params,
      features: Float[Array, 'b t s c'],
      query_features: QueryFeatures,
      state: TrackState,
      memory: PyTree = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, None]:
    """Tracks windows to both ends of the video.

    Returns:
      States after each decoder layer; the last one is the answer.
    """
    del query_points, target_points
    if memory is not None:
      raise ValueError(
          'memory must be None for TAPTRv2, which tracks to both ends of a '
          'video; got one - use a causal preset, such as causal_bootstapir'
      )
    states = map_batch(
        functools.partial(self._refine, params, valid=valid),
        features,
        query_features,
        state,
    )
    return jax.tree.map(lambda array: array.swapaxes(0, 1), states), None

  def _refine(
      self,
      params: Params,
      tokens: Float[Array, 't s c'],
      queries: QueryFeatures,
      state: TrackState,
      valid: ValidLength | None,
  ) -> TrackState:
    """Returns the states of the tracks of one video after each layer."""
    num_frames = len(tokens) if valid is None else valid.num_frames
    query_frames = get_query_frames(queries.points, num_frames)
    start = make_start(state, self.config)
    # One program for both directions.
    both = jax.lax.map(
        lambda is_forward: self._track_windows(
            params,
            tokens,
            queries.vectors,
            query_frames,
            start,
            is_forward,
            valid=valid,
        ),
        jnp.asarray([True, False]),
    )
    frames = jnp.arange(len(tokens))[:, None]
    is_forward = (frames >= query_frames[None])[None, ..., None]
    boxes, classes = (
        jnp.where(is_forward, outputs[0], outputs[1]).swapaxes(1, 2)
        for outputs in (both.boxes, both.classes)
    )
    return TrackState(
        normalized_to_pixels(jax.nn.sigmoid(boxes[..., :2]), self.config),
        -classes[..., _VISIBLE],
        None,
    )

  def _track_windows(
      self,
      params: Params,
      tokens: Float[Array, 't s c'],
      vectors: Float[Array, 'n c'],
      query_frames: Array,
      start: LayerOutputs,
      is_forward: Bool[Array, ''],
      dropout_key: Array | None = None,
      valid: ValidLength | None = None,
  ) -> LayerOutputs:
    return track_windows(
        lambda method, *rest: self._network.apply(method, params, *rest),
        self.config,
        tokens,
        vectors,
        query_frames,
        start,
        is_forward,
        dropout_key,
        valid,
    )

  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Returns the states of the last layer."""
    last = jax.tree.map(lambda array: array[-1], states)
    visible = last.occlusion_logits < 0
    return Tracks(last.positions, visible, last.occlusion_logits, None)

  @with_precision
  def predict_layers(
      self,
      params: Params,
      features: Float[Array, 'b t s c'],
      query_features: QueryFeatures,
      dropout_key: Array | None = None,
  ) -> LayerOutputs:
    """Returns the outputs of every layer, for losses: `[b, i, t, n, ...]`.

    Points are tracked forward alone. Frames before their queries, and the
    queries' own frames, hold the query.
    """
    return map_batch(
        functools.partial(self._predict, params, dropout_key=dropout_key),
        features,
        query_features,
    )

  def _predict(
      self,
      params: Params,
      tokens: Float[Array, 't s c'],
      queries: QueryFeatures,
      dropout_key: Array | None,
  ) -> LayerOutputs:
    positions = jnp.broadcast_to(
        queries.points[:, None, :0:-1], (len(queries.points), len(tokens), 2)
    )
    visible = -jnp.ones(positions.shape[:2], positions.dtype)
    return self._track_windows(
        params,
        tokens,
        queries.vectors,
        get_query_frames(queries.points, len(tokens)),
        make_start(TrackState(positions, visible, None), self.config),
        jnp.ones((), bool),
        dropout_key,
    )


def make_start(state: TrackState, config: TaptrConfig) -> LayerOutputs:
  """Returns outputs of a layer before the first window, time first."""
  assert state.occlusion_logits is not None, 'TAPTRv2 estimates them'
  normalized = pixels_to_normalized(state.positions.swapaxes(0, 1), config)
  visible = -state.occlusion_logits.T
  logits = compute_logit(normalized)
  zeros = jnp.zeros_like(logits)
  boxes = jnp.concatenate([logits, zeros], axis=-1)
  classes = [jnp.zeros_like(visible)] * NUM_CLASSES
  classes[_VISIBLE] = visible
  return LayerOutputs(boxes, jax.nn.sigmoid(boxes), jnp.stack(classes, axis=-1))
