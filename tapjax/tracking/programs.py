"""Compiled programs of a tracker: encode, begin, describe and track.

Every program runs on all devices of a mesh. Parameters and frames are the same
on each device. Features, queries and memory lead with the axis of the batch,
which is cut: each device tracks its own queries and sees all features.
"""

from collections.abc import Hashable
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.models import arrows
from tapjax.models.contract import describe_params
from tapjax.models.contract import describe_result
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.tracking import shapes
from tapjax.tracking.options import Options
from tapjax.tracking.plan import Plan
from tapjax.tracking.shapes import ProgramShape
from tapjax.types import PyTree
from tapjax.types import Tracks

# A jitted function, a compiled program, or the shapes of its arguments.
Stage = Any
Frames = UInt8[Array, 't h w 3'] | Float[Array, 't h w 3']


class Stages(NamedTuple):
  """The stages of a plan: functions of arrays on `d` devices.

  The same record holds functions to be traced, compiled programs, and the
  shapes of their arguments.

  Attributes:
    encode: ((params, frames `[t, h, w, 3]`, number of valid frames), first step
      of encoding and the step after the last one `[d, 2]`, features) ->
      features with those of the steps.
    join: (None, features of consecutive blocks) -> features of a segment.
    begin: (number of frames of the video, query points `[d, m, 3]`) -> memory.
    describe: (params, features, query points) -> features of the queries.
    track: ((params, number of valid frames), features, features of the queries
      or None, query points, numbers of valid queries `[d]`, memory) -> tracks
      `[d, m, t]`, memory.
  """

  encode: Stage
  join: Stage
  begin: Stage
  describe: Stage
  track: Stage


class Programs:
  """Compiled programs of a tracker, which owns this value."""

  def __init__(self) -> None:
    self._shapes: dict[Hashable, list[ProgramShape]] = {}
    self._stages: dict[Hashable, Stages] = {}

  def list_shapes(
      self, functions: TrackerFunctions, options: Options
  ) -> Sequence[ProgramShape]:
    """Returns the shapes of programs for whole videos with these options."""
    return tuple(self._shapes.get(_make_key(functions, options), ()))

  def __reduce__(self) -> tuple[type['Programs'], tuple[()]]:
    # What was compiled is for the devices of this process.
    return Programs, ()

  def compile(
      self, plan: Plan, params: Params, frames: np.dtype, options: Options
  ) -> Stages:
    """Returns the compiled stages of a plan, for frames of a type.

    Where JAX is not to compile (`JAX_DISABLE_JIT`), the stages run as they are.
    """
    if not parallel.is_compiling():
      return make_stages(plan.functions, plan.shape, plan.mesh)
    dtypes = (frames, *(leaf.dtype for leaf in jax.tree.leaves(params)))
    key = plan.functions, plan.shape, plan.mesh, dtypes
    if key not in self._stages:
      self._stages[key] = compile_stages(*key)
    if plan.is_whole_video:
      known = self._shapes.setdefault(_make_key(plan.functions, options), [])
      if plan.shape not in known:
        known.append(plan.shape)
    return self._stages[key]


def _make_key(functions: TrackerFunctions, options: Options) -> Hashable:
  devices = options.devices
  return (
      functions,
      None if devices is None else tuple(devices),
      options.frame_chunk,
      options.query_chunk,
  )


def compile_stages(
    functions: TrackerFunctions,
    shape: ProgramShape,
    mesh: Mesh,
    dtypes: tuple[np.dtype, ...],
) -> Stages:
  """Returns the stages, compiled as far as segments of this shape need them.

  Where JAX compiles nothing (`jax_disable_jit`), they run as they are.

  Args:
    functions: the tracker.
    shape: of the programs.
    mesh: the devices.
    dtypes: of the frames, and then of all parameters.
  """
  stages = make_stages(functions, shape, mesh)
  if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
    return stages
  arguments = describe_arguments(functions, shape, mesh, dtypes)
  needed = {
      'encode': True,
      'join': shape.block < shape.num_frames,
      'begin': shape.carries_memory,
      'describe': shape.describes,
      'track': True,
  }
  compiled = {
      name: getattr(stages, name).lower(*getattr(arguments, name)).compile()
      for name, is_needed in needed.items()
      if is_needed
  }
  return stages._replace(**compiled)


def make_stages(
    functions: TrackerFunctions, shape: ProgramShape, mesh: Mesh
) -> Stages:
  """Returns the stages of segments of this shape, to be traced or compiled."""

  def encode(
      whole: tuple[Params, Frames, NumFrames],
      steps: Int[Array, '1 2'],
      features: PyTree,
  ) -> PyTree:
    params, frames, num_frames = whole
    new = encode_steps(
        functions,
        shape.frame_chunk,
        params,
        frames,
        num_frames,
        (steps[0, 0], steps[0, 1]),
        features,
    )
    if mesh.size == 1:
      return new
    # Every frame is new on one device, and zero on the others until then.
    return jax.tree.map(
        lambda new, old: old + parallel.total(new - old), new, features
    )

  def join(_: None, blocks: tuple[PyTree, ...]) -> PyTree:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *blocks)

  def begin(num_frames: NumFrames, points: Float[Array, '1 m 3']) -> PyTree:
    return functions.begin(points, num_frames, shape.capacity or None)

  def describe(
      params: Params, features: PyTree, points: Float[Array, '1 m 3']
  ) -> PyTree:
    return arrows.describe_queries(functions, params, features, points)

  def track(
      whole: tuple[Params, NumFrames],
      features: PyTree,
      queries: PyTree,
      points: Float[Array, '1 m 3'],
      num_queries: Int[Array, '1'],
      memory: PyTree,
  ) -> tuple[Tracks, PyTree]:
    params, num_frames = whole
    if not shape.describes:
      queries = describe(params, features, points)
    segment = arrows.track_segment(
        functions,
        params,
        features,
        queries,
        points,
        memory,
        ValidLength(num_frames, num_queries[0]),
    )
    return segment.tracks, segment.memory

  return Stages(
      encode=parallel.map_shards(encode, mesh, donate=(2,)),
      join=parallel.map_shards(join, mesh),
      begin=parallel.map_shards(begin, mesh),
      describe=parallel.map_shards(describe, mesh),
      track=parallel.map_shards(track, mesh, donate=(5,)),
  )


