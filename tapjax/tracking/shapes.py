"""Shapes of compiled programs: lengths, chunks, arrays described by them."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models import arrows
from tapjax.models.contract import describe_params
from tapjax.models.contract import describe_result
from tapjax.models.contract import TrackerFunctions
from tapjax.types import PyTree
from tapjax.types import Tracks

# Queries times frames that are refined at once on each device, unless the
# caller says. On a CPU of two cores a chunk of this size fits the caches and
# still occupies both (`--task=benchmark`).
_ROWS_ON_CPU = 2560
_ROWS_ON_ACCELERATOR = 2**15
# Frames encoded at once for each frame of context, to either side.
_FRAMES_PER_CONTEXT = 8
_FRAMES_ON_CPU = 4
_FRAMES_ON_ACCELERATOR = 8
# Capacity of a program for queries that depend on each other.
_SET_CAPACITY = 64
_SET_GROWTH = 4
MOST_LENGTHS = 4


class ProgramShape(NamedTuple):
  """Sizes that a program is compiled for, besides the resolution.

  Attributes:
    num_frames: frames of a segment, with padding.
    block: frames that are encoded by a call; a divisor of `num_frames`.
    frame_chunk: frames that one step of encoding adds.
    query_chunk: queries that each device tracks at once.
    capacity: frames of the video, with padding, for a memory of all of them.
    carries_memory: whether a memory goes in and comes out.
    describes: whether queries are described before they are tracked.
  """

  num_frames: int
  block: int
  frame_chunk: int
  query_chunk: int
  capacity: int
  carries_memory: bool
  describes: bool


def choose_frame_chunk(
    functions: TrackerFunctions, num_frames: int, frame_chunk: int | None
) -> int:
  """Returns the frames to encode at once, so that chunks are even.

  Frames of context are encoded twice at each border, so that chunks are long
  where there is context.
  """
  context = functions.temporal_context
  if frame_chunk is None:
    on_cpu = jax.default_backend() == 'cpu'
    most = max(
        _FRAMES_ON_CPU if on_cpu else _FRAMES_ON_ACCELERATOR,
        _FRAMES_PER_CONTEXT * context,
    )
    inner = max(1, num_frames - 2 * context)
    frame_chunk = math.ceil(inner / math.ceil(inner / most))
  return min(frame_chunk, num_frames)


def choose_query_chunk(
    functions: TrackerFunctions,
    num_frames: int,
    num_queries: int,
    num_devices: int,
    query_chunk: int | None,
    *,
    is_round: bool = False,
) -> int:
  """Returns the queries for each device to track at once.

  Chunks are even, or of a round size, so that few programs serve many numbers
  of queries.
  """
  share = num_queries
  if functions.queries_independent:
    share = math.ceil(num_queries / num_devices)
    if query_chunk is None:
      query_chunk = max(1, get_rows() // num_frames)
  if query_chunk is None:
    return share
  if is_round:
    return min(round_up(share), query_chunk)
  return math.ceil(share / math.ceil(share / query_chunk))


def get_rows() -> int:
  """Returns how many queries times frames a device refines at once."""
  on_cpu = jax.default_backend() == 'cpu'
  return _ROWS_ON_CPU if on_cpu else _ROWS_ON_ACCELERATOR


def round_up(number: int) -> int:
  """Returns the power of two that is at least `number`, from 1 on."""
  return 1 << (number - 1).bit_length()


def round_set(num_queries: int) -> int:
  """Returns the capacity of a program for queries that depend on each other."""
  capacity = _SET_CAPACITY
  while capacity < num_queries:
    capacity *= _SET_GROWTH
  return capacity


def serves(
    functions: TrackerFunctions,
    shape: ProgramShape,
    num_frames: int,
    num_queries: int,
) -> bool:
  """Returns whether a program for a whole video wastes little on this one."""
  if num_frames < functions.shortest_padded:
    fits_frames = shape.num_frames == num_frames
  else:
    fits_frames = num_frames <= shape.num_frames <= 2 * num_frames
  most = max(_SET_GROWTH * num_queries, _SET_CAPACITY)
  return fits_frames and (
      functions.queries_independent or num_queries <= shape.query_chunk <= most
  )


def choose_lengths(
    lengths: list[int], most: int = MOST_LENGTHS
) -> tuple[int, ...]:
  """Returns at most `most` lengths to pad to, with the least padding.

  Every length fits into one of them; the longest is among them.
  """
  known = sorted(lengths)
  distinct = sorted(set(known))
  if len(distinct) <= most:
    return tuple(distinct)
  counts = [known.count(length) for length in distinct]
  total = np.concatenate([[0], np.cumsum(counts)])
  # The cheapest way to cover the first so many lengths with that many buckets.
  best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
  for _ in range(most):
    best = {
        stop: min(
            (
                cost + distinct[stop - 1] * int(total[stop] - total[start]),
                (*chosen, distinct[stop - 1]),
            )
            for start, (cost, chosen) in best.items()
            if start < stop
        )
        for stop in range(1, len(distinct) + 1)
        if any(start < stop for start in best)
    }
  return best[len(distinct)][1]


def count_window_frames(
    functions: TrackerFunctions, num_frames: int, frame_chunk: int
) -> int:
  """Returns the frames that one step of encoding sees, context included."""
  return min(num_frames, frame_chunk + 2 * functions.temporal_context)


def count_steps(
    functions: TrackerFunctions, frame_chunk: int, num_frames: int
) -> int:
  """Returns the steps that encode some frames."""
  inner = max(1, num_frames - 2 * functions.temporal_context)
  return math.ceil(inner / frame_chunk)


@functools.cache
def describe_features(
    functions: TrackerFunctions, num_frames: int, frame_chunk: int
) -> PyTree:
  """Returns the shapes of the features `[1, t, ...]` of frames."""
  window = jax.ShapeDtypeStruct(
      (
          1,
          count_window_frames(functions, num_frames, frame_chunk),
          *functions.resolution,
          3,
      ),
      jnp.float32,
  )
  features = describe_result(
      functools.partial(arrows.encode_segment, functions),
      describe_params(functions),
      window,
  )
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          (1, num_frames, *leaf.shape[2:]), leaf.dtype
      ),
      features,
  )


@functools.cache
def describe_queries(
    functions: TrackerFunctions, num_frames: int, num_queries: int
) -> PyTree:
  """Returns the shapes of the features `[1, n, ...]` of queries."""
  return describe_result(
      functools.partial(arrows.describe_queries, functions),
      describe_params(functions),
      describe_features(functions, num_frames, 1),
      jax.ShapeDtypeStruct((1, num_queries, 3), jnp.float32),
  )


@functools.cache
def describe_tracks(functions: TrackerFunctions, num_frames: int) -> Tracks:
  """Returns the shapes `[1, t]` of the tracks of a query."""

  def track(params, features, points):
    queries = arrows.describe_queries(functions, params, features, points)
    valid = arrows.ValidLength(
        np.asarray(num_frames, np.int32), np.asarray(1, np.int32)
    )
    segment = arrows.track_segment(
        functions, params, features, queries, points, None, valid
    )
    return jax.tree.map(lambda array: array[0], segment.tracks)

  return describe_result(
      track,
      describe_params(functions),
      describe_features(functions, num_frames, 1),
      jax.ShapeDtypeStruct((1, 1, 3), jnp.float32),
  )


def count_bytes(tree: PyTree) -> int:
  """Returns the bytes of arrays, or of arrays of such shapes."""
  return sum(
      math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
      for leaf in jax.tree.leaves(tree)
  )
