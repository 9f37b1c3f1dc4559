"""The contract of every tracker, and the last place that knows of Haiku.

Above this line a tracker is a `TrackerFunctions`: pure functions over explicit
parameters, which one may jit, vmap, differentiate and compose.

```
video ──encode_video──► Features ──describe_queries──► QueryFeatures
                           └─────────────┬────────────────┘
                           initialize_tracks ──► TrackState
                                                   │ refine_tracks
                                  TrackState per iteration
                                                   │ finalize_tracks
                                                 Tracks
```

`estimate_tracks` is the two in the middle. For a tracker whose guess on a frame
builds on what was refined before, it does both frame by frame.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any, Literal, NamedTuple, Protocol

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.geometry import Resolution
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

Video = Float[Array, 'b t h w 3']
QueryPoints = Float[Array, 'b n 3']
NumFrames = Int[Array | np.ndarray, '']
NumQueries = Int[Array | np.ndarray, '']
Precision = Literal['default', 'high', 'highest', 'bfloat16']

# The functions of a tracker in which there are matrix products.
_ENCODERS = ('encode_video', 'encode_in_training')
_ESTIMATORS = (
    'describe_queries',
    'initialize_tracks',
    'initialize_in_training',
    'refine_tracks',
    'finalize_tracks',
    'follow_tracks',
)


class Params(NamedTuple):
  """What a tracker has learned: `{module: {name: array}}`, twice.

  `weights` are what an optimizer changes; `statistics` are running averages
  that batch norms keep, and empty for most trackers.
  """

  weights: Mapping[str, Mapping[str, Any]]
  statistics: Mapping[str, Mapping[str, Any]]


class Extent(NamedTuple):
  """How much of a padded call is true: its first frames and queries.

  What is returned for these is what it would be without the others, whatever
  those are. So one compiled program serves many videos.
  """

  num_frames: NumFrames
  num_queries: NumQueries


class EncodeVideo(Protocol):
  """Features of a video, whose frames from `num_frames` on are padding."""

  def __call__(
      self, params: Params, video: Video, num_frames: NumFrames | None = None
  ) -> PyTree:
    ...


class EncodeInTraining(Protocol):
  """Features of a video, and the statistics of norms behind it.

  The key is of what is random.
  """

  def __call__(
      self, params: Params, video: Video, key: Array
  ) -> tuple[PyTree, PyTree]:
    ...


class RefineTracks(Protocol):
  """Improves tracks step by step.

  Returns the state after every iteration, on a new first axis. A tracker that
  streams takes the memory of the frames before these and returns the memory
  for those after them; without one the video begins and ends here. With an
  extent, all arrays but the first are padded. The query points are those that
  `initialize_tracks` was given.
  """

  def __call__(
      self,
      params: Params,
      features: PyTree,
      query_features: PyTree,
      state: TrackState,
      memory: PyTree | None = None,
      extent: Extent | None = None,
      query_points: QueryPoints | None = None,
  ) -> tuple[TrackState, PyTree | None]:
    ...


class InitializeTracks(Protocol):
  """Guesses every track at once.

  Where query points are given, a track passes through its query on the query's
  own frame; without them nothing is known but what the queries look like. The
  memory is that which `refine_tracks` takes as well.
  """

  def __call__(
      self,
      params: Params,
      features: PyTree,
      query_features: PyTree,
      query_points: QueryPoints | None,
      memory: PyTree | None = None,
  ) -> TrackState:
    ...


class InitializeInTraining(Protocol):
  """The first guess of every track, and how likely it held each target.

  That is the logarithm of the chance of the target's position, `[b, n, t]`.
  """

  def __call__(
      self,
      params: Params,
      features: PyTree,
      query_features: PyTree,
      query_points: QueryPoints | None,
      target_points: Float[Array, 'b n t 2'],
  ) -> tuple[TrackState, Array]:
    ...


class Estimate(NamedTuple):
  """The first guess of tracks, and what became of it.

  Attributes:
    guess: of every track, `[b, n, t]`.
    states: after every iteration, `[i, b, n, t]`.
    memory: for the frames behind these, if one was given.
    scores: logarithms of the chances of targets, `[b, n, t]`, if they were.
  """

  guess: TrackState
  states: TrackState
  memory: PyTree | None
  scores: Float[Array, '*b'] | None


class FollowTracks(Protocol):
  """Guesses and refines every track, one frame after the other.

  Arguments are those of `InitializeTracks`, `InitializeInTraining` and
  `RefineTracks`. Given guesses are refined in place of its own.
  """

  def __call__(
      self,
      params: Params,
      features: PyTree,
      query_features: PyTree,
      query_points: QueryPoints | None,
      memory: PyTree | None = None,
      extent: Extent | None = None,
      target_points: Float[Array, 'b n t 2'] | None = None,
      guesses: TrackState | None = None,
  ) -> Estimate:
    ...


class Chain(NamedTuple):
  """How a tracker follows a long video piece by piece, in bounded memory.

  The pieces are consecutive blocks of `window` frames (the last one padded), in
  pairs: first forward, then back in time. Whatever the order of frames that a
  track needs, it finds them in one of them.

  Attributes:
    window: frames that are refined together.
    begin: from query points `[n, 3]`, the number of frames of the video and of
      those that there is room for to what is known of the tracks.
    advance: from parameters, the features of a piece, the frame with which the
      piece begins and what is known before it to what is known behind it.
    finish: from what is known to tracks `[n, t]`.
  """

  window: int
  begin: Callable[[Float[Array, 'n 3'], NumFrames, int], PyTree]
  advance: Callable[[Params, PyTree, Array, PyTree], PyTree]
  finish: Callable[[PyTree], Tracks]


class TrackerFunctions(NamedTuple):
  """A tracker as pure functions.

  Videos are float32 `[b, t, h, w, 3]` in [-1, 1] at `resolution`, and all
  positions are pixels of that resolution. The type of the features and of the
  query features is the tracker's own business.

  Attributes:
    resolution: (height, width) of the videos that the functions take.
    temporal_context: the number of frames on either side that the features of a
      frame depend on; a video may be encoded in overlapping pieces.
    init: makes random parameters from a key.
    encode_video: video to features; every array leads with batch and time.
    describe_queries: features at the query points (t, y, x); every array leads
      with batch and queries.
    initialize_tracks: first guess of every track.
    refine_tracks: the guess after each iteration.
    finalize_tracks: what the iterations amount to.
    make_memory: memory of a video that has not begun, for a number of queries
      and, if it is not one, the size of the batch; None for a tracker that does
      not stream.
    chain: how a video of more than two windows is tracked; None for a tracker
      that sees all frames at once.
    queries_independent: whether a track depends on its own query alone; where
      it does not, all queries of a call are tracked together.
    shortest_padded: frames that a video must have to be padded; to a shorter
      one, the network itself is fitted.
    encode_in_training: video to features, and the statistics of norms behind
      it; for use in a mapped function, as norms see the videos of all devices.
      None where there are no statistics.
    refines: whether iterations change the first guess.
    initialize_in_training: the first guess, and how likely targets are by it.
      None where that is not told.
    follow_tracks: guess and refinement in one, where the guess on a frame
      depends on what was refined before; None where it does not. Both by
      themselves give the same, in more time: see `estimate_tracks`.
  """

  resolution: Resolution
  temporal_context: int
  init: Callable[[Array], Params]
  encode_video: EncodeVideo
  describe_queries: Callable[[Params, PyTree, QueryPoints], PyTree]
  initialize_tracks: InitializeTracks
  refine_tracks: RefineTracks
  finalize_tracks: Callable[[TrackState], Tracks]
  make_memory: Callable[..., PyTree] | None
  chain: Chain | None = None
  queries_independent: bool = True
  shortest_padded: int = 1
  encode_in_training: EncodeInTraining | None = None
  refines: bool = True
  initialize_in_training: InitializeInTraining | None = None
  follow_tracks: FollowTracks | None = None
  streams: bool = False


def set_precision(
    functions: TrackerFunctions, precision: Precision
) -> TrackerFunctions:
  """Returns the functions with matrix products at that precision.

  With 'bfloat16' all of the encoding is in that type as well, but for the
  features it returns: half the memory of activations, for training. Positions
  and logits stay in float32.
  """

  def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
      with jax.default_matmul_precision(precision):
        return function(*args, **kwargs)

    return wrapped

  wrapped: dict[str, Any] = {}
  for name in (*_ENCODERS, *_ESTIMATORS):
    function = getattr(functions, name)
    if function is None:
      continue
    if precision == 'bfloat16' and name in _ENCODERS:
      function = _encode_in_bfloat16(function)
    wrapped[name] = wrap(function)
  if functions.chain is not None:
    wrapped['chain'] = functions.chain._replace(
        advance=wrap(functions.chain.advance)
    )
  return functions._replace(**wrapped)


def _encode_in_bfloat16(
    encode_video: Callable[..., PyTree],
) -> Callable[..., PyTree]:
  """Casts what goes in, and what comes out back to float32.

  Statistics of norms change too little in a step to be rounded so.
  """

  def encode(params: Params, video: Video, *rest: Any) -> PyTree:
    weights, video = _cast((params.weights, video), jnp.float32, jnp.bfloat16)
    features = encode_video(params._replace(weights=weights), video, *rest)
    return _cast(features, jnp.bfloat16, jnp.float32)

  return encode


def _cast(tree: PyTree, old: Any, new: Any) -> PyTree:
  return jax.tree.map(
      lambda array: array.astype(new) if array.dtype == old else array, tree
  )


class Stages(NamedTuple):
  """The methods of a Haiku module as functions over explicit parameters.

  `apply_with_statistics` also takes a key and returns the statistics behind the
  call.
  """

  init: Callable[[Array], Params]
  apply: Callable[..., Any]
  apply_with_statistics: Callable[..., tuple[Any, PyTree]]


def make_stages(
    make_module: Callable[[], hk.Module],
    methods: tuple[str, ...],
    touch: Callable[[Any], Any],
) -> Stages:
  """Turns a Haiku module into pure functions of its methods.

  Args:
    make_module: builds the module.
    methods: the methods to expose.
    touch: calls the module so that every parameter is made.

  Returns:
    `init(key)` and `apply(method, params, *arguments)`, in two forms.
  """

  def build():
    module = make_module()
    applied = {name: getattr(module, name) for name in methods}
    return lambda: touch(module), applied

  transformed = hk.multi_transform_with_state(build)

  def init(key: Array) -> Params:
    weights, statistics = transformed.init(key)
    return Params(weights, statistics)

  def apply_with_statistics(
      method: str, params: Params, key: Array | None, *arguments: Any
  ) -> tuple[Any, PyTree]:
    return transformed.apply[method](
        params.weights, params.statistics, key, *arguments
    )

  def apply(method: str, params: Params, *arguments: Any) -> Any:
    output, _ = apply_with_statistics(method, params, None, *arguments)
    return output

  return Stages(jax.jit(init), apply, apply_with_statistics)


@functools.cache
def describe_params(
    functions: TrackerFunctions, dtypes: tuple[np.dtype, ...] | None = None
) -> Params:
  """Returns the shapes of a tracker's parameters, of these types or its own."""
  # The key is made inside as well, where nothing is compiled for it.
  params = jax.eval_shape(lambda: functions.init(jax.random.key(0)))
  if dtypes is None:
    return params
  leaves, structure = jax.tree.flatten(params)
  return jax.tree.unflatten(
      structure,
      [
          jax.ShapeDtypeStruct(leaf.shape, dtype)
          for leaf, dtype in zip(leaves, dtypes, strict=True)
      ],
  )


