"""PIPs++: tracks that are refined over many frames at once, by convolutions.

Zheng et al., "PointOdyssey: A Large-Scale Synthetic Dataset for Long-Term Point
Tracking", arXiv 2307.15055. A query is a vector q of frame features at its
point, and every track begins by standing still. `num_iterations` times,

  c_t = patches of (q . features_t), (f_{t-2} . features_t) and
        (f_{t-4} . features_t) around p_t, at four scales
  dp = network(c, p_{t+1} - p_t);  p += dp;  p is put back on the query

where f_t are the features at p_t, and the network is residual convolutions over
time, whose norms see all frames of a window. A longer video is tracked in
consecutive windows: each begins on the last frame of the one before and takes
over its vectors. Tracks run from the query's own frame to both ends of the
video.

Weights: github.com/aharley/pips2, MIT.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.models.arrows import round_query_times
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.pips_plus_plus.config import check_config
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.correlation import cells_to_pixels
from tapjax.models.pips_plus_plus.correlation import get_query_cells
from tapjax.models.pips_plus_plus.correlation import pixels_to_cells
from tapjax.models.pips_plus_plus.correlation import Pyramid
from tapjax.models.pips_plus_plus.correlation import read_features
from tapjax.models.pips_plus_plus.network import make_small_frame
from tapjax.models.pips_plus_plus.network import PipsPlusPlus
from tapjax.models.pips_plus_plus.refinement import make_recurrence
from tapjax.models.pips_plus_plus.refinement import Recurrence
from tapjax.models.pips_plus_plus.refinement import refine_windows
from tapjax.models.pips_plus_plus.refinement import UpdateTracks
from tapjax.models.segments import list_paired_blocks
from tapjax.models.segments import list_whole_video
from tapjax.models.segments import SegmentList
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.types import Tracks
from tapjax.types import TrackState

# Frame features at stride 8 and then 16, 32, ...
Features = tuple[Float[Array, 'b t _ _ c'], ...]


class QueryVectors(NamedTuple):
  """Features at the query points, and their frames in the segment.

  Vectors of queries outside of the segment are those of its nearest frame.
  """

  vectors: Float[Array, 'b n c']
  frames: Int[Array, 'b n']


@dataclasses.dataclass(frozen=True)
class PipsPlusPlusFunctions(TrackerFunctions):
  """PIPs++ as pure functions.

  Features are `Features`, query features `QueryVectors`, and the memory between
  segments of a long video is a `Recurrence`.
  """

  config: PipsPlusPlusConfig
  platform: str = dataclasses.field(default_factory=jax.default_backend)

  def __post_init__(self) -> None:
    check_config(self.config)

  @functools.cached_property
  def _network(self) -> Network:
    return make_network(
        lambda: PipsPlusPlus(self.config, self.platform),
        ('encode_frame', 'update'),
        lambda: (make_small_frame(self.config),),
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
  ) -> Features:
    """Encodes every frame by itself."""
    del num_frames
    batch, length = video.shape[:2]
    grids = map_frames(
        lambda frame: self._network.apply('encode_frame', params, frame),
        video.reshape(batch * length, *video.shape[2:]),
        platform=self.platform,
    )
    return jax.tree.map(
        lambda grid: grid.reshape(batch, length, *grid.shape[1:]), grids
    )

  @with_precision
  def describe_queries(
      self,
      params: Params,
      features: Features,
      query_points: Float[Array, 'b n 3'],
  ) -> QueryVectors:
    """Interpolates the finest grid at the query points."""
    del params
    frames = round_query_times(query_points)
    vectors = map_batch(
        read_features,
        features[0],
        jnp.clip(frames, 0, features[0].shape[1] - 1),
        get_query_cells(query_points),
    )
    return QueryVectors(vectors, frames)

  def begin(
      self,
      query_points: Float[Array, 'b n 3'],
      num_frames: NumFrames | None = None,
      capacity: int | None = None,
  ) -> Recurrence | None:
    """Returns tracks that stand still; None where the video is one segment."""
    if num_frames is None or capacity is None:
      return None
    batch, count = query_points.shape[:2]
    cells = get_query_cells(query_points)
    return map_batch(
        lambda *video: make_recurrence(self.config, *video),
        jnp.repeat(jnp.asarray(num_frames, jnp.int32)[None], batch),
        query_points[..., 0],
        jnp.zeros((batch, count, self.config.feature_channels), jnp.float32),
        jnp.repeat(cells[:, :, None], capacity, axis=2),
    )

  def initialize_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryVectors,
      query_points: Float[Array, 'b n 3'] | None,
      memory: Recurrence | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Repeats the query: every track begins by standing still."""
    del params, query_features, memory, target_points
    if query_points is None:
      raise ValueError(
          'query_points must be given to PIPs++, which cannot search for them;'
          ' got None'
      )
    positions = jnp.flip(query_points[..., 1:], axis=-1)[:, :, None]
    num_frames = features[0].shape[1]
    return TrackState(jnp.repeat(positions, num_frames, axis=2), None, None)

  @with_precision
  def refine_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryVectors,
      state: TrackState,
      memory: Recurrence | None = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, Recurrence | None]:
    """Refines all windows of every track that lie in the segment.

    Returns:
      Without a memory one state more than iterations: as the network gives
      them, which is what a loss compares, and then the answer, in which tracks
      are back on their queries. With a memory the answer alone, `[1, b, n, t]`;
      frames that no window has reached yet hold a preliminary position.
    """
    del target_points
    if memory is not None:
      if query_points is None:
        raise ValueError('query_points must be given with a memory; got None')
      positions, memory = map_batch(
          lambda *video: self._refine_segment(params, *video),
          features,
          query_features.vectors,
          query_points[..., 0],
          memory,
      )
      return TrackState(positions[None], None, None), memory
    length = features[0].shape[1]
    num_frames = length if valid is None else valid.num_frames
    positions = map_batch(
        lambda *video: self._refine_video(params, num_frames, *video),
        features,
        query_features,
        state.positions,
    )
    return TrackState(positions.swapaxes(0, 1), None, None), None

  def _refine_video(
      self,
      params: Params,
      num_frames: int | NumFrames,
      pyramid: Pyramid,
      queries: QueryVectors,
      positions: Float[Array, 'n t 2'],
  ) -> Float[Array, 'i n t 2']:
    """Returns positions after each iteration, and the answer."""
    cells = pixels_to_cells(positions)
    recurrence = make_recurrence(
        self.config,
        num_frames,
        queries.frames.astype(jnp.float32),
        queries.vectors,
        jnp.repeat(cells[None], self.config.num_iterations + 1, axis=0),
    )
    recurrence = refine_windows(self._bind(params), pyramid, 0, recurrence)
    return cells_to_pixels(recurrence.positions)

  def _refine_segment(
      self,
      params: Params,
      pyramid: Pyramid,
      vectors: Float[Array, 'n c'],
      times: Float[Array, 'n'],
      memory: Recurrence,
  ) -> tuple[Float[Array, 'n t 2'], Recurrence]:
    """Returns the answer on the frames of a segment, and the memory.

    `times` of the queries are counted from the segment's first frame.
    """
    first_frame = jnp.round(memory.times - times)[0].astype(jnp.int32)
    frames = memory.frames - first_frame
    length = pyramid[0].shape[0]
    is_inside = (frames >= 0) & (frames < length)
    memory = memory._replace(
        vectors=jnp.where(is_inside[:, None], vectors, memory.vectors),
        positions=memory.positions[None],
    )
    memory = refine_windows(self._bind(params), pyramid, first_frame, memory)
    positions = memory.positions[-1]
    segment = jnp.take(
        positions, first_frame + jnp.arange(length), axis=1, mode='clip'
    )
    return cells_to_pixels(segment), memory._replace(positions=positions)

  def _bind(self, params: Params) -> UpdateTracks:
    return UpdateTracks(
        self.config,
        self.platform,
        lambda *inputs: self._network.apply('update', params, *inputs),
    )

  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Returns the answer; PIPs++ takes every point as visible."""
    positions = states.positions[-1]
    return Tracks(positions, jnp.ones(positions.shape[:-1], bool), None, None)

  def list_segments(
      self,
      num_frames: int,
      query_frames: Int[np.ndarray, 'n'],
      window: int | None = None,
  ) -> SegmentList:
    """Returns pairs of blocks of a window each, for more than two windows."""
    if window is not None:
      self.check_window(window)
    if num_frames <= 2 * self.config.window:
      return list_whole_video(num_frames)
    # Blocks of even length: a time halfway between two frames is rounded to an
    # even frame, in the video as in a segment.
    block = self.config.window + self.config.window % 2
    return list_paired_blocks(
        num_frames, block, int(query_frames.min()), int(query_frames.max())
    )

  def check_window(self, window: int) -> None:
    """Raises ValueError: windows are those of the network."""
    raise ValueError(
        'window must be None for a tracker that goes through a video piece by '
        f'piece anyway; got {window} - leave it out'
    )
