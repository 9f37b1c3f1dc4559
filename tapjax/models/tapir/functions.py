"""TAPIR: tracking any point with per-frame initialization and refinement.

Doersch et al., "TAPIR: Tracking Any Point with per-frame Initialization and
temporal Refinement", arXiv 2306.08637; the causal version in Vecerik et al.,
"RoboTAP", arXiv 2308.15975; more training and five more convolutions in Doersch
et al., "BootsTAP: Bootstrapped Training for Tracking-Any-Point", 2402.00847.

A query is a vector q of frame features at its point. On every frame t, alone:

  heatmap_t = softmax(temperature * conv(q . features_t))
  p_t = soft_argmax(heatmap_t);  (o_t, e_t) = mlp(conv(q . features_t))

and then, `num_iterations` times and for all frames of a track together,

  c_t = patches of (f_t . features_t) around p_t, at several scales
  (dp, do, de, df) = mixer(o, e, f, c);  p += dp, o += do, e += de, f += df

where f starts as q. With more than one resolution the refinement is repeated on
each, and their last iterations are averaged.

Weights: github.com/google-deepmind/tapnet, Apache 2.0.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.models.arrows import pass_through_queries
from tapjax.models.arrows import prepend_guess
from tapjax.models.contract import DimSize
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.multires import average_levels
from tapjax.models.multires import estimate_confidence
from tapjax.models.multires import get_logits
from tapjax.models.multires import refine_levels
from tapjax.models.multires import Refinement
from tapjax.models.segments import list_consecutive_segments
from tapjax.models.segments import SegmentList
from tapjax.models.tapir.config import check_config
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.correlation import correlate_tracks
from tapjax.models.tapir.correlation import Grids
from tapjax.models.tapir.correlation import join_inputs
from tapjax.models.tapir.correlation import QueryVectors
from tapjax.models.tapir.correlation import Vectors
from tapjax.models.tapir.network import make_small_frame
from tapjax.models.tapir.network import MIXER_MULTIPLIER
from tapjax.models.tapir.network import STATE_CHANNELS
from tapjax.models.tapir.network import Tapir
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.cost_volume import score_positions
from tapjax.nn.mixer import BlockMemory
from tapjax.nn.mixer import TAPS
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_at_time
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

# One of each per distinct resolution, in the order of `encoded_resolutions`:
# `FeatureGrids` and `QueryVectors`, or those of a tracker with more fields.
Features = tuple[Grids, ...]
QueryFeatures = tuple[Vectors, ...]
# `TapirMemory`, or that of a tracker with more fields.
Memory = Any


class TapirMemory(NamedTuple):
  """Memory of the mixer, `BlockMemory` of every level and iteration."""

  inputs: Float[Array, 'b i k n 2 c']
  hidden: Float[Array, 'b i k n 2 m c']


@dataclasses.dataclass(frozen=True)
class TapirFunctions(TrackerFunctions):
  """TAPIR as pure functions.

  Features are a tuple of `FeatureGrids`, query features one of `QueryVectors`.
  """

  config: TapirConfig
  platform: str = dataclasses.field(default_factory=jax.default_backend)

  def __post_init__(self) -> None:
    check_config(self.config)

  @property
  def streams(self) -> bool:  # type: ignore[override]
    """Whether the refinement sees the past alone."""
    return self.config.temporal == 'past'

  @functools.cached_property
  def _network(self) -> Network:
    return make_network(
        lambda: Tapir(self.config, self.platform),
        ('encode_frame', 'estimate_frame', 'mix'),
        lambda: (make_small_frame(self.config),),
    )

  @property
  def _first_level(self) -> int:
    """Index of the features in which tracks are initialized."""
    resolutions = self.config.encoded_resolutions
    return resolutions.index(self.config.first_resolution)

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
    """Encodes every frame by itself, at each distinct resolution."""
    del num_frames
    return tuple(
        self._encode_at(params, video, resolution)
        for resolution in self.config.encoded_resolutions
    )

  def _encode_at(
      self,
      params: Params,
      video: Float[Array, 'b t h w 3'],
      resolution: Resolution,
      frames_at_once: int = 1,
  ) -> Grids:
    batch, length = video.shape[:2]
    frames = resize_video(video, resolution)
    grids = map_frames(
        lambda frame: self._network.apply('encode_frame', params, frame),
        frames.reshape(batch * length, *resolution, 3),
        platform=self.platform,
        at_once=frames_at_once,
    )
    return jax.tree.map(
        lambda grid: grid.reshape(batch, length, *grid.shape[1:]), grids
    )

  @with_precision
  def describe_queries(
      self,
      params: Params,
      features: tuple[Grids, ...],
      query_points: Float[Array, 'b n 3'],
  ) -> QueryFeatures:
    """Interpolates the fine and the coarse grids at the query points."""
    del params

    def describe(grid: Float[Array, 'b t h w c']) -> Float[Array, 'b n c']:
      points = locate_queries(grid, query_points, self.config.resolution)
      return map_batch(read_at_time, grid, points)

    return tuple(
        QueryVectors(describe(grids.fine), describe(grids.coarse))
        for grids in features
    )

  def begin(
      self,
      query_points: Float[Array, 'b n 3'],
      num_frames: NumFrames | None = None,
      capacity: int | None = None,
  ) -> Memory | None:
    """Returns the zeros that precede a video; None if the future is seen."""
    del num_frames, capacity
    if not self.streams:
      return None
    return TapirMemory(*self._make_block_memory(*query_points.shape[:2]))

  def _make_block_memory(
      self, batch: DimSize, num_queries: DimSize
  ) -> BlockMemory:
    config = self.config
    iterations = len(config.levels) * config.num_iterations
    leading = (batch, iterations, config.mixer_blocks, num_queries, TAPS - 1)
    channels = config.mixer_channels
    return BlockMemory(
        inputs=jnp.zeros((*leading, channels), jnp.float32),
        hidden=jnp.zeros((*leading, MIXER_MULTIPLIER, channels), jnp.float32),
    )

  @with_precision
  def initialize_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: Memory | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Guesses tracks frame by frame, from the cost volume of each alone."""
    del memory

    def initialize(
        grids: Float[Array, 't h w c'],
        vectors: Float[Array, 'n c'],
        query_points: Float[Array, 'n 3'] | None,
        target_points: Float[Array, 'n t 2'] | None,
    ) -> TrackState:
      guesses = map_frames(
          lambda grid, targets: self._guess_frame(
              self._network.apply('estimate_frame', params, grid, vectors),
              grid.shape[:2],
              targets,
          ),
          grids,
          swap_axes(target_points),
          platform=self.platform,
      )
      state = swap_axes(guesses)
      if query_points is None:
        return state
      return pass_through_queries(state, query_points)

    return map_batch(
        initialize,
        features[self._first_level].coarse,
        query_features[self._first_level].coarse,
        query_points,
        target_points,
    )

  def _guess_frame(
      self,
      estimate: FrameEstimate,
      cells: Resolution,
      targets: Float[Array, 'n 2'] | None,
  ) -> TrackState:
    """Returns the guess on one frame `[n]`, from its cost volume."""
    resolution = self.config.resolution
    positions = rescale_positions(estimate.positions, cells, resolution)
    state = TrackState(positions, *jnp.moveaxis(estimate.logits, -1, 0))
    if targets is None:
      return state
    assert estimate.heatmap is not None, 'a cost volume has one'
    targets = rescale_positions(targets, resolution, cells)
    return state._replace(
        target_log_probs=score_positions(estimate.heatmap, targets)
    )

  @with_precision
  def refine_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
      memory: Memory | None = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, Memory | None]:
    """Refines all frames of a track together, at one level after the other."""
    del query_points, target_points
    if memory is not None and not self.streams:
      raise ValueError(
          'memory must be None for a tracker that sees the future; got one - '
          'use a causal preset, such as causal_bootstapir'
      )
    num_frames = None if valid is None else valid.num_frames
    states, blocks = map_batch(
        functools.partial(self._refine, params, num_frames=num_frames),
        features,
        query_features,
        state._replace(target_log_probs=None),
        None if memory is None else BlockMemory(*memory),
    )
    memory = None if blocks is None else TapirMemory(*blocks)
    return prepend_guess(state, swap_axes(states)), memory

  def _refine(
      self,
      params: Params,
      features: tuple[Grids, ...],
      query_features: tuple[Vectors, ...],
      state: TrackState,
      memory: BlockMemory | None,
      num_frames: NumFrames | None,
      coarse: Float[Array, 'n t c8'] | None = None,
  ) -> tuple[TrackState, BlockMemory | None]:
    """Refines the tracks of one video; `coarse` replaces features of queries.

    It does so at the level of the initialization.
    """
    config = self.config
    levels = config.levels
    indices = [config.encoded_resolutions.index(level) for level in levels]
    memories = split_memory(memory, len(levels), config.num_iterations)

    def refine(
        number: int,
        positions: Float[Array, 'n t 2'],
        state: TrackState,
        memory: BlockMemory | None,
    ) -> tuple[TrackState, BlockMemory | None]:
      index = indices[number]
      vectors = query_features[index]
      is_first = index == self._first_level
      start = Refinement(
          positions,
          *get_logits(state),
          repeat_over_time(
              vectors, positions.shape[1], coarse if is_first else None
          ),
      )

      def iterate(
          now: Refinement, memory: BlockMemory | None
      ) -> tuple[Refinement, tuple[TrackState, BlockMemory | None]]:
        inputs = self._make_inputs(features[index], vectors, now)
        changes, memory = self._network.apply(
            'mix', params, inputs, memory, num_frames
        )
        assert now.features is not None, 'TAPIR refines features'
        now = now.change(
            changes,
            levels[number],
            config.first_resolution,
            now.features + changes[..., STATE_CHANNELS:],
        )
        return now, (now.state, memory)

      _, outputs = jax.lax.scan(
          iterate, start, memory, length=config.num_iterations
      )
      return outputs

    return refine_levels(
        refine,
        len(levels),
        state,
        memories,
        config.resolution,
        config.first_resolution,
    )

  def _make_inputs(
      self, grids: Grids, vectors: Vectors, now: Refinement
  ) -> Float[Array, 'n t c']:
    """Returns the inputs of the mixer: state, features and correlations."""
    del vectors  # The features of the track take their place.
    return join_inputs(
        jnp.zeros_like(now.positions),
        now,
        self._correlate(grids, now),
    )

  def _correlate(
      self, grids: Grids, now: Refinement
  ) -> list[Float[Array, 'n t p']]:
    assert now.features is not None, 'TAPIR refines features'
    return correlate_tracks(
        grids,
        now.positions,
        now.features,
        self.config.first_resolution,
        self.config.radius,
        self.platform,
    )

  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Averages the last iterations of all levels."""
    last = average_levels(states, self.config.num_iterations)
    return Tracks(
        last.positions,
        estimate_confidence(last) > self.config.visibility_threshold,
        last.occlusion_logits,
        last.uncertainty_logits,
    )

  def list_segments(
      self,
      num_frames: int,
      query_frames: Int[np.ndarray, 'n'],
      window: int | None = None,
  ) -> SegmentList:
    """Returns windows after each other for a causal network."""
    if window is None or not self.streams:
      return super().list_segments(num_frames, query_frames, window)
    self.check_window(window)
    return list_consecutive_segments(num_frames, window, self.temporal_context)


def locate_queries(
    grid: Float[Array, 'b t h w c'],
    query_points: Float[Array, 'b n 3'],
    resolution: Resolution,
) -> Float[Array, 'b n 3']:
  """Returns query points (t, y, x) in cells of a grid."""
  return rescale_query_points(query_points, resolution, grid.shape[2:4])


def split_memory(
    memory: BlockMemory | None, num_levels: int, num_iterations: int
) -> list[BlockMemory | None]:
  """Returns the memory of each level, `[i, ...]`."""
  split = jax.tree.map(
      lambda array: array.reshape(num_levels, num_iterations, *array.shape[1:]),
      memory,
  )
  return [
      jax.tree.map(lambda array, i=i: array[i], split)
      for i in range(num_levels)
  ]


def repeat_over_time(
    vectors: Vectors,
    num_frames: int,
    coarse: Float[Array, 'n t c8'] | None,
) -> Float[Array, 'n t c']:
  """Returns the features of a track before the refinement, on every frame.

  They are those of the query, except for coarse ones that are given.
  """
  fine, repeated = (
      jnp.repeat(array[:, None], num_frames, axis=1)
      for array in (vectors.fine, vectors.coarse)
  )
  return jnp.concatenate(
      [fine, repeated if coarse is None else coarse], axis=-1
  )


def swap_axes(arrays: PyTree) -> PyTree:
  """Exchanges the first two axes of every array."""
  return jax.tree.map(lambda array: array.swapaxes(0, 1), arrays)
