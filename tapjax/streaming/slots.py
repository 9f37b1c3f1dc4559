"""Slots: arrays of the points of a session, with room for more.

Points live in 8, 16, 32, ... slots. Programs are compiled for a number of slots
and a size of frames, so that points come and go without compilation.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import normalize_frames
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.models import arrows
from tapjax.models.contract import describe_params
from tapjax.models.contract import describe_result
from tapjax.models.contract import Params
from tapjax.models.contract import trace_program
from tapjax.models.contract import TrackerFunctions
from tapjax.tracking.peak_bytes import estimate_peak_bytes
from tapjax.tracking.shapes import count_bytes
from tapjax.types import PyTree
from tapjax.types import Tracks

_FEWEST_SLOTS = 8


def count_slots(num_points: int) -> int:
  """Returns the smallest sufficient number of slots."""
  return max(_FEWEST_SLOTS, 1 << (max(num_points, 1) - 1).bit_length())


def describe_slots(
    functions: TrackerFunctions, params: Params, num_slots: int
) -> tuple[PyTree, PyTree]:
  """Returns the shapes of query features and memory of some slots.

  Raises ValueError for a tracker that does not stream.
  """
  if not functions.streams:
    raise ValueError(
        'the tracker must be one that sees only the past; this one needs the '
        'whole video - use one that `tapjax models` says streams'
    )
  dtypes = tuple(leaf.dtype for leaf in jax.tree.leaves(params))
  is_wide = bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]
  return _describe_slots(functions, num_slots, dtypes, is_wide)


@functools.cache
def _describe_slots(
    functions: TrackerFunctions,
    num_slots: int,
    dtypes: tuple[np.dtype, ...],
    is_wide: bool,  # noqa: FBT001 - part of the key of the cache.
) -> tuple[PyTree, PyTree]:
  del is_wide

  def make(params: Params) -> tuple[PyTree, PyTree]:
    video = jnp.zeros((1, 1, *functions.resolution, 3), jnp.float32)
    points = jnp.zeros((1, num_slots, 3), jnp.float32)
    features = arrows.encode_segment(functions, params, video)
    queries = arrows.describe_queries(functions, params, features, points)
    return queries, functions.begin(points)

  return describe_result(make, describe_params(functions, dtypes))


def get_shapes(tree: PyTree) -> tuple[Any, list[tuple[int, ...]]]:
  """Returns the structure of a tree, and the shapes of its arrays."""
  leaves, structure = jax.tree.flatten(tree)
  return structure, [tuple(leaf.shape) for leaf in leaves]


def estimate_bytes(
    functions: TrackerFunctions, size: Resolution, num_points: int
) -> int:
  """Returns the bytes that a session takes in a step, besides parameters."""
  params = describe_params(functions)
  queries, memory = describe_slots(functions, params, count_slots(num_points))
  frames = jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8)
  program = trace_program(
      track_frame, functions, params, queries, memory, frames
  )
  return estimate_peak_bytes(program) - count_bytes(params)


@functools.partial(jax.jit, static_argnums=0)
def track_frame(
    functions: TrackerFunctions,
    params: Params,
    queries: PyTree,
    memory: PyTree,
    frames: UInt8[Array, '1 h w 3'],
) -> tuple[Tracks, PyTree]:
  """Tracks all slots in one frame; positions are pixels of the frame."""
  features = _encode(functions, params, frames)
  segment = arrows.track_segment(
      functions, params, features, queries, None, memory
  )
  positions = rescale_positions(
      segment.tracks.positions, functions.resolution, frames.shape[1:3]
  )
  tracks = segment.tracks._replace(positions=positions)
  return jax.tree.map(lambda array: array[0], tracks), segment.memory


@functools.partial(jax.jit, static_argnums=0)
def describe_points(
    functions: TrackerFunctions,
    params: Params,
    queries: PyTree,
    memory: PyTree,
    frames: UInt8[Array, '1 h w 3'],
    points: Float[Array, 's 3'],
    is_new: Bool[Array, 's'],
) -> tuple[PyTree, PyTree]:
  """Describes points of a frame in new slots, and clears their memory."""
  fresh = _describe(functions, params, frames, points)
  return replace_slots(functions, queries, memory, fresh, is_new)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def add_description(
    functions: TrackerFunctions,
    params: Params,
    total: PyTree,
    frames: UInt8[Array, '1 h w 3'],
    points: Float[Array, 's 3'],
    weights: Float[Array, 's'],
) -> PyTree:
  """Adds weighted features of points on one more frame to a total."""

  def add(array: Array, new: Array) -> Array:
    return array + new * weights.reshape(1, -1, *[1] * (new.ndim - 2))

  fresh = _describe(functions, params, frames, points)
  return jax.tree.map(add, total, fresh)


@functools.partial(jax.jit, static_argnums=0)
def replace_slots(
    functions: TrackerFunctions,
    queries: PyTree,
    memory: PyTree,
    fresh: PyTree,
    is_new: Bool[Array, 's'],
) -> tuple[PyTree, PyTree]:
  """Takes query features of new slots from `fresh`; clears their memory."""
  num_slots = is_new.shape[0]
  fewer, more = (
      describe_result(lambda num=num: functions.begin(jnp.zeros((1, num, 3))))
      for num in (num_slots, num_slots + 1)
  )

  def clear(array: Array, one: Any, other: Any) -> Array:
    return _select(is_new, jnp.zeros_like(array), array, one, other)

  def replace(array: Array, new: Array) -> Array:
    return jnp.where(is_new.reshape(1, -1, *[1] * (array.ndim - 2)), new, array)

  return (
      jax.tree.map(replace, queries, fresh),
      jax.tree.map(clear, memory, fewer, more),
  )


def _select(
    is_new: Bool[Array, 's'], new: Array, old: Array, one: Any, other: Any
) -> Array:
  """Chooses along the axis of queries, in which two shapes differ."""
  (axis,) = (i for i in range(old.ndim) if one.shape[i] != other.shape[i])
  shape = [1] * old.ndim
  shape[axis] = -1
  return jnp.where(is_new.reshape(shape), new, old)


def _describe(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[Array, '1 h w 3'],
    points: Float[Array, 's 3'],
) -> PyTree:
  features = _encode(functions, params, frames)
  points = rescale_query_points(
      points[None], frames.shape[1:3], functions.resolution
  )
  return arrows.describe_queries(functions, params, features, points)


def _encode(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[Array, '1 h w 3'],
) -> PyTree:
  video = resize_video(normalize_frames(frames)[None], functions.resolution)
  return arrows.encode_segment(functions, params, video)