def flatten_params(params: Params) -> dict[str, Any]:
  """Returns `{'<params|state>|<module>|<name>': array}`."""
  collections = {'params': params.weights, 'state': params.statistics}
  return {
      f'{collection}|{module}|{name}': array
      for collection, modules in collections.items()
      for module, arrays in modules.items()
      for name, array in arrays.items()
  }


def unflatten_params(arrays: Mapping[str, Any]) -> Params:
  """Undoes `flatten_params`."""
  collections: dict[str, dict[str, dict[str, Any]]] = {
      'params': {},
      'state': {},
  }
  for key, array in arrays.items():
    collection, module, name = key.split('|')
    collections[collection].setdefault(module, {})[name] = array
  return Params(collections['params'], collections['state'])


def round_query_times(query_points: Float[Array, '*b 3']) -> Int[Array, '*b']:
  """Returns the frame nearest to each query; halfway between two the even."""
  return jnp.round(query_points[..., 0]).astype(jnp.int32)


def get_query_frames(
    query_points: Float[Array, 'n 3'], num_frames: int | NumFrames
) -> Int[Array, 'n']:
  """Returns the frame of the video that is nearest to each query's time."""
  return jnp.clip(round_query_times(query_points), 0, num_frames - 1)


def estimate_tracks(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_features: PyTree,
    query_points: QueryPoints | None,
    memory: PyTree | None = None,
    extent: Extent | None = None,
    target_points: Float[Array, 'b n t 2'] | None = None,
) -> Estimate:
  """Guesses every track and refines it.

  Arguments are those of `InitializeTracks`, `InitializeInTraining` and
  `RefineTracks`. Raises ValueError for targets that a tracker does not score.
  """
  arguments = params, features, query_features
  if functions.follow_tracks is not None:
    return functions.follow_tracks(
        *arguments, query_points, memory, extent, target_points
    )
  guess, scores = guess_tracks(
      functions, *arguments, query_points, memory, target_points
  )
  states, memory = functions.refine_tracks(
      *arguments, guess, memory, extent, query_points
  )
  return Estimate(guess, states, memory, scores)


