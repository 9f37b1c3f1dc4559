"""`tapir_tiny`: a causal TAPIR that follows appearance and motion.

TAPIR guesses the position of a point on every frame by itself. `tapir_tiny`
guesses and refines one frame after the other, so that the guess on a frame
builds on the refined track before it: see `appearance` and `motion`. It also
compares a patch around the query with a patch around the position, and is small
enough to be a part of the package.

Weights: `tapjax/weights/tapir_tiny.safetensors`, Apache 2.0; trained by
`experiments/configs/tapir_tiny_*.py`.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from tapjax.geometry import rescale_positions
from tapjax.models.arrows import pass_through_queries
from tapjax.models.arrows import prepend_guess
from tapjax.models.arrows import round_query_times
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.multires import average_levels
from tapjax.models.multires import estimate_confidence
from tapjax.models.multires import Refinement
from tapjax.models.tapir.correlation import count_cells
from tapjax.models.tapir.correlation import join_inputs
from tapjax.models.tapir.functions import locate_queries
from tapjax.models.tapir.functions import swap_axes
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.models.tapir.network import make_small_frame
from tapjax.models.tapir_tiny.appearance import compute_contrasts
from tapjax.models.tapir_tiny.appearance import correlate_query_patches
from tapjax.models.tapir_tiny.appearance import FeatureGrids
from tapjax.models.tapir_tiny.appearance import join_template
from tapjax.models.tapir_tiny.appearance import pick_templates
from tapjax.models.tapir_tiny.appearance import QueryVectors
from tapjax.models.tapir_tiny.appearance import update_templates
from tapjax.models.tapir_tiny.config import check_config
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.tapir_tiny.cost import count_inputs
from tapjax.models.tapir_tiny.motion import compute_motion_prior
from tapjax.models.tapir_tiny.motion import make_motion_state
from tapjax.models.tapir_tiny.motion import MotionState
from tapjax.models.tapir_tiny.network import TapirTiny
from tapjax.nn.mixer import BlockMemory
from tapjax.ops.loops import map_batch
from tapjax.ops.sampling import read_neighborhoods_at_time
from tapjax.types import PyTree
from tapjax.types import TrackState

Features = tuple[FeatureGrids, ...]
QueryFeatures = tuple[QueryVectors, ...]


class TapirTinyMemory(NamedTuple):
  """Memory of the mixer, `BlockMemory`, and of the motion of tracks."""

  inputs: Float[Array, '*b i k n 2 c']
  hidden: Float[Array, '*b i k n 2 m c']
  course: MotionState


@dataclasses.dataclass(frozen=True)
class TapirTinyFunctions(TapirFunctions):
  """`tapir_tiny` as pure functions."""

  config: TapirTinyConfig
  guesses_first = False

  def __post_init__(self) -> None:
    check_config(self.config)

  @functools.cached_property
  def _network(self) -> Network:
    return make_network(
        lambda: TapirTiny(self.config, self.platform),
        ('encode_frame', 'estimate_frame', 'mix'),
        lambda: (
            make_small_frame(self.config),
            jnp.zeros((1, 1, count_inputs(self.config)), jnp.float32),
        ),
    )

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
        self._encode_at(params, video, resolution, self.config.frames_at_once)
        for resolution in self.config.encoded_resolutions
    )

  @with_precision
  def describe_queries(
      self,
      params: Params,
      features: Features,
      query_points: Float[Array, 'b n 3'],
  ) -> QueryFeatures:
    """Interpolates grids at the query points, and in patches around them."""
    config = self.config
    vectors = super().describe_queries(params, features, query_points)

    def read_patch(
        grid: Float[Array, 'b t h w c'], radius: int
    ) -> Float[Array, 'b n q c']:
      cells = map_batch(
          lambda grid, points: read_neighborhoods_at_time(grid, points, radius),
          grid,
          locate_queries(grid, query_points, config.resolution),
      )
      return jax.lax.collapse(cells, 2, 4)

    def describe(
        grids: FeatureGrids, fine: Array, coarse: Array
    ) -> QueryVectors:
      query_patch = stem_patch = None
      if radius := config.support_radius:
        query_patch = read_patch(grids.fine, radius)
        query_patch /= math.sqrt(count_cells(radius))
      if radius := config.stem_support_radius:
        assert grids.stem is not None, 'patches of the stem are compared'
        stem_patch = compute_contrasts(read_patch(grids.stem, radius))
        stem_patch /= math.sqrt(count_cells(radius))
      return QueryVectors(fine, coarse, query_patch, stem_patch)

    return tuple(
        describe(grids, *level)
        for grids, level in zip(features, vectors, strict=True)
    )

  def begin(
      self,
      query_points: Float[Array, 'b n 3'],
      num_frames: NumFrames | None = None,
      capacity: int | None = None,
  ) -> TapirTinyMemory:
    """Returns the zeros that precede a video."""
    del num_frames, capacity
    batch, num_queries = query_points.shape[:2]
    channels = self.config.feature_channels[1]
    return TapirTinyMemory(
        *self._make_block_memory(batch, num_queries),
        make_motion_state(batch, num_queries, channels),
    )

  def initialize_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: TapirTinyMemory | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Returns zeros: `refine_tracks` guesses each frame after the last one."""
    del params, query_points, memory, target_points
    batch, num_queries = query_features[0].coarse.shape[:2]
    shape = (batch, num_queries, features[0].coarse.shape[1])
    zeros = jnp.zeros(shape, jnp.float32)
    return TrackState(jnp.zeros((*shape, 2), jnp.float32), zeros, zeros)

  @with_precision
  def refine_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
      memory: TapirTinyMemory | None = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, TapirTinyMemory | None]:
    """Guesses and refines all tracks, one frame after the other."""
    before = memory
    if before is None:
      before = self.begin(jnp.zeros((*state.positions.shape[:2], 3)))

    def track(*video: PyTree) -> tuple[TrackState, TapirTinyMemory]:
      return self._track_frame_by_frame(params, valid, *video)

    states, after = map_batch(
        track, features, query_features, query_points, before, target_points
    )
    log_probs = states.target_log_probs
    states = swap_axes(states._replace(target_log_probs=None))
    if log_probs is not None:
      states = states._replace(target_log_probs=log_probs[None])
    return states, None if memory is None else after

  def _track_frame_by_frame(
      self,
      params: Params,
      valid: ValidLength | None,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'n 3'] | None,
      memory: TapirTinyMemory,
      target_points: Float[Array, 'n t 2'] | None,
  ) -> tuple[TrackState, TapirTinyMemory]:
    """Tracks the queries of one video: states `[1 + i, n, t]` and memory."""

    def step(
        memory: TapirTinyMemory,
        inputs: tuple[Array, Features, Array | None],
    ) -> tuple[TapirTinyMemory, TrackState]:
      new, states = self._track_frame(
          params, query_features, query_points, memory, *inputs
      )
      if valid is not None:
        is_frame = inputs[0] < valid.num_frames
        new = jax.tree.map(functools.partial(jnp.where, is_frame), new, memory)
      return new, states

    frames = jnp.arange(features[0].coarse.shape[0])
    inputs = frames, features, swap_axes(target_points)
    memory, states = jax.lax.scan(step, memory, inputs)
    log_probs = states.target_log_probs
    states = jax.tree.map(
        lambda array: jnp.moveaxis(array, 0, 2),
        states._replace(target_log_probs=None),
    )
    return (
        states._replace(
            target_log_probs=None if log_probs is None else log_probs[:, 0].T
        ),
        memory,
    )

  def _track_frame(
      self,
      params: Params,
      query_features: QueryFeatures,
      query_points: Float[Array, 'n 3'] | None,
      memory: TapirTinyMemory,
      frame: Int[Array, ''],
      features: Features,
      targets: Float[Array, 'n 2'] | None,
  ) -> tuple[TapirTinyMemory, TrackState]:
    """Guesses and refines tracks on a frame: memory and states `[1 + i, n]`."""
    config, motion = self.config, memory.course
    grid = features[self._first_level].coarse
    vectors = join_template(
        query_features[self._first_level].coarse,
        motion.templates,
        config.template_weight,
    )
    guess = self._guess(params, grid, vectors, motion, targets)
    if query_points is not None:
      guess = pass_through_queries(guess, query_points, frame)
    refined, blocks = self._refine(
        params,
        jax.tree.map(lambda array: array[None], features),
        query_features,
        jax.tree.map(
            lambda array: array[:, None],
            guess._replace(target_log_probs=None),
        ),
        BlockMemory(memory.inputs, memory.hidden),
        None,
        vectors[:, None],
    )
    refined = jax.tree.map(lambda array: array[:, :, 0], refined)
    states = prepend_guess(guess, refined)
    motion = self._update_motion(motion, grid, frame, states, query_points)
    assert blocks is not None, 'a memory was given'
    return TapirTinyMemory(*blocks, motion), states

  def _guess(
      self,
      params: Params,
      grid: Float[Array, 'h w c'],
      vectors: Float[Array, 'n c'],
      motion: MotionState,
      targets: Float[Array, 'n 2'] | None,
  ) -> TrackState:
    """Returns the guess on one frame, from appearance and motion."""
    config = self.config
    height, width = grid.shape[:2]
    cells = height, width
    prior = templates = None
    if config.motion_weight:
      prior = compute_motion_prior(
          motion,
          config.resolution,
          cells,
          config.motion_weight,
          config.motion_reach,
      )
    if config.lone_template_weight:
      templates = pick_templates(
          vectors, motion.templates, config.lone_template_weight
      )
    estimate = self._network.apply(
        'estimate_frame', params, grid, vectors, prior, templates
    )
    return self._guess_frame(estimate, cells, targets)

  def _update_motion(
      self,
      motion: MotionState,
      grid: Float[Array, 'h w c'],
      frame: Int[Array, ''],
      states: TrackState,
      query_points: Float[Array, 'n 3'] | None,
  ) -> MotionState:
    """Adds a frame: its features at the refined positions.

    Frames before the query, where little is certain, are left out.
    """
    config = self.config
    state = average_levels(states, config.num_iterations)
    # Positions learn from their own losses, not from the features there.
    positions = jax.lax.stop_gradient(state.positions)
    points = rescale_positions(positions, config.resolution, grid.shape[:2])
    shown = estimate_confidence(state)
    if query_points is not None:
      shown = jnp.where(frame < round_query_times(query_points), 0.0, shown)
    was_seen = (motion.shown > 0)[:, None]
    return MotionState(
        templates=update_templates(
            motion.templates,
            grid,
            jnp.flip(points, axis=-1),
            config.template_rate * shown,
        ),
        positions=positions,
        velocities=jnp.where(was_seen, positions - motion.positions, 0.0),
        shown=jax.lax.stop_gradient(shown),
    )

  def _make_inputs(
      self, grids: FeatureGrids, vectors: QueryVectors, now: Refinement
  ) -> Float[Array, 'n t c']:
    """Adds positions and query patches to the inputs of TAPIR's mixer."""
    config = self.config
    places = rescale_positions(now.positions, config.first_resolution, (1, 1))
    return join_inputs(
        config.position_weight * (places - 0.5),
        now,
        [
            *self._correlate(grids, now),
            *correlate_query_patches(
                grids,
                vectors,
                now.positions,
                config.first_resolution,
                config.radius,
                self.platform,
            ),
        ],
    )
