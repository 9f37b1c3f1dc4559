"""Trackers as pure functions of named arrays of fixed shapes.

Whole videos:

  track   frames, query_points ──► positions, visible, ..._logits

and frame by frame, for causal trackers:

  start   frame, points_yx ──► query_..., memory_...
  step    frame, query_..., memory_... ──► positions, ..., next_memory_...

Frames are uint8 RGB at the tracker's resolution; positions are pixels of it.
The number of queries may be free.
The outputs of `start` are inputs of every `step`; the outputs `next_memory_...`
of one step are the inputs `memory_...` of the next.
"""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax import export
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.models import arrows
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.types import PyTree
from tapjax.types import Tracks

NEXT = 'next_'


class Program(NamedTuple):
  """Pure function from parameters and arrays to arrays.

  Attributes:
    name: `track`, `start` or `step`.
    params: parameters of the tracker.
    function: function from parameters and arrays in the order of `inputs` to a
      tuple of arrays in the order of `outputs`.
    inputs: shapes and types by name.
    outputs: shapes and types by name.
  """

  name: str
  params: Params
  function: Callable[..., tuple[Array, ...]]
  inputs: Mapping[str, jax.ShapeDtypeStruct]
  outputs: Mapping[str, jax.ShapeDtypeStruct]


def make_track_program(
    functions: TrackerFunctions,
    params: Params,
    num_frames: int,
    num_queries: int | None,
) -> Program:
  """Returns the program that tracks points through a whole video.

  Queries are (t, y, x) on any frame; `num_queries=None` is a free number.
  """

  def track(
      params: Params,
      frames: UInt8[Array, 't h w 3'],
      query_points: Float[Array, 'n 3'],
  ) -> dict[str, Array]:
    points = query_points[None]
    features = arrows.encode_segment(functions, params, frames[None])
    queries = arrows.describe_queries(functions, params, features, points)
    segment = arrows.track_segment(functions, params, features, queries, points)
    return _name_tracks(segment.tracks)

  return _make_program(
      'track',
      params,
      track,
      frames=_describe_frames(functions, num_frames),
      query_points=jax.ShapeDtypeStruct(
          (_count_queries(num_queries), 3), np.float32
      ),
  )


def make_session_programs(
    functions: TrackerFunctions, params: Params, num_queries: int | None
) -> tuple[Program, Program]:
  """Returns the programs that start and step a session.

  Raises:
    ValueError: the tracker does not stream.
  """
  count = _count_queries(num_queries)
  if not functions.streams:
    raise ValueError(
        'step needs a tracker that sees only the past; this one needs the '
        'whole video - use one that `tapjax models` says streams, or export '
        'it with frames'
    )

  def describe(
      params: Params,
      frame: UInt8[Array, 'h w 3'],
      points_yx: Float[Array, 'n 2'],
  ) -> tuple[PyTree, PyTree]:
    points = jnp.pad(points_yx, ((0, 0), (1, 0)))[None]
    features = arrows.encode_segment(functions, params, frame[None, None])
    queries = arrows.describe_queries(functions, params, features, points)
    return queries, functions.begin(jnp.zeros((1, count, 3)))

  frame = jax.ShapeDtypeStruct((*functions.resolution, 3), np.uint8)
  points = jax.ShapeDtypeStruct((count, 2), np.float32)
  state = jax.eval_shape(describe, params, frame, points)

  def start(
      params: Params,
      frame: UInt8[Array, 'h w 3'],
      points_yx: Float[Array, 'n 2'],
  ) -> dict[str, Array]:
    return _name_state(describe(params, frame, points_yx))

  def step(
      params: Params, frame: UInt8[Array, 'h w 3'], **state_arrays: Array
  ) -> dict[str, Array]:
    leaves = [state_arrays[name][None] for name in _list_names(state)]
    queries, memory = jax.tree.unflatten(jax.tree.structure(state), leaves)
    features = arrows.encode_segment(functions, params, frame[None, None])
    segment = arrows.track_segment(
        functions, params, features, queries, None, memory
    )
    named = _name_tracks(segment.tracks)
    now = {name: array[:, 0] for name, array in named.items()}
    following = _name_state(((), segment.memory))
    return now | {NEXT + name: array for name, array in following.items()}

  state_shapes = jax.eval_shape(_name_state, state)
  return (
      _make_program('start', params, start, frame=frame, points_yx=points),
      _make_program('step', params, step, frame=frame, **state_shapes),
  )


def _make_program(
    name: str,
    params: Params,
    function: Callable[..., dict[str, Array]],
    **inputs: jax.ShapeDtypeStruct,
) -> Program:
  outputs = jax.eval_shape(lambda named: function(params, **named), inputs)
  # Tracks come first; JAX sorts names alphabetically.
  tracks = {name: outputs[name] for name in Tracks._fields if name in outputs}
  outputs = tracks | outputs

  def call(params: Params, *arrays: Array) -> tuple[Array, ...]:
    named = function(params, **dict(zip(inputs, arrays, strict=True)))
    return tuple(named[output] for output in outputs)

  return Program(name, params, call, inputs, outputs)


def _count_queries(num_queries: int | None) -> Any:
  """Returns the number, or a symbolic dimension for a free number."""
  if num_queries is not None:
    return num_queries
  (count,) = export.symbolic_shape('n', constraints=['n >= 1'])
  return count


def _describe_frames(
    functions: TrackerFunctions, num_frames: int
) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((num_frames, *functions.resolution, 3), np.uint8)


def _name_tracks(tracks: Tracks) -> dict[str, Array]:
  """Returns the available outputs by name, without their batch axis."""
  return {
      name: array[0]
      for name, array in tracks._asdict().items()
      if array is not None
  }


def _name_state(state: tuple[PyTree, PyTree]) -> dict[str, Array]:
  """Returns the arrays of a session by name, without their batch axis."""
  leaves = [leaf[0] for leaf in jax.tree.leaves(state)]
  return dict(zip(_list_names(state), leaves, strict=True))


def _list_names(state: tuple[PyTree, PyTree]) -> list[str]:
  return [
      '_'.join([kind, *(_name_key(key) for key in path)])
      for kind, tree in zip(('query', 'memory'), state, strict=True)
      for path, _ in jax.tree.leaves_with_path(tree)
  ]


def _name_key(key: Any) -> str:
  return str(getattr(key, 'name', getattr(key, 'idx', None)))
