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

where f starts as q; with a `position_weight`, the mixer sees p as well. With a
`template_weight`, frames are guessed and refined one after the other, and q is
joined by what the track looked like before: r is a running mean of features_t
at the refined p_t, each weighed by the chance that it shows the point,

  q_t = unit(q + template_weight * r_(t-1))
  r_t = r_(t-1) + template_rate * shown_t * (features_t at p_t - r_(t-1))

so that a point that turns, or grows, is known by its last looks; with a
`lone_template_weight`, by these without the query as well,

  heatmap_t = softmax(temperature * conv(max(q_t . features_t,
      lone_template_weight * unit(r_(t-1)) . features_t)))

With a `motion_weight`, the heatmap's logits fall with the distance d from where
the last two frames lead to, more if the last one surely showed the point:

  heatmap_t = softmax(... - motion_weight * shown_(t-1) * d^2 / (d^2 + reach^2))

With more than one resolution the refinement is repeated on each, and their last
iterations are averaged.

Weights: github.com/google-deepmind/tapnet, Apache 2.0.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int

from tapjax.geometry import list_growing_resolutions
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.models.contract import Estimate
from tapjax.models.contract import Extent
from tapjax.models.contract import make_stages
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import pass_through_queries
from tapjax.models.contract import Precision
from tapjax.models.contract import round_query_times
from tapjax.models.contract import set_precision
from tapjax.models.contract import TrackerFunctions
from tapjax.models.weight_names import Kind
from tapjax.models.weight_names import list_cost_volume_names
from tapjax.models.weight_names import list_resnet_names
from tapjax.models.weight_names import make_haiku_name
from tapjax.models.weight_names import WeightName
from tapjax.nn.activations import gelu
from tapjax.nn.convolution import Conv2D
from tapjax.nn.cost_volume import CostVolumeHead
from tapjax.nn.cost_volume import count_cost_volume
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.cost_volume import score_positions
from tapjax.nn.mixer import BlockMemory
from tapjax.nn.mixer import Mixer
from tapjax.nn.mixer import TAPS
from tapjax.nn.normalization import LayerNorm
from tapjax.nn.normalization import normalize_vectors
from tapjax.nn.resnet import count_convolution
from tapjax.nn.resnet import count_resnet
from tapjax.nn.resnet import ResNet
from tapjax.ops.correlation import correlate_neighborhoods
from tapjax.ops.correlation import correlate_patches
from tapjax.ops.loops import map_batch
from tapjax.ops.loops import map_frames
from tapjax.ops.sampling import read_at_time
from tapjax.ops.sampling import read_in_frames
from tapjax.ops.sampling import read_neighborhoods
from tapjax.ops.sampling import read_neighborhoods_at_time
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class TapirConfig:
  """Settings of a TAPIR network.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    initial_resolution: where tracks are initialized; the refinement's outputs
      are also counted in its pixels.
    refinement_resolutions: where tracks are refined, one after the other, each
      a multiple of 8; None derives them from `resolution`, in steps of at most
      about two. Each has features of its own size; the published program takes
      those of the video's size where the entry before it has that size.
    channels: of the four groups of the backbone.
    strides: of the four groups of the backbone, behind a stem of stride 2.
    num_extra_convs: layers between the backbone and the features.
    temperature: of the softmax over a frame.
    pooled_levels: coarser grids to correlate with, each half the size.
    radius: of a correlated patch, in cells of its grid.
    support_radius: of the patch around a query whose cells are all correlated
      with the fine grid, in cells of it; the published ones correlate the query
      alone, and have 0.
    stem_support_radius: of another one, in cells of the backbone's stem, which
      are half as large; 0 has none. Its cells are compared by their contrast
      to what is around them, as Lucas and Kanade do.
    logits_stride: of the layer that reads logits off a frame's cost volume.
    num_iterations: of refinement, at each resolution.
    mixer_blocks: of the refinement network.
    mixer_channels: of the refinement network.
    position_weight: of a track's positions, in frames from the middle, among
      what the refinement network sees, which tell it where a track jumps; the
      published ones see none, and have zeros in their place.
    template_weight: of a track's looks on earlier frames, beside that at its
      query; the published ones know the query's alone.
    template_rate: share of a new look in the running mean of them, if it surely
      shows the point.
    lone_template_weight: of these looks without that at the query, such as when
      a point has turned: a cell of the first guess counts by these or by both
      together, whichever it resembles more.
    motion_weight: what a cell far from where a track was going loses, in logits
      of the heatmap; the published ones guess each frame by itself.
    motion_reach: cells of the coarse grid after which it loses half of that.
    temporal: whether a frame's refinement sees frames on both sides or only
      the past ones.
    visibility_threshold: a point counts as visible where the chance that it is
      not hidden, times the chance that its position is right, is larger.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
    frames_at_once: frames that the cores of a CPU encode at the same time; more
      than one are faster where channels are few, and take longer to compile.
  """

  resolution: Resolution = (256, 256)
  initial_resolution: Resolution = (256, 256)
  refinement_resolutions: tuple[Resolution, ...] | None = None
  channels: tuple[int, ...] = (64, 128, 256, 256)
  strides: tuple[int, ...] = (1, 2, 2, 1)
  num_extra_convs: int = 0
  temperature: float = 20.0
  pooled_levels: int = 0
  radius: int = 3
  support_radius: int = 0
  stem_support_radius: int = 0
  logits_stride: int = 2
  num_iterations: int = 4
  mixer_blocks: int = 12
  mixer_channels: int = 512
  position_weight: float = 0.0
  template_weight: float = 0.0
  template_rate: float = 0.5
  lone_template_weight: float = 0.0
  motion_weight: float = 0.0
  motion_reach: float = 4.0
  temporal: Literal['both', 'past'] = 'both'
  visibility_threshold: float = 0.5
  precision: Precision = 'highest'
  frames_at_once: int = 1

  @property
  def follows(self) -> bool:
    """Whether the guess on one frame depends on those before."""
    return bool(
        self.template_weight or self.lone_template_weight or self.motion_weight
    )

  @property
  def feature_channels(self) -> tuple[int, int]:
    """Channels of the fine and of the coarse grid."""
    return self.channels[1], self.channels[-1]


