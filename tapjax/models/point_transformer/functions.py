"""The point transformer: a window of tracks from their first positions.

A small baseline. A residual network describes every frame by a grid of cells,
32 pixels wide, and one transformer sees all points on all frames of a window,

  token(t, n) = grid_t at p_n + embedding(p_n) + sines(index of the token)
  position(t, n) = p_n + head(transformer(tokens)(t, n))

where p_n is the first position of point n. Every frame is read there and
nowhere else, so a point that goes far cannot be followed. Visibility is not
estimated.

It was trained on windows of eight frames and sets of eight points, which see
each other. So points that are asked on the same frame are tracked in sets of
that size, in the order of the queries; a set that is not full gets points in
the middle of the frame, as in training. A longer video is tracked window after
window, each of which begins where the one before ends, from the query's frame
to both ends of the video; a window that reaches beyond one sees the last frame
again and again. A shorter video is a window of its own length.

Weights: none are published; files of the training program load.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Key

from tapjax.geometry import normalized_to_pixels
from tapjax.geometry import pixels_to_normalized
from tapjax.models.arrows import get_query_frames
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.point_transformer.config import check_config
from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.point_transformer.network import make_small_image
from tapjax.models.point_transformer.network import PointTransformer
from tapjax.models.point_transformer.windows import assign_sets
from tapjax.models.point_transformer.windows import sample_points
from tapjax.models.point_transformer.windows import track_set
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

_CENTER = 0.5


class Prediction(NamedTuple):
  """Result of a window in training.

  Attributes:
    positions_unit: normalized (x, y) on every frame, the first included.
    attention: of each block, shares that each token (second to last axis) takes
      of each other; indices of tokens are frame times points plus point.
    statistics: updated batch-norm statistics.
  """

  positions_unit: Float[Array, 'b t n 2']
  attention: tuple[Float[Array, 'b k s s'], ...]
  statistics: PyTree


@dataclasses.dataclass(frozen=True)
class PointTransformerFunctions(TrackerFunctions):
  """A point transformer as pure functions.

  Features are the grids of every frame, query features the query points.
  """

  config: PointTransformerConfig
  platform: str = dataclasses.field(default_factory=jax.default_backend)

  queries_independent = False

  def __post_init__(self) -> None:
    check_config(self.config)

  @property
  def shortest_padded(self) -> int:  # type: ignore[override]
    """Frames of a window: a shorter video is a window of its own length."""
    return self.config.window

  @functools.cached_property
  def _network(self) -> Network:
    return self._make_network(None)

  def _make_network(self, axis: str | None) -> Network:
    """Returns the network; norms see all shards of an axis in training."""
    return make_network(
        lambda: PointTransformer(self.config, axis=axis),
        ('encode', 'encode_for_training', 'predict'),
        lambda: (make_small_image(),),
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
  ) -> Float[Array, 'b t _ _ c']:
    """Encodes every frame by itself."""
    del num_frames
    grids = map_frames(
        lambda frame: self._network.apply('encode', params, frame[None])[0],
        get_colors(video).reshape(-1, *video.shape[2:]),
        platform=self.platform,
    )
    return grids.reshape(*video.shape[:2], *grids.shape[1:])

  def describe_queries(
      self,
      params: Params,
      features: Float[Array, 'b t h w c'],
      query_points: Float[Array, 'b n 3'],
  ) -> Float[Array, 'b n 3']:
    """Returns the points: every frame is read there, in the refinement."""
    del params, features
    return query_points

  def initialize_tracks(
      self,
      params: Params,
      features: Float[Array, 'b t h w c'],
      query_features: Float[Array, 'b n 3'],
      query_points: Float[Array, 'b n 3'] | None,
      memory: None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Repeats the query: every track begins by standing still."""
    del params, query_points, memory, target_points
    positions = jnp.flip(query_features[..., 1:], axis=-1)[:, :, None]
    return TrackState(
        jnp.repeat(positions, features.shape[1], axis=2), None, None
    )

  @with_precision
  def refine_tracks(
      self,
      params: Params,
      features: Float[Array, 'b t h w c'],
      query_features: Float[Array, 'b n 3'],
      state: TrackState,
      memory: PyTree = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, None]:
    """Tracks sets of points to both ends of the video.

    Returns:
      The answer alone, `[1, b, n, t]`.
    """
    del query_points, target_points
    if memory is not None:
      raise ValueError(
          'memory must be None for a point transformer, which tracks to both '
          'ends of a video; got one - use a causal preset, such as '
          'causal_bootstapir'
      )
    positions = map_batch(
        functools.partial(self._track, params, valid=valid),
        features,
        query_features,
        state.positions,
    )
    return TrackState(positions[None], None, None), None

  def _track(
      self,
      params: Params,
      grids: Float[Array, 't h w c'],
      query_points: Float[Array, 'n 3'],
      positions: Float[Array, 'n t 2'],
      valid: ValidLength | None,
  ) -> Float[Array, 'n t 2']:
    """Tracks the sets of one video, one after the other."""
    num_frames, num_queries = valid or (len(grids), len(query_points))
    frames = get_query_frames(query_points, num_frames)
    points_unit = pixels_to_normalized(
        jnp.take_along_axis(positions, frames[:, None, None], axis=1)[:, 0],
        self.config.resolution,
    )
    tracks, _ = jax.lax.scan(
        lambda tracks, rows: (
            jax.lax.cond(
                rows[0] == len(frames),
                lambda tracks: tracks,
                lambda tracks: self._add_set(
                    params,
                    grids,
                    tracks,
                    points_unit.at[rows].get(mode='fill', fill_value=_CENTER),
                    rows,
                    frames[rows[0]],
                    num_frames,
                ),
                tracks,
            ),
            None,
        ),
        jnp.zeros_like(positions),
        assign_sets(frames, self.config.num_points, num_queries),
    )
    return normalized_to_pixels(tracks, self.config.resolution)

  def _add_set(
      self,
      params: Params,
      grids: Float[Array, 't h w c'],
      tracks: Float[Array, 'n t 2'],
      points_unit: Float[Array, 'm 2'],
      rows: Int[Array, 'm'],
      query_frame: Int[Array, ''],
      num_frames: int | NumFrames,
  ) -> Float[Array, 'n t 2']:
    """Returns normalized tracks with those of one set, at its rows."""
    found = track_set(
        lambda samples, points: self._network.apply(
            'predict', params, samples[None], points[None]
        )[0][0],
        self.config.window,
        grids,
        points_unit,
        query_frame,
        num_frames,
    )
    return tracks.at[rows].set(found.swapaxes(0, 1), mode='drop')

  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Returns the answer; every point is taken as visible."""
    positions = states.positions[-1]
    return Tracks(positions, jnp.ones(positions.shape[:-1], bool), None, None)

  @with_precision
  def predict_clips(
      self,
      params: Params,
      video: Float[Array, 'b t h w 3'],
      points_unit: Float[Array, 'b n 2'],
      keys: Key[Array, 'b'] | None = None,
      axis: str | None = None,
  ) -> Prediction:
    """Returns the positions of points of the first frame, in one window.

    Args:
      params: learned arrays.
      video: of any size, in [-1, 1].
      points_unit: normalized (x, y) on the first frame.
      keys: of each clip, for training: values are dropped out, and norms are
        those of the batch.
      axis: of the mapped function whose shards are that batch together.
    """
    network = self._network if axis is None else self._make_network(axis)
    method = 'encode' if keys is None else 'encode_for_training'
    batch, num_frames = video.shape[:2]
    grids, statistics = network.apply_with_statistics(
        method, params, None, get_colors(video).reshape(-1, *video.shape[2:])
    )
    grids = grids.reshape(batch, num_frames, *grids.shape[1:])
    samples = jax.vmap(
        lambda grid, points: sample_points(grid, jnp.arange(num_frames), points)
    )(grids, points_unit)
    positions, attention = network.apply(
        'predict', params, samples, points_unit, keys
    )
    return Prediction(positions, attention, statistics)


def get_colors(video: Float[Array, '*b 3']) -> Float[Array, '*b 3']:
  """Returns colors in [0, 1], as the network takes them."""
  return (video + 1) / 2
