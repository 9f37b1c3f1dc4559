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

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax import parallel
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.models.arrows import pass_through_queries
from tapjax.models.arrows import prepend_guess
from tapjax.models.contract import encodes_with_precision
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.models.contract import with_precision
from tapjax.models.haiku import make_network
from tapjax.models.haiku import Network
from tapjax.models.locotrack.config import check_config
from tapjax.models.locotrack.config import LocoTrackConfig
from tapjax.models.locotrack.correlations import correlate_frame
from tapjax.models.locotrack.correlations import FeatureGrids
from tapjax.models.locotrack.correlations import flatten_patches
from tapjax.models.locotrack.correlations import get_centers
from tapjax.models.locotrack.correlations import QueryPatches
from tapjax.models.locotrack.network import LocoTrack
from tapjax.models.locotrack.network import make_small_frame
from tapjax.models.locotrack.refinement import change_features
from tapjax.models.locotrack.refinement import join_inputs
from tapjax.models.locotrack.refinement import repeat_over_time
from tapjax.models.locotrack.refinement import stop_gradients
from tapjax.models.multires import average_levels
from tapjax.models.multires import estimate_confidence
from tapjax.models.multires import get_logits
from tapjax.models.multires import refine_levels
from tapjax.models.multires import Refinement
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_neighborhoods_at_time
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

# One of each per distinct resolution, in the order of `encoded_resolutions`.
Features = tuple[FeatureGrids, ...]
QueryFeatures = tuple[QueryPatches, ...]