TAPIR = TapirConfig()
CAUSAL_TAPIR = dataclasses.replace(TAPIR, pooled_levels=1, temporal='past')
BOOTSTAPIR = dataclasses.replace(
    TAPIR, pooled_levels=1, num_extra_convs=5, temperature=10.0
)
CAUSAL_BOOTSTAPIR = dataclasses.replace(BOOTSTAPIR, temporal='past')
TAPIR_TINY = dataclasses.replace(
    CAUSAL_TAPIR,
    # Positions are as exact as cells are small, so videos are enlarged, as far
    # as it stays eight times as fast as TAPIR.
    resolution=(328, 328),
    initial_resolution=(328, 328),
    channels=(16, 32, 64, 64),
    strides=(2, 1, 2, 1),
    support_radius=2,
    stem_support_radius=2,
    # Sees every cell once, and takes two thirds of the time.
    logits_stride=3,
    # A second iteration changes nothing.
    num_iterations=1,
    mixer_blocks=4,
    mixer_channels=128,
    position_weight=8.0,
    # With more, looks drift away from the query in the long run.
    template_weight=0.4,
    lone_template_weight=0.9,
    motion_weight=5.0,
    motion_reach=5.0,
    # Where its Average Jaccard on procedural videos is highest.
    visibility_threshold=0.3,
    # With more, compiling and memory grow without a gain on few cores.
    frames_at_once=4,
)

_STRIDE = 8
_CONV_EXPANSION = 4
_MIXER_MULTIPLIER = 4
# Position, occlusion and uncertainty.
_STATE_INPUTS = 4
# Of a patch of the stem without any, which noise is not to fill.
_LEAST_CONTRAST = 0.02


class FeatureGrids(NamedTuple):
  """Features at one resolution, at strides 4, 8 and then 16, 32, ...

  And those of the stem at stride 2, where they count, as they are.
  """

  fine: Float[Array, '*bt h4 w4 c4']
  coarse: Float[Array, '*bt h8 w8 c8']
  pooled: tuple[Float[Array, '*bt _ _ c8'], ...]
  stem: Float[Array, '*bt h2 w2 c2'] | None = None


class QueryVectors(NamedTuple):
  """Features at the query points, at one resolution.

  And those of the cells of the fine grid and of the stem around them, where
  they count; all together have unit length.
  """

  fine: Float[Array, '*b n c4']
  coarse: Float[Array, '*b n c8']
  supports: Float[Array, '*b n q c4'] | None
  stem_supports: Float[Array, '*b n q c2'] | None


# One of each per distinct resolution, in the order of `list_resolutions`.
Features = tuple[FeatureGrids, ...]
QueryFeatures = tuple[QueryVectors, ...]


class Course(NamedTuple):
  """Where tracks were found on the last frame, and their looks so far.

  Positions are (x, y) pixels of the video's resolution, velocities pixels per
  frame. `shown` is the chance that the position shows the point; it is 0 before
  the query, of which nothing is known.
  """

  templates: Float[Array, '*b n c8']
  positions: Float[Array, '*b n 2']
  velocities: Float[Array, '*b n 2']
  shown: Float[Array, '*b n']


class TapirMemory(NamedTuple):
  """What is known of the frames before: the mixer's memory, and the course.

  The first two are those of `BlockMemory`, `[b, i, blocks, n, ...]`.
  """

  inputs: Float[Array, '*b _ k n 2 c']
  hidden: Float[Array, '*b _ k n 2 m c']
  course: Course | None


class Refinement(NamedTuple):
  """What one iteration of refinement passes to the next.

  Positions are (x, y) pixels of the initial resolution.
  """

  positions: Float[Array, 'n t 2']
  occlusion_logits: Float[Array, 'n t']
  uncertainty_logits: Float[Array, 'n t']
  features: Float[Array, 'n t c']


class ExtraConvs(hk.Module):
  """Norm and two convolutions, several times."""

  def __init__(self, num_layers: int, channels: int, name: str):
    super().__init__(name=name)
    self._layers = [
        (
            LayerNorm(f'layer_norm_{i}', with_offset=True),
            Conv2D(channels * _CONV_EXPANSION, 3, name=f'expand_{i}'),
            Conv2D(channels, 3, name=f'reduce_{i}'),
        )
        for i in range(num_layers)
    ]

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    for norm, expand, reduce in self._layers:
      # PARITY: the skip carries the normalised tensor (test_tapir_parity).
      x = norm(x)
      x += reduce(gelu(expand(x)))
    return x