def guess_tracks(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_features: PyTree,
    query_points: QueryPoints | None,
    memory: PyTree | None,
    target_points: Float[Array, 'b n t 2'] | None,
) -> tuple[TrackState, Float[Array, 'b n t'] | None]:
  """Guesses every track, and scores targets if there are any.

  Raises ValueError for targets that a tracker does not score.
  """
  arguments = params, features, query_features, query_points
  if target_points is None:
    return functions.initialize_tracks(*arguments, memory), None
  if functions.initialize_in_training is None:
    raise ValueError(
        'heatmap_weight must be 0 for a tracker that does not tell the chances '
        'of targets'
    )
  return functions.initialize_in_training(*arguments, target_points)


def pass_through_queries(
    state: TrackState,
    query_points: Float[Array, '*b n 3'],
    frame: Int[Array, ''] | None = None,
) -> TrackState:
  """Puts every track on its query, on the query's own frame.

  The state is of all frames, `[*b, n, t]`, or of the given one, `[*b, n]`.
  """
  is_query = round_query_times(query_points)
  query_positions = jnp.flip(query_points[..., 1:], axis=-1)
  if frame is None:
    frames = jnp.arange(state.positions.shape[-2])
    frames = frames.reshape((1,) * is_query.ndim + (-1,))
    is_query = is_query[..., None] == frames
    query_positions = query_positions[..., None, :]
  else:
    is_query = is_query == frame
  is_query = is_query[..., None]
  return state._replace(
      positions=jnp.where(is_query, query_positions, state.positions)
  )
