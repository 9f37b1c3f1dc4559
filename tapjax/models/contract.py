"""The contract of every tracker: pure functions over explicit parameters.

```
video ──encode_video──► Features ──describe_queries──► QueryFeatures
                           └─────────────┬────────────────┘
            Memory ──► initialize_tracks ──► TrackState
                                                │ refine_tracks ──► Memory
                                  TrackState per iteration
                                                │ finalize_tracks
                                              Tracks
```

A tracker is a frozen dataclass of its config and platform that inherits from
`TrackerFunctions`. Equal configs make equal trackers, so that `jax.jit` and
`Programs` share what they compiled. The five arrows run over one segment of a
video: memory in, memory out. A whole video is one segment, windows are
several, and a session takes segments of one frame. `arrows.track_segment` is
the one caller of the arrows.
"""

import abc
from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.geometry import Resolution
from tapjax.models.segments import list_overlapping_segments
from tapjax.models.segments import list_whole_video
from tapjax.models.segments import SegmentList
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState

Video = Float[Array, 'b t h w 3']
QueryPoints = Float[Array, 'b n 3']
NumFrames = Int[Array | np.ndarray, '']
NumQueries = Int[Array | np.ndarray, '']
Precision = Literal['default', 'high', 'highest', 'bfloat16']
# Number of members on an axis: an int, or a symbolic dimension of an export.
DimSize = Any
Function = TypeVar('Function', bound=Callable[..., Any])

# A shorter window shows little of the motion of points.
SHORTEST_WINDOW = 8


class Params(NamedTuple):
  """Learned arrays of a tracker: `{module: {name: array}}`, twice.

  As in Haiku, an optimizer changes `params`; `state` has running averages of
  batch norms, and is empty for most trackers.
  """

  params: Mapping[str, Mapping[str, Any]]
  state: Mapping[str, Mapping[str, Any]]


class ValidLength(NamedTuple):
  """The valid part of a padded call: its first frames and queries.

  Results of the valid part do not depend on the padding, so that one compiled
  program serves many videos.
  """

  num_frames: NumFrames
  num_queries: NumQueries