class Tapir(hk.Module):
  """The parameters of TAPIR and what it does to a frame or to a track."""

  def __init__(self, config: TapirConfig, name: str = 'tapir'):
    super().__init__(name=name)
    self._config = config
    fine_channels, coarse_channels = config.feature_channels
    self._resnet = ResNet(
        config.channels,
        config.strides,
        blocks_per_group=2,
        stem_channels=config.channels[0],
        name='resnet',
    )
    self._extra_convs = ExtraConvs(
        config.num_extra_convs, coarse_channels, name='extra_convs'
    )
    self._cost_volume = CostVolumeHead(
        num_logits=2,
        temperature=config.temperature,
        rectify_pooled=True,
        pooled_stride=config.logits_stride,
        name='cost_volume',
    )
    self._mixer = Mixer(
        num_blocks=config.mixer_blocks,
        channels=config.mixer_channels,
        multiplier=_MIXER_MULTIPLIER,
        output_channels=_STATE_INPUTS + fine_channels + coarse_channels,
        temporal=config.temporal,
        name='mixer',
    )

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> FeatureGrids:
    """Returns the features of a frame that has the size of a level."""
    stem, _, fine, _, coarse = self._resnet(frame[None])
    coarse = normalize_vectors(self._extra_convs(coarse))
    pooled = [coarse]
    for _ in range(self._config.pooled_levels):
      pooled.append(_halve(pooled[-1]))
    grids = FeatureGrids(
        normalize_vectors(fine),
        coarse,
        tuple(pooled[1:]),
        stem if self._config.stem_support_radius else None,
    )
    return jax.tree.map(lambda grid: grid[0], grids)

  def estimate_frame(
      self,
      grid: Float[Array, 'h8 w8 c8'],
      vectors: Float[Array, 'n c8'],
      bias: Float[Array, 'n h8 w8'] | None = None,
      other_vectors: Float[Array, 'n c8'] | None = None,
  ) -> FrameEstimate:
    """Guesses where one frame shows each query."""
    return self._cost_volume(grid, vectors, bias, other_vectors)

  def mix(
      self,
      inputs: Float[Array, 'n t c'],
      memory: BlockMemory | None,
      num_frames: NumFrames | None = None,
  ) -> tuple[Float[Array, 'n t o'], BlockMemory | None]:
    """Returns how to change the state of each track."""
    is_frame = None
    if num_frames is not None:
      is_frame = jnp.arange(inputs.shape[1]) < num_frames
    return self._mixer(inputs, memory, is_frame)