@dataclasses.dataclass(frozen=True)
class LocoTrackFunctions(TrackerFunctions):
  """LocoTrack as pure functions.

  Features are a tuple of `FeatureGrids`, query features one of `QueryPatches`.
  """

  config: LocoTrackConfig
  platform: str = dataclasses.field(default_factory=jax.default_backend)

  def __post_init__(self) -> None:
    check_config(self.config)

  @functools.cached_property
  def _network(self) -> Network:
    return make_network(
        lambda: LocoTrack(self.config, self.platform),
        ('encode_frame', 'estimate_frame', 'prepare_kernels', 'embed', 'mix'),
        lambda: (make_small_frame(),),
    )

  @functools.cached_property
  def _training_network(self) -> Network:
    return make_network(
        lambda: LocoTrack(self.config, self.platform, axis=parallel.AXIS),
        ('encode_in_training',),
        lambda: (make_small_frame(),),
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
        split_frames(
            map_frames(
                lambda frame: self._network.apply(
                    'encode_frame', params, frame
                ),
                self._resize_frames(video, resolution),
                platform=self.platform,
            ),
            video,
        )
        for resolution in self.config.encoded_resolutions
    )

  def _resize_frames(
      self, video: Float[Array, 'b t h w 3'], resolution: Resolution
  ) -> Float[Array, 'bt _ _ 3']:
    # PARITY: only the JAX program antialiases (test_locotrack_parity).
    frames = resize_video(
        video, resolution, antialias=self.config.refined_levels == 'every'
    )
    return frames.reshape(-1, *resolution, 3)

  @encodes_with_precision
  def encode_in_training(
      self, params: Params, video: Float[Array, 'b t h w 3'], key: Array
  ) -> tuple[Features, PyTree]:
    """Encodes all frames together, where the encoder has batch norms."""
    if self.config.encoder == 'resnet':
      return super().encode_in_training(params, video, key)
    features = []
    # Each resolution moves the statistics on, as in consecutive calls.
    for i, resolution in enumerate(self.config.encoded_resolutions):
      grids, statistics = self._training_network.apply_with_statistics(
          'encode_in_training',
          params,
          jax.random.fold_in(key, i),
          self._resize_frames(video, resolution),
      )
      params = params._replace(state=statistics)
      features.append(split_frames(grids, video))
    return tuple(features), params.state

  @with_precision
  def describe_queries(
      self,
      params: Params,
      features: Features,
      query_points: Float[Array, 'b n 3'],
  ) -> QueryFeatures:
    """Interpolates the grids in the squares around the query points."""
    del params
    return tuple(
        QueryPatches(
            *(self._read_patches(grid, query_points) for grid in grids)
        )
        for grids in features
    )

  def _read_patches(
      self,
      grid: Float[Array, 'b t h w c'],
      query_points: Float[Array, 'b n 3'],
  ) -> Float[Array, 'b n p p c']:
    points = rescale_query_points(
        query_points, self.config.resolution, grid.shape[2:4]
    )
    return map_batch(
        lambda grid, points: read_neighborhoods_at_time(
            grid, points, self.config.radius
        ),
        grid,
        points,
    )

  @with_precision
  def initialize_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: PyTree = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Guesses tracks frame by frame, from two cost volumes of each alone."""
    del memory, target_points
    state = map_batch(
        functools.partial(self._initialize, params),
        features[self._first_level],
        query_features[self._first_level],
    )
    if query_points is None:
      return state
    return pass_through_queries(state, query_points)

  def _initialize(
      self, params: Params, grids: FeatureGrids, patches: QueryPatches
  ) -> TrackState:
    """Guesses the tracks of one video."""
    vectors = get_centers(patches)
    estimates = map_frames(
        lambda middle, coarse: self._network.apply(
            'estimate_frame',
            params,
            middle,
            coarse,
            vectors.middle,
            vectors.coarse,
        ),
        grids.middle,
        grids.coarse,
        platform=self.platform,
    )
    positions = rescale_positions(
        estimates.positions, grids.middle.shape[1:3], self.config.resolution
    )
    occlusion, uncertainty = jnp.moveaxis(estimates.logits, -1, 0)
    return TrackState(positions.swapaxes(0, 1), occlusion.T, uncertainty.T)

  @with_precision
  def refine_tracks(
      self,
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
      memory: PyTree = None,
      valid: ValidLength | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, None]:
    """Refines all frames of a track together, at one level after the other."""
    del query_points, target_points
    if memory is not None:
      raise ValueError(
          'memory must be None for a tracker that sees the future; got one - '
          'use a causal preset, such as causal_bootstapir'
      )
    num_frames = None if valid is None else valid.num_frames
    states = map_batch(
        functools.partial(self._refine, params, num_frames),
        features,
        query_features,
        state._replace(target_log_probs=None),
    )
    states = jax.tree.map(lambda array: array.swapaxes(0, 1), states)
    return prepend_guess(state, states), None

  def _refine(
      self,
      params: Params,
      num_frames: NumFrames | None,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
  ) -> TrackState:
    """Refines the tracks of one video."""
    num_levels = len(self.config.levels)
    states, _ = refine_levels(
        functools.partial(
            self._refine_at_level, params, num_frames, features, query_features
        ),
        num_levels,
        state,
        [None] * num_levels,
        self.config.resolution,
        self.config.initial_resolution,
    )
    return states

  def _refine_at_level(
      self,
      params: Params,
      num_frames: NumFrames | None,
      features: Features,
      query_features: QueryFeatures,
      level: int,
      positions: Float[Array, 'n t 2'],
      state: TrackState,
      memory: None,
  ) -> tuple[TrackState, None]:
    """Refines tracks on one set of grids; see `refine_levels`."""
    config = self.config
    resolution, frames = config.levels[level]
    index = config.encoded_resolutions.index(frames)
    start = Refinement(
        positions,
        *get_logits(state),
        repeat_over_time(query_features[index], config, positions.shape[1]),
    )

    def iterate(now: Refinement, _: None) -> tuple[Refinement, TrackState]:
      now = stop_gradients(now)
      embedded = self._embed(
          params, features[index], query_features[index], now.positions
      )
      inputs = join_inputs(now, embedded, config, resolution, num_frames)
      changes = self._network.apply('mix', params, inputs, num_frames)
      now = now.change(
          changes,
          resolution,
          config.initial_resolution,
          change_features(now, changes),
      )
      return now, now.state

    _, states = jax.lax.scan(iterate, start, length=config.num_iterations)
    return states, memory

  def _embed(
      self,
      params: Params,
      grids: FeatureGrids,
      patches: QueryPatches,
      positions: Float[Array, 'n t 2'],
  ) -> Float[Array, 'n t e']:
    """Encodes the correlations of each track with its query."""
    flat = flatten_patches(patches)
    kernels = self._network.apply('prepare_kernels', params)
    embedded = map_frames(
        lambda grids, positions: self._network.apply(
            'embed',
            params,
            kernels,
            *correlate_frame(
                grids,
                positions,
                flat,
                self.config.initial_resolution,
                self.config.radius,
            ),
        ),
        grids,
        positions.swapaxes(0, 1),
        platform=self.platform,
    )
    return embedded.swapaxes(0, 1)

  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Averages the last iterations of all levels."""
    last = average_levels(states, self.config.num_iterations)
    return Tracks(
        last.positions,
        estimate_confidence(last) >= 0.5,
        last.occlusion_logits,
        last.uncertainty_logits,
    )


def split_frames(
    grids: FeatureGrids, video: Float[Array, 'b t h w 3']
) -> FeatureGrids:
  """Gives the features of all frames the batch and the time of the video."""
  return jax.tree.map(
      lambda grid: grid.reshape(*video.shape[:2], *grid.shape[1:]), grids
  )