class TrackerFunctions(abc.ABC):
  """A tracker as pure functions of explicit parameters.

  Videos are float32 `[b, t, h, w, 3]` in [-1, 1] at `resolution`, and all
  positions are pixels of that resolution. The types of features, query features
  and memory belong to the tracker.

  Attributes:
    config: settings of the network, among them `resolution` and `precision`.
    platform: that the functions are traced for ('cpu', 'gpu', 'tpu'). It
      decides between equivalent forms of an operation, such as frames in turn
      or all at once, and nothing else; by default that of the first device.
    temporal_context: number of frames on either side that the features of a
      frame depend on.
    streams: whether a session can track frame by frame: memory of fixed size
      leads from one frame to the next.
    queries_independent: whether a track depends on its own query alone. Queries
      of other trackers are tracked together.
    guesses_first: whether `initialize_tracks` guesses a whole track before it
      is refined. Otherwise the guess on a frame builds on refined earlier
      frames, and `refine_tracks` makes it.
    shortest_padded: number of frames from which on a video may be padded; the
      network itself adapts to a shorter one.
  """

  config: Any
  platform: str
  temporal_context: int = 0
  streams: bool = False
  queries_independent: bool = True
  guesses_first: bool = True
  shortest_padded: int = 1

  def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    # Networks are made anew. A tracker in the forms of this process's devices
    # takes those of the devices where it arrives.
    is_local = self.platform == jax.default_backend()
    platform = None if is_local else self.platform
    return _restore, (type(self), self.config, platform)

  @property
  def resolution(self) -> Resolution:
    """(height, width) of the videos that the functions take."""
    return self.config.resolution

  @abc.abstractmethod
  def init(self, key: Array) -> Params:
    """Makes random parameters."""

  @abc.abstractmethod
  def encode_video(
      self, params: Params, video: Video, num_frames: NumFrames | None = None
  ) -> PyTree:
    """Returns features of a video, whose arrays lead with batch and time.

    Frames from `num_frames` on are padding.
    """

  def encode_in_training(
      self, params: Params, video: Video, key: Array
  ) -> tuple[PyTree, PyTree]:
    """Returns features and the updated batch-norm statistics.

    Runs inside a mapped function: norms see the videos of all devices. `key`
    is for dropout and the like.
    """
    del key
    return self.encode_video(params, video), params.state

  @abc.abstractmethod
  def describe_queries(
      self, params: Params, features: PyTree, query_points: QueryPoints
  ) -> PyTree:
    """Returns features at query points (t, y, x), leading with batch, query."""

  def begin(
      self,
      query_points: QueryPoints,
      num_frames: NumFrames | None = None,
      capacity: int | None = None,
  ) -> PyTree:
    """Returns the memory before the first segment; None without a memory.

    Args:
      query_points: (t, y, x), with the time counted from the video's start.
      num_frames: of the video; None in a session.
      capacity: padded number of frames of the video, at least `num_frames`.
    """
    del query_points, num_frames, capacity

  @abc.abstractmethod
  def initialize_tracks(
      self,
      params: Params,
      features: PyTree,
      query_features: PyTree,
      query_points: QueryPoints | None,
      memory: PyTree = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> TrackState:
    """Returns the first guess of every track, `[b, n, t]`.

    Args:
      params: learned arrays.
      features: of the segment.
      query_features: from `describe_queries`.
      query_points: (t, y, x), with the time counted from the segment's first
        frame. A track passes through its query on the query's own frame. None
        in a session, where only the features of the queries are known.
      memory: of the frames before; None where the video begins.
      target_points: positions whose log-probability under the heatmap of the
        guess becomes `TrackState.target_log_probs`, for trackers with one.
    """

  @abc.abstractmethod
  def refine_tracks(
      self,
      params: Params,
      features: PyTree,
      query_features: PyTree,
      state: TrackState,
      memory: PyTree = None,
      valid: ValidLength | None = None,
      query_points: QueryPoints | None = None,
      *,
      target_points: Float[Array, 'b n t 2'] | None = None,
  ) -> tuple[TrackState, PyTree]:
    """Refines tracks iteratively.

    Arguments are those of `initialize_tracks`, its result, and the valid part
    of padded arrays.

    Returns:
      States `[i, b, n, t]` from the first guess on, as a loss compares them,
      and the memory for the frames after the segment. Without a memory the
      segment is a whole video, and None is returned.
    """

  @abc.abstractmethod
  def finalize_tracks(self, states: TrackState) -> Tracks:
    """Returns tracks from the states of `refine_tracks`."""

  def list_segments(
      self,
      num_frames: int,
      query_frames: Int[np.ndarray, 'n'],
      window: int | None = None,
  ) -> SegmentList:
    """Returns the segments of a video, in the order of tracking.

    By default one segment without a window. With one, windows overlap, so that
    no frame is at the edge of what the tracker sees, and tracks differ a little
    from those of the whole video.

    Raises:
      ValueError: the tracker has no windows of that length.
    """
    del query_frames
    if window is None:
      return list_whole_video(num_frames)
    self.check_window(window)
    overlap = max(window // 2, 2 * self.temporal_context)
    return list_overlapping_segments(
        num_frames, window, overlap, self.temporal_context
    )

  def check_window(self, window: int) -> None:
    """Raises ValueError for windows that the tracker cannot see alone."""
    if not self.queries_independent:
      raise ValueError(
          'window must be None for a tracker whose points see each other '
          f'throughout the video; got {window} - cut the video yourself, or '
          'choose another model'
      )
    shortest = max(
        self.shortest_padded, 4 * self.temporal_context + SHORTEST_WINDOW
    )
    if window < shortest:
      raise ValueError(f'window must be at least {shortest}; got {window}')


def _restore(
    make: Callable[..., TrackerFunctions], config: Any, platform: str | None
) -> TrackerFunctions:
  return make(config) if platform is None else make(config, platform)


def with_precision(method: Function) -> Function:
  """Runs a method of a tracker with matrix products at `config.precision`."""

  @functools.wraps(method)
  def wrapped(self: TrackerFunctions, *args: Any, **kwargs: Any) -> Any:
    with jax.default_matmul_precision(self.config.precision):
      return method(self, *args, **kwargs)

  return wrapped  # type: ignore[return-value]


def encodes_with_precision(method: Function) -> Function:
  """Runs an encoding method at `config.precision`.

  With 'bfloat16' all of the encoding is in that type, which halves the memory
  of activations in training. Features are float32 again; positions and logits
  never change their type. Statistics of norms change too little in a step to be
  rounded.
  """

  @functools.wraps(method)
  def wrapped(
      self: TrackerFunctions, params: Params, video: Video, *rest: Any
  ) -> Any:
    precision = self.config.precision
    with jax.default_matmul_precision(precision):
      if precision != 'bfloat16':
        return method(self, params, video, *rest)
      weights, video = _cast((params.params, video), jnp.float32, jnp.bfloat16)
      params = params._replace(params=weights)
      outputs = method(self, params, video, *rest)
      return _cast(outputs, jnp.bfloat16, jnp.float32)

  return wrapped  # type: ignore[return-value]


def set_precision(
    functions: TrackerFunctions, precision: Precision
) -> TrackerFunctions:
  """Returns the tracker with matrix products at another precision."""
  config = dataclasses.replace(functions.config, precision=precision)
  return dataclasses.replace(functions, config=config)  # type: ignore[type-var]


def set_platform(
    functions: TrackerFunctions, platform: str
) -> TrackerFunctions:
  """Returns the tracker in the forms of operations for another platform."""
  return dataclasses.replace(functions, platform=platform)  # type: ignore[type-var]


def _cast(tree: PyTree, old: Any, new: Any) -> PyTree:
  return jax.tree.map(
      lambda array: array.astype(new) if array.dtype == old else array, tree
  )


def describe_result(function: Callable[..., PyTree], *arguments: Any) -> PyTree:
  """Returns the shapes of a result, as `jax.eval_shape` does.

  Loops are traced as loops, also with `JAX_DISABLE_JIT`: nothing runs.
  """
  with jax.disable_jit(False):  # noqa: FBT003
    return jax.eval_shape(function, *arguments)


def trace_program(program: Any, *arguments: Any) -> Any:
  """Returns a jitted function traced for arguments, or for their shapes.

  Loops are traced as loops, as in `describe_result`.
  """
  with jax.disable_jit(False):  # noqa: FBT003
    return program.trace(*arguments)


@functools.cache
def describe_params(
    functions: TrackerFunctions, dtypes: tuple[np.dtype, ...] | None = None
) -> Params:
  """Returns the shapes of a tracker's parameters, of these types or its own."""
  # The key is made inside as well, where nothing is compiled for it.
  params = describe_result(lambda: functions.init(jax.random.key(0)))
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
  collections = {'params': params.params, 'state': params.state}
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