@functools.cache
def make_functions(config: TapirConfig) -> TrackerFunctions:
  """Returns TAPIR as pure functions; see `TrackerFunctions`.

  Equal configs get the same functions, and so share what was compiled.

  Features are a tuple of `FeatureGrids`, query features one of `QueryVectors`.
  """
  _check_config(config)
  stages = make_stages(
      lambda: Tapir(config),
      ('encode_frame', 'estimate_frame', 'mix'),
      lambda module: _touch(module, config),
  )
  resolutions = list_resolutions(config)
  initial = config.initial_resolution
  first_level = resolutions.index(initial)

  def encode_video(
      params: Params,
      video: Float[Array, 'b t h w 3'],
      num_frames: NumFrames | None = None,
  ) -> Features:
    del num_frames  # Every frame is encoded by itself.
    batch, length = video.shape[:2]

    def encode_at(resolution: Resolution) -> FeatureGrids:
      frames = resize_video(video, resolution)
      frames = frames.reshape(batch * length, *resolution, 3)
      grids = map_frames(
          lambda frame: stages.apply('encode_frame', params, frame),
          frames,
          at_once=config.frames_at_once,
      )
      return jax.tree.map(
          lambda grid: grid.reshape(batch, length, *grid.shape[1:]), grids
      )

    return tuple(encode_at(resolution) for resolution in resolutions)

  def describe_queries(
      params: Params, features: Features, query_points: Float[Array, 'b n 3']
  ) -> QueryFeatures:
    del params  # Interpolation has none.

    def locate(grid: Float[Array, 'b t h w c']) -> Float[Array, 'b n 3']:
      return rescale_query_points(
          query_points, config.resolution, grid.shape[2:4]
      )

    def describe(grid: Float[Array, 'b t h w c']) -> Float[Array, 'b n c']:
      return map_batch(read_at_time, grid, locate(grid))

    def read_around(
        grid: Float[Array, 'b t h w c'], radius: int
    ) -> Float[Array, 'b n q c']:
      cells = map_batch(
          lambda grid, points: read_neighborhoods_at_time(grid, points, radius),
          grid,
          locate(grid),
      )
      return jax.lax.collapse(cells, 2, 4)

    def describe_at(grids: FeatureGrids) -> QueryVectors:
      supports = stem_supports = None
      if radius := config.support_radius:
        supports = read_around(grids.fine, radius)
        supports /= math.sqrt(_count_cells(radius))
      if radius := config.stem_support_radius:
        assert grids.stem is not None, 'it counts'
        stem_supports = _equalize(read_around(grids.stem, radius))
        stem_supports /= math.sqrt(_count_cells(radius))
      return QueryVectors(
          describe(grids.fine),
          describe(grids.coarse),
          supports,
          stem_supports,
      )

    return tuple(map(describe_at, features))

  def guess_frame(
      params: Params,
      grid: Float[Array, 'h w c'],
      vectors: Float[Array, 'n c'],
      targets: Float[Array, 'n 2'] | None,
      course: Course | None = None,
  ) -> tuple[TrackState, Float[Array, 'n'] | None]:
    height, width = grid.shape[:2]
    cells = (height, width)
    bias = others = None
    if course is not None and config.motion_weight:
      bias = _favor_course(course, cells, config)
    if course is not None and config.lone_template_weight:
      others = _pick_templates(vectors, course, config)
    estimate = stages.apply(
        'estimate_frame', params, grid, vectors, bias, others
    )
    positions = rescale_positions(estimate.positions, cells, config.resolution)
    state = TrackState(positions, *jnp.moveaxis(estimate.logits, -1, 0))
    if targets is None:
      return state, None
    targets = rescale_positions(targets, config.resolution, cells)
    assert estimate.heatmap is not None, 'a cost volume tells it'
    return state, score_positions(estimate.heatmap, targets)

  def guess_tracks(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      target_points: Float[Array, 'b n t 2'] | None,
  ) -> tuple[TrackState, Float[Array, 'b n t'] | None]:
    def initialize(
        grids: Float[Array, 't h w c'],
        vectors: Float[Array, 'n c'],
        query_points: Float[Array, 'n 3'] | None,
        target_points: Float[Array, 'n t 2'] | None,
    ) -> tuple[TrackState, Float[Array, 'n t'] | None]:
      guesses = map_frames(
          lambda grid, targets: guess_frame(params, grid, vectors, targets),
          grids,
          _swap(target_points),
      )
      state, scores = _swap(guesses)
      if query_points is not None:
        state = pass_through_queries(state, query_points)
      return state, scores

    return map_batch(
        initialize,
        features[first_level].coarse,
        query_features[first_level].coarse,
        query_points,
        target_points,
    )

  def refine(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
      looks: Float[Array, 'n t c'] | None,
      memory: BlockMemory | None,
      num_frames: NumFrames | None,
  ) -> tuple[TrackState, BlockMemory | None]:
    positions = rescale_positions(state.positions, config.resolution, initial)
    occlusion, uncertainty = _get_logits(state)
    levels = _list_refinement_levels(config)
    memories = jax.tree.map(
        lambda array: array.reshape(
            len(levels), config.num_iterations, *array.shape[1:]
        ),
        memory,
    )
    states = []
    new_memories = []
    for i, level in enumerate(levels):
      # PARITY: each level starts from the first guess of the logits, but from
      # the last level's positions (test_tapir_parity, multires).
      start = Refinement(
          positions,
          occlusion,
          uncertainty,
          _repeat_over_time(
              query_features[level],
              positions.shape[1],
              looks if resolutions[level] == initial else None,
          ),
      )
      level_states, level_memory = _refine_at_level(
          lambda *arguments: stages.apply(
              'mix', params, *arguments, num_frames
          ),
          features[level],
          query_features[level],
          start,
          jax.tree.map(lambda array, i=i: array[i], memories),
          config,
          resolutions[level],
      )
      positions = level_states.positions[-1]
      states.append(level_states)
      new_memories.append(level_memory)
    states = jax.tree.map(lambda *parts: jnp.concatenate(parts), *states)
    positions = rescale_positions(states.positions, initial, config.resolution)
    memory = jax.tree.map(lambda *parts: jnp.concatenate(parts), *new_memories)
    return states._replace(positions=positions), memory

  def follow_frame(
      params: Params,
      query_features: QueryFeatures,
      query_points: Float[Array, 'n 3'] | None,
      memory: TapirMemory,
      frame: Int[Array, ''],
      features: Features,
      targets: Float[Array, 'n 2'] | None,
      guess: TrackState | None,
  ) -> tuple[TapirMemory, Estimate]:
    course = memory.course
    assert course is not None, 'tracks are followed'
    grid = features[first_level].coarse
    looks = _join_looks(query_features[first_level].coarse, course, config)
    scores = None
    if guess is None:
      guess, scores = guess_frame(params, grid, looks, targets, course)
      if query_points is not None:
        guess = pass_through_queries(guess, query_points, frame)
    states, blocks = refine(
        params,
        jax.tree.map(lambda array: array[None], features),
        query_features,
        jax.tree.map(lambda array: array[:, None], guess),
        looks[:, None],
        BlockMemory(memory.inputs, memory.hidden),
        None,
    )
    states = jax.tree.map(lambda array: array[:, :, 0], states)
    course = _add_to_course(
        course, grid, frame, conclude(states), query_points, config
    )
    assert blocks is not None, 'a memory was given'
    memory = TapirMemory(blocks.inputs, blocks.hidden, course)
    return memory, Estimate(guess, states, None, scores)

  def follow_tracks(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: TapirMemory | None = None,
      extent: Extent | None = None,
      target_points: Float[Array, 'b n t 2'] | None = None,
      guesses: TrackState | None = None,
  ) -> Estimate:
    def follow_track(
        features: Features,
        query_features: QueryFeatures,
        query_points: Float[Array, 'n 3'] | None,
        memory: TapirMemory,
        target_points: Float[Array, 'n t 2'] | None,
        guesses: TrackState | None,
    ) -> Estimate:
      def step(
          memory: TapirMemory, inputs: tuple[Any, ...]
      ) -> tuple[TapirMemory, Estimate]:
        frame, *rest = inputs
        new, estimate = follow_frame(
            params, query_features, query_points, memory, frame, *rest
        )
        if extent is not None:
          is_frame = frame < extent.num_frames
          new = jax.tree.map(
              functools.partial(jnp.where, is_frame), new, memory
          )
        return new, estimate

      frames = jnp.arange(features[0].coarse.shape[0])
      inputs = frames, features, _swap(target_points), _swap(guesses)
      memory, estimates = jax.lax.scan(step, memory, inputs)
      return Estimate(
          _swap(estimates.guess),
          jax.tree.map(
              lambda array: jnp.moveaxis(array, 0, 2), estimates.states
          ),
          memory,
          _swap(estimates.scores),
      )

    before = memory
    if before is None:
      before = begin(query_features[first_level].coarse)
    estimate = map_batch(
        follow_track,
        features,
        query_features,
        query_points,
        before,
        target_points,
        guesses,
    )
    return estimate._replace(
        states=_swap(estimate.states),
        # Without one, the video ends here.
        memory=None if memory is None else estimate.memory,
    )

  def initialize_tracks(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      memory: TapirMemory | None = None,
  ) -> TrackState:
    arguments = params, features, query_features, query_points
    if config.follows:
      return follow_tracks(*arguments, memory).guess
    state, _ = guess_tracks(*arguments, None)
    return state

  def initialize_in_training(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      query_points: Float[Array, 'b n 3'] | None,
      target_points: Float[Array, 'b n t 2'],
  ) -> tuple[TrackState, Float[Array, 'b n t']]:
    state, scores = guess_tracks(
        params, features, query_features, query_points, target_points
    )
    assert scores is not None, 'targets are scored'
    return state, scores

  def refine_tracks(
      params: Params,
      features: Features,
      query_features: QueryFeatures,
      state: TrackState,
      memory: TapirMemory | None = None,
      extent: Extent | None = None,
      query_points: Float[Array, 'b n 3'] | None = None,
  ) -> tuple[TrackState, TapirMemory | None]:
    if config.follows:
      estimate = follow_tracks(
          params,
          features,
          query_features,
          query_points,
          memory,
          extent,
          guesses=state,
      )
      return estimate.states, estimate.memory
    if memory is not None and config.temporal != 'past':
      raise ValueError(
          'memory must be None for a tracker that sees the future; got one - '
          'use a causal preset, such as causal_bootstapir'
      )
    num_frames = None if extent is None else extent.num_frames
    states, blocks = map_batch(
        lambda features, query_features, state, memory: refine(
            params, features, query_features, state, None, memory, num_frames
        ),
        features,
        query_features,
        state,
        None if memory is None else BlockMemory(memory.inputs, memory.hidden),
    )
    if blocks is not None:
      memory = TapirMemory(blocks.inputs, blocks.hidden, None)
    return _swap(states), memory

  def conclude(states: TrackState) -> TrackState:
    return jax.tree.map(
        lambda array: jnp.mean(
            array[config.num_iterations - 1 :: config.num_iterations], axis=0
        ),
        states,
    )

  def finalize_tracks(states: TrackState) -> Tracks:
    last = conclude(states)
    return Tracks(
        last.positions,
        _estimate_shown(last) > config.visibility_threshold,
        last.occlusion_logits,
        last.uncertainty_logits,
    )

  def begin(vectors: Float[Array, 'b n c']) -> TapirMemory:
    batch, num_queries = vectors.shape[:2]
    iterations = len(_list_refinement_levels(config)) * config.num_iterations
    leading = (batch, iterations, config.mixer_blocks, num_queries, TAPS - 1)
    channels = config.mixer_channels
    return TapirMemory(
        inputs=jnp.zeros((*leading, channels), jnp.float32),
        hidden=jnp.zeros((*leading, _MIXER_MULTIPLIER, channels), jnp.float32),
        course=_make_course(vectors) if config.follows else None,
    )

  def make_memory(num_queries: int, batch: int = 1) -> TapirMemory:
    _, coarse = config.feature_channels
    return begin(jnp.zeros((batch, num_queries, coarse)))

  functions = TrackerFunctions(
      resolution=config.resolution,
      temporal_context=0,
      init=stages.init,
      encode_video=encode_video,
      describe_queries=describe_queries,
      initialize_tracks=initialize_tracks,
      refine_tracks=refine_tracks,
      finalize_tracks=finalize_tracks,
      make_memory=make_memory if config.temporal == 'past' else None,
      initialize_in_training=(
          None if config.follows else initialize_in_training
      ),
      follow_tracks=follow_tracks if config.follows else None,
  )
  return set_precision(functions, config.precision)