def describe_arguments(
    functions: TrackerFunctions,
    shape: ProgramShape,
    mesh: Mesh,
    dtypes: tuple[np.dtype, ...],
) -> Stages:
  """Returns the shapes of the arguments of each stage, in its place."""
  frames_dtype, *weight_dtypes = dtypes
  params = describe_params(functions, tuple(weight_dtypes))
  block = shapes.describe_features(functions, shape.block, shape.frame_chunk)
  features = shapes.describe_features(
      functions, shape.num_frames, shape.frame_chunk
  )
  count = jax.ShapeDtypeStruct((), jnp.int32)
  frames = jax.ShapeDtypeStruct(
      (shape.block, *functions.resolution, 3), frames_dtype
  )
  points = jax.ShapeDtypeStruct((1, shape.query_chunk, 3), jnp.float32)
  queries = memory = None
  if shape.describes:
    queries = shapes.describe_queries(
        functions, shape.num_frames, shape.query_chunk
    )
  if shape.carries_memory:
    memory = describe_result(
        lambda points: functions.begin(
            points, jnp.int32(0), shape.capacity or None
        ),
        points,
    )

  def arrange(whole: PyTree, *cut: PyTree) -> Any:
    def spread(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    return (
        parallel.describe_replicated(mesh, whole),
        *parallel.describe_shards(mesh, jax.tree.map(spread, cut)),
    )

  steps = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  num_queries = jax.ShapeDtypeStruct((1,), jnp.int32)
  blocks = (block,) * (shape.num_frames // shape.block)
  return Stages(
      encode=arrange((params, frames, count), steps, block),
      join=arrange(None, blocks),
      begin=arrange(count, points),
      describe=arrange(params, features, points),
      track=arrange(
          (params, count), features, queries, points, num_queries, memory
      ),
  )


def encode_all(
    functions: TrackerFunctions,
    params: Params,
    frames: Frames,
    num_frames: NumFrames,
    frame_chunk: int,
) -> PyTree:
  """Encodes padded frames a few at a time, as if all at once."""
  features = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      shapes.describe_features(functions, len(frames), frame_chunk),
  )
  inner = jnp.maximum(1, num_frames - 2 * functions.temporal_context)
  steps = (0, -(-inner // min(frame_chunk, len(frames))))
  return encode_steps(
      functions, frame_chunk, params, frames, num_frames, steps, features
  )


def encode_steps(
    functions: TrackerFunctions,
    frame_chunk: int,
    params: Params,
    frames: Frames,
    num_frames: NumFrames,
    steps: tuple[int | Array, int | Array],
    features: PyTree,
) -> PyTree:
  """Encodes some steps of the frames; features of padding stay as they are.

  Steps overlap by the frames that features depend on. At its ends the video
  itself ends, and the last step begins early enough to be of full length.
  """
  context, chunk = functions.temporal_context, min(frame_chunk, len(frames))
  length = shapes.count_window_frames(functions, len(frames), chunk)

  # Where nothing is compiled, a loop counts in plain integers.
  def add_step(index: Array | int, features: PyTree) -> PyTree:
    last_start = jnp.maximum(num_frames - length, 0)
    start = jnp.minimum(index * chunk, last_start)
    window = jax.lax.dynamic_slice_in_dim(frames, start, length)
    encoded = arrows.encode_segment(
        functions, params, window[None], num_frames - start
    )
    numbers = start + jnp.arange(length)
    # Frames that an earlier step has encoded are kept.
    first = jnp.where(index == 0, 0, index * chunk + context)
    is_last = start + length >= num_frames
    end = jnp.where(is_last, num_frames, start + length - context)
    keep = (numbers >= first) & (numbers < end)
    return _write_frames(features, encoded, start, keep)

  return jax.lax.fori_loop(*steps, add_step, features)


def _write_frames(
    features: PyTree, encoded: PyTree, start: Array, keep: Bool[Array, 't']
) -> PyTree:
  """Writes features of some frames, from `start` on, into those of a video."""

  def write(whole: Array, part: Array) -> Array:
    old = jax.lax.dynamic_slice_in_dim(whole, start, part.shape[1], axis=1)
    mask = keep.reshape(1, -1, *(1,) * (part.ndim - 2))
    merged = jnp.where(mask, part, old)
    return jax.lax.dynamic_update_slice_in_dim(whole, merged, start, axis=1)

  return jax.tree.map(write, features, encoded)