def list_resolutions(config: TapirConfig) -> tuple[Resolution, ...]:
  """Returns the distinct resolutions at which features are computed."""
  refinement = list_refinement_resolutions(config)
  return tuple(dict.fromkeys((config.initial_resolution, *refinement)))


def list_refinement_resolutions(config: TapirConfig) -> tuple[Resolution, ...]:
  """Returns the resolutions of the refinement, in order.

  By default they grow geometrically from the initial one to the video's, which
  is rounded down to multiples of 8.
  """
  if config.refinement_resolutions is not None:
    return config.refinement_resolutions
  return list_growing_resolutions(
      config.initial_resolution, config.resolution, _STRIDE
  )


def _check_config(config: TapirConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  if len(config.channels) != 4 or len(config.strides) != 4:
    raise ValueError(
        'channels and strides must have four entries, one for each group; got '
        f'{config.channels} and {config.strides}'
    )
  for name in (
      'num_iterations',
      'mixer_blocks',
      'mixer_channels',
      'frames_at_once',
      'logits_stride',
  ):
    if getattr(config, name) < 1:
      raise ValueError(
          f'{name} must be at least 1; got {getattr(config, name)}'
      )
  for name in (
      'num_extra_convs',
      'pooled_levels',
      'radius',
      'support_radius',
      'stem_support_radius',
  ):
    if getattr(config, name) < 0:
      raise ValueError(
          f'{name} must be at least 0; got {getattr(config, name)}'
      )
  for name in (
      'temperature',
      'position_weight',
      'template_weight',
      'lone_template_weight',
      'motion_weight',
  ):
    if not math.isfinite(getattr(config, name)):
      raise ValueError(f'{name} must be finite; got {getattr(config, name)}')
  if not 0 <= config.template_rate <= 1:
    raise ValueError(
        f'template_rate must be between 0 and 1; got {config.template_rate}'
    )
  if config.follows and config.temporal != 'past':
    raise ValueError(
        "temporal must be 'past' where a frame's guess depends on those "
        'before, with a weight of templates or of motion; got '
        f'{config.temporal!r}'
    )
  if not config.motion_reach > 0:
    raise ValueError(
        f'motion_reach must be positive; got {config.motion_reach}'
    )
  if not list_refinement_resolutions(config):
    raise ValueError('refinement_resolutions must have an entry; got none')
  smallest = _STRIDE * 2**config.pooled_levels
  for height, width in list_resolutions(config):
    if height % _STRIDE or width % _STRIDE or min(height, width) < smallest:
      raise ValueError(
          'initial_resolution and refinement_resolutions must be multiples of '
          f'{_STRIDE}, of at least {smallest} with {config.pooled_levels} '
          f'pooled levels; got {(height, width)} (where not given, they follow '
          f'from resolution {config.resolution}) - choose a larger one'
      )


def _list_refinement_levels(config: TapirConfig) -> list[int]:
  """Returns the index into the features for each refinement resolution."""
  resolutions = list_resolutions(config)
  return [
      resolutions.index(resolution)
      for resolution in list_refinement_resolutions(config)
  ]


def _swap(arrays: PyTree) -> PyTree:
  """Exchanges the first two axes of every array."""
  return jax.tree.map(lambda array: array.swapaxes(0, 1), arrays)


def _refine_at_level(
    mix: Callable[..., tuple[Array, BlockMemory | None]],
    grids: FeatureGrids,
    vectors: QueryVectors,
    start: Refinement,
    memory: BlockMemory | None,
    config: TapirConfig,
    resolution: Resolution,
) -> tuple[TrackState, BlockMemory | None]:
  """Refines tracks on one set of grids; positions at the initial resolution."""

  def iterate(
      now: Refinement, memory: BlockMemory | None
  ) -> tuple[Refinement, tuple[TrackState, BlockMemory | None]]:
    places = rescale_positions(now.positions, config.initial_resolution, (1, 1))
    logits = jnp.stack([now.occlusion_logits, now.uncertainty_logits], axis=-1)
    inputs = jnp.concatenate(
        [
            config.position_weight * (places - 0.5),
            logits,
            now.features,
            _correlate_tracks(grids, vectors, now, config),
        ],
        axis=-1,
    )
    changes, memory = mix(inputs, memory)
    now = Refinement(
        positions=now.positions
        + rescale_positions(
            changes[..., :2], resolution, config.initial_resolution
        ),
        occlusion_logits=now.occlusion_logits + changes[..., 2],
        uncertainty_logits=now.uncertainty_logits + changes[..., 3],
        features=now.features + changes[..., _STATE_INPUTS:],
    )
    return now, (TrackState(*now[:3]), memory)

  _, outputs = jax.lax.scan(
      iterate, start, memory, length=config.num_iterations
  )
  return outputs


def _repeat_over_time(
    vectors: QueryVectors,
    num_frames: int,
    looks: Float[Array, 'n t c8'] | None,
) -> Float[Array, 'n t c']:
  """Returns the features that a track starts with on every frame.

  They are the query's, but for looks that are given in place of coarse ones.
  """
  fine, coarse = (
      jnp.repeat(array[:, None], num_frames, axis=1)
      for array in (vectors.fine, vectors.coarse)
  )
  return jnp.concatenate([fine, coarse if looks is None else looks], axis=-1)


def _make_course(vectors: Float[Array, '*b n c']) -> Course:
  """Returns what is known before the first frame: nothing, so all are zeros."""
  *shape, _ = vectors.shape
  return Course(
      templates=jnp.zeros_like(vectors),
      positions=jnp.zeros((*shape, 2), jnp.float32),
      velocities=jnp.zeros((*shape, 2), jnp.float32),
      shown=jnp.zeros(shape, jnp.float32),
  )


def _join_looks(
    vectors: Float[Array, 'n c'], course: Course, config: TapirConfig
) -> Float[Array, 'n c']:
  """Returns what to look for: the query, and what the track looked like."""
  return normalize_vectors(vectors + config.template_weight * course.templates)


def _pick_templates(
    vectors: Float[Array, 'n c'], course: Course, config: TapirConfig
) -> Float[Array, 'n c']:
  """Returns what tracks looked like, or `vectors` of those not seen so far."""
  templates = config.lone_template_weight * normalize_vectors(course.templates)
  was_seen = jnp.any(course.templates != 0, axis=-1, keepdims=True)
  return jnp.where(was_seen, templates, vectors)


def _favor_course(
    course: Course, cells: Resolution, config: TapirConfig
) -> Float[Array, 'n h w']:
  """Returns what the heatmap's logits lose where tracks were not going."""
  expected = rescale_positions(
      course.positions + course.velocities, config.resolution, cells
  )
  y, x = (jnp.arange(side, dtype=jnp.float32)[None] + 0.5 for side in cells)
  squared = (
      jnp.square(y - expected[:, 1:])[:, :, None]
      + jnp.square(x - expected[:, :1])[:, None]
  )
  loss = (config.motion_weight * course.shown)[:, None, None]
  return -loss * (squared / (squared + config.motion_reach**2))


def _add_to_course(
    course: Course,
    grid: Float[Array, 'h w c'],
    frame: Int[Array, ''],
    state: TrackState,
    query_points: Float[Array, 'n 3'] | None,
    config: TapirConfig,
) -> Course:
  """Adds a frame: what it shows where each track was found to be.

  Frames before the query, of which little is sure, are left out.
  """
  # Positions learn from their own losses, not through what is read there.
  positions = jax.lax.stop_gradient(state.positions)
  points = rescale_positions(positions, config.resolution, grid.shape[:2])
  frames = jnp.zeros(points.shape[:1], jnp.int32)
  looks = read_in_frames(grid[None], frames, jnp.flip(points, axis=-1))
  shown = _estimate_shown(state)
  if query_points is not None:
    shown = jnp.where(frame < round_query_times(query_points), 0.0, shown)
  share = (config.template_rate * shown)[:, None]
  was_seen = (course.shown > 0)[:, None]
  return Course(
      templates=course.templates + share * (looks - course.templates),
      positions=positions,
      velocities=jnp.where(was_seen, positions - course.positions, 0.0),
      shown=jax.lax.stop_gradient(shown),
  )


def _estimate_shown(state: TrackState) -> Float[Array, '*nt']:
  """Returns the chance that a point is not hidden and its position right."""
  occlusion, uncertainty = _get_logits(state)
  return jax.nn.sigmoid(-occlusion) * jax.nn.sigmoid(-uncertainty)


def _get_logits(
    state: TrackState,
) -> tuple[Float[Array, '*nt'], Float[Array, '*nt']]:
  """Returns both logits, of occlusion and of uncertainty."""
  assert state.occlusion_logits is not None, 'TAPIR estimates both logits'
  assert state.uncertainty_logits is not None, 'TAPIR estimates both logits'
  return state.occlusion_logits, state.uncertainty_logits


def _correlate_tracks(
    grids: FeatureGrids,
    vectors: QueryVectors,
    now: Refinement,
    config: TapirConfig,
) -> Float[Array, 'n t p']:
  """Correlates the features of each track with the grids around it.

  And those around its query with the fine grid and with the stem.
  """
  fine, coarse = jnp.split(now.features, [config.feature_channels[0]], axis=-1)

  def locate(grid: Float[Array, 't h w c']) -> Float[Array, 't n 2']:
    points = rescale_positions(
        now.positions, config.initial_resolution, grid.shape[1:3]
    )
    return jnp.flip(points, axis=-1).swapaxes(0, 1)

  def correlate(
      correlate_frame: Callable[..., Float[Array, 'n p']],
      grids: Float[Array, 't h w c'],
      *vectors: Float[Array, 'n t c'],
  ) -> Float[Array, 'n t p']:
    patches = map_frames(
        functools.partial(correlate_frame, radius=config.radius),
        grids,
        locate(grids),
        *(array.swapaxes(0, 1) for array in vectors),
    )
    return patches.swapaxes(0, 1)

  correlations = [
      correlate(correlate_patches, grids.fine, fine),
      *(
          correlate(correlate_patches, grid, coarse)
          for grid in (grids.coarse, *grids.pooled)
      ),
  ]
  if (supports := vectors.supports) is not None:

    def correlate_supports(
        grid: Float[Array, 'h w c'], points_yx: Float[Array, 'n 2'], radius: int
    ) -> Float[Array, 'n p']:
      scores = correlate_neighborhoods(grid, points_yx, supports, radius)
      return jax.lax.collapse(scores, 1)

    correlations.append(correlate(correlate_supports, grids.fine))
  if (stem_supports := vectors.stem_supports) is not None:
    assert grids.stem is not None, 'it counts'
    correlate_stem = functools.partial(
        _correlate_contrasts, supports=stem_supports
    )
    correlations.append(correlate(correlate_stem, grids.stem))
  return jnp.concatenate(correlations, axis=-1)


def _correlate_contrasts(
    grid: Float[Array, 'h w c'],
    points_yx: Float[Array, 'n 2'],
    supports: Float[Array, 'n q c'],
    radius: int,
) -> Float[Array, 'n p']:
  """Dots several vectors each with the contrasts at offsets around a point."""
  cells = read_neighborhoods(grid, points_yx, radius)
  patches = _equalize(jax.lax.collapse(cells, 1, 3))
  scores = jnp.einsum('nqc,npc->nqp', supports, patches)
  return jax.lax.collapse(scores, 1)


def _equalize(cells: Float[Array, '*n p c']) -> Float[Array, '*n p c']:
  """Returns contrasts to the mean of a patch, of about unit length each."""
  contrasts = cells - jnp.mean(cells, axis=-2, keepdims=True)
  squared = jnp.sum(jnp.square(contrasts), axis=-1, keepdims=True)
  variance = jnp.mean(squared, axis=-2, keepdims=True)
  return contrasts * jax.lax.rsqrt(variance + _LEAST_CONTRAST)


def _halve(grid: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ c']:
  """Averages 2x2 cells; an odd last row or column is dropped."""
  # PARITY: positions are scaled by the size of what is left
  # (test_pooled_grids_of_odd_size).
  return hk.avg_pool(grid, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')


def _count_cells(radius: int) -> int:
  """Returns the number of cells of a patch."""
  return (2 * radius + 1) ** 2


def _count_supports(config: TapirConfig) -> tuple[int, int]:
  """Returns how many cells around a query count: of the fine grid and stem."""
  fine, stem = (
      _count_cells(radius) if radius else 0
      for radius in (config.support_radius, config.stem_support_radius)
  )
  return fine, stem


def _count_correlations(config: TapirConfig) -> int:
  """Returns the number of correlations that the refinement sees of a track."""
  patches = 2 + config.pooled_levels + sum(_count_supports(config))
  return patches * _count_cells(config.radius)


def _touch(module: Tapir, config: TapirConfig) -> None:
  """Calls every part of the module once, on the smallest of inputs."""
  coarse = module.encode_frame(jnp.zeros((32, 32, 3), jnp.float32)).coarse
  vectors = jnp.zeros((1, coarse.shape[-1]), jnp.float32)
  module.estimate_frame(coarse, vectors)
  width = (
      _STATE_INPUTS + sum(config.feature_channels) + _count_correlations(config)
  )
  module.mix(jnp.zeros((1, 1, width), jnp.float32), None)


def list_weight_names(config: TapirConfig) -> Iterator[WeightName]:
  """Lists every module with its name in the published files."""
  yield from list_resnet_names(
      'tapir/~/resnet/~/', 'resnet_torch.', len(config.channels)
  )

  for layer in range(config.num_extra_convs):
    ours, haiku = 'tapir/~/extra_convs/~/', 'tapir/~/extra_convs/'
    torch = f'extra_convs.blocks.{layer}.'
    yield WeightName(
        'norm',
        f'{ours}layer_norm_{layer}',
        haiku + make_haiku_name('layer_norm', layer),
        torch + 'layer_norm',
    )
    for i, role in enumerate(('expand', 'reduce')):
      yield WeightName(
          'conv2d_bias',
          f'{ours}{role}_{layer}',
          haiku + make_haiku_name('conv2_d', 2 * layer + i),
          torch + make_haiku_name('conv', i),
      )

  yield from list_cost_volume_names(
      'tapir/~/', 'conv2d_bias', 'torch_cost_volume_track_mods.'
  )

  ours, haiku = 'tapir/~/mixer/~/', 'tapir/~/pips_mlp_mixer/'
  torch = 'torch_pips_mixer.'
  yield WeightName('linear', ours + 'input', haiku + 'linear', torch + 'linear')
  yield WeightName(
      'scale', ours + 'layer_norm', haiku + 'layer_norm', torch + 'layer_norm'
  )
  yield WeightName(
      'linear', ours + 'output', haiku + 'linear_1', torch + 'linear_1'
  )
  layers: tuple[tuple[Kind, str, str, str], ...] = (
      ('scale', 'time_layer_norm', '', 'layer_norm'),
      ('conv1d', 'time_expand', '', 'mlp1_up'),
      ('conv1d', 'time_reduce', '', 'mlp1_up_1'),
      ('scale', 'channel_layer_norm', '', 'layer_norm_1'),
      ('linear', 'channel_up', 'conv_channels_mixer.', 'mlp2_up'),
      ('linear', 'channel_down', 'conv_channels_mixer.', 'mlp2_down'),
  )
  for i in range(config.mixer_blocks):
    for kind, name, prefix, published in layers:
      yield WeightName(
          kind,
          f'{ours}block_{i}/~/{name}',
          f'{haiku}{make_haiku_name("block", i)}/{published}',
          f'{torch}blocks.{i}.{prefix}{published}',
      )


def infer_config(
    config: TapirConfig, shapes: Mapping[str, tuple[int, ...]]
) -> TapirConfig:
  """Takes the number of pooled levels of a causal network from its file.

  Published programs disagree about it there, and the width of the mixer's input
  decides. `shapes` are those of the file, under its own names.
  """
  if config.temporal != 'past':
    return config
  rows = None
  if (
      shape := shapes.get('params|tapir/~/pips_mlp_mixer/linear|w')
  ) is not None:
    rows = shape[0]
  elif (shape := shapes.get('torch_pips_mixer.linear.weight')) is not None:
    rows = shape[-1]
  if rows is None:
    return config
  patches, remainder = divmod(
      rows - _STATE_INPUTS - sum(config.feature_channels),
      _count_cells(config.radius),
  )
  levels = patches - sum(_count_supports(config))
  if remainder or levels < 2:
    return config
  return dataclasses.replace(config, pooled_levels=levels - 2)


def count_operations(
    config: TapirConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  fine, coarse = config.feature_channels
  frame = 0.0
  for height, width in list_resolutions(config):
    frame += count_resnet(1.0 * height * width, config.channels, config.strides)
    pixels = height * width / _STRIDE**2
    expanded = coarse * _CONV_EXPANSION
    frame += (
        2
        * config.num_extra_convs
        * count_convolution(pixels, 3, coarse, expanded)
    )

  cells = math.prod(config.initial_resolution) / _STRIDE**2
  width, hidden = (
      config.mixer_channels,
      config.mixer_channels * _MIXER_MULTIPLIER,
  )
  state = _STATE_INPUTS + fine + coarse
  fine_supports, stem_supports = _count_supports(config)
  iteration = 2 * (
      (state + _count_correlations(config)) * width
      + config.mixer_blocks * (2 * width * hidden + 2 * TAPS * hidden)
      + width * state
      + (2 * config.radius + 2) ** 2
      * (
          fine * (1 + fine_supports)
          + config.channels[0] * stem_supports
          + coarse * (1 + config.pooled_levels)
      )
  )
  num_iterations = (
      len(list_refinement_resolutions(config)) * config.num_iterations
  )
  point = (
      count_cost_volume(cells, coarse, config.logits_stride)
      + num_iterations * iteration
  )
  return num_frames * (frame + num_queries * point)
