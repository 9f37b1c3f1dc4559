"""Queries and frames as the programs of a plan take them."""

from collections.abc import Iterator
from typing import Any

import jax
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.media.lazy import LazyFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.segments import Segment
from tapjax.tracking import shapes
from tapjax.tracking.options import Progress
from tapjax.tracking.plan import Plan
from tapjax.tracking.programs import Stages
from tapjax.types import PyTree
from tapjax.types import Tracks

Frames = (
    UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'] | LazyFrames
)
# Features of blocks, by their first frames.
Blocks = dict[int, PyTree]
# Progress of the encoding of a segment is reported so often at most.
_MOST_PARTS = 20


def split_queries(
    query_points: Float[np.ndarray, 'n 3'], plan: Plan
) -> Float[np.ndarray, 'k d m 3']:
  """Splits queries into calls, each with a chunk for every device.

  The last query fills the last chunks.
  """
  num_calls = -(-len(query_points) // plan.queries_per_call)
  rows = np.arange(num_calls * plan.queries_per_call)
  rows = np.minimum(rows, len(query_points) - 1)
  return query_points[rows].reshape(
      num_calls, plan.mesh.size, plan.shape.query_chunk, 3
  )


def count_valid(plan: Plan, call: int) -> Int[np.ndarray, 'd']:
  """Returns the number of valid queries in each device's chunk of a call."""
  chunk = plan.shape.query_chunk
  starts = call * plan.queries_per_call + chunk * np.arange(plan.mesh.size)
  return np.clip(plan.num_queries - starts, 0, chunk).astype(np.int32)


def shift_points(
    query_points: Float[np.ndarray, 'd m 3'], segment: Segment
) -> Float[np.ndarray, 'd m 3']:
  """Returns query points with the time counted from the segment's start."""
  return query_points - np.asarray([segment.start, 0, 0], np.float32)


def encode_segment(
    run: Stages,
    params: Params,
    frames: Frames,
    segment: Segment,
    plan: Plan,
    held: Blocks,
    progress: Progress | None = None,
) -> PyTree:
  """Returns the features of a segment.

  Args:
    run: stages of the plan.
    params: replicated over the devices.
    frames: of the video.
    segment: its frames.
    plan: for the video.
    held: features of blocks that were encoded for the segment before;
      afterwards those of this segment.
    progress: called after every part of the encoding.
  """
  size = plan.shape.block
  starts = range(segment.start, segment.start + plan.shape.num_frames, size)
  # Blocks of earlier segments are let go before others are encoded.
  for start in held.keys() - set(starts):
    del held[start]
  for start in starts:
    if start not in held:
      block = np.asarray(frames[start : min(start + size, segment.stop)])
      held[start] = _encode_block(run, params, block, plan, progress)
  if len(starts) == 1:
    return held[segment.start]
  return run.join(None, tuple(held[start] for start in starts))


def _encode_block(
    run: Stages,
    params: Params,
    frames: UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'],
    plan: Plan,
    progress: Progress | None,
) -> PyTree:
  """Encodes one block, in several calls if there is progress to report."""
  mesh, shape = plan.mesh, plan.shape
  num_frames = len(frames)
  if missing := shape.block - num_frames:
    frames = np.pad(frames, ((0, missing), (0, 0), (0, 0), (0, 0)))
  whole = parallel.replicate(mesh, (frames, np.asarray(num_frames, np.int32)))
  features = _make_zeros(plan)
  num_steps = shapes.count_steps(
      plan.functions, min(shape.frame_chunk, shape.block), num_frames
  )
  share = -(-num_steps // mesh.size)
  part = share if progress is None else -(-share // _MOST_PARTS)
  if progress is not None:
    progress('encode', 0, num_frames)
  for done in range(0, share, part):
    starts = share * np.arange(mesh.size) + done
    ends = np.minimum(starts + part, share * (1 + np.arange(mesh.size)))
    steps = np.minimum(np.stack([starts, ends], axis=1), num_steps)
    features = run.encode(
        (params, *whole), parallel.shard(mesh, steps.astype(np.int32)), features
    )
    if progress is not None:
      jax.block_until_ready(features)
      progress(
          'encode', num_frames * min(done + part, share) // share, num_frames
      )
  return features


def _make_zeros(plan: Plan) -> PyTree:
  """Returns features of a block before the first step, on every device."""
  # NumPy's zeros take no memory until they are written, and no compilation.
  return parallel.shard(
      plan.mesh,
      jax.tree.map(
          lambda leaf: np.zeros((plan.mesh.size, *leaf.shape[1:]), leaf.dtype),
          shapes.describe_features(
              plan.functions, plan.shape.block, plan.shape.frame_chunk
          ),
      ),
  )


def describe_queries(
    run: Stages,
    params: Params,
    frames: Frames,
    calls: Float[np.ndarray, 'k d m 3'],
    plan: Plan,
    held: Blocks,
    progress: Progress | None = None,
) -> list[PyTree]:
  """Returns features of the queries of each call, wherever these lie.

  None for each call where queries are described in the segments in which they
  are tracked. Arguments are those of `encode_segment`.
  """
  segments = plan.segments.described
  if not segments:
    return [None] * len(calls)
  numbers = np.searchsorted(
      [segment.first for segment in segments], calls[..., 0], side='right'
  )
  numbers = np.maximum(numbers - 1, 0)
  shape = plan.shape
  empty = shapes.describe_queries(
      plan.functions, shape.num_frames, shape.query_chunk
  )
  queries = [
      jax.tree.map(
          lambda leaf: np.zeros((plan.mesh.size, *leaf.shape[1:]), leaf.dtype),
          empty,
      )
      for _ in calls
  ]
  needed = np.unique(numbers).tolist()
  for done, number in enumerate(needed):
    if progress is not None:
      progress('encode', done, len(needed))
    segment = segments[number]
    features = encode_segment(run, params, frames, segment, plan, held)
    for i in np.flatnonzero((numbers == number).any(axis=(1, 2))).tolist():
      rows = numbers[i] == number
      points = shift_points(calls[i], segment)
      # Queries of other segments are described at any of this one's.
      points[~rows] = points[rows][0]
      new = parallel.fetch(
          run.describe(params, features, parallel.shard(plan.mesh, points))
      )
      for whole, part in _pair(queries[i], new):
        whole[rows] = part[rows]
  if progress is not None:
    progress('encode', len(needed), len(needed))
  return queries


def begin(
    run: Stages, plan: Plan, points: Float[np.ndarray, 'd m 3']
) -> PyTree:
  """Returns the memory of queries before the first segment."""
  num_frames = np.asarray(plan.num_frames, np.int32)
  return run.begin(
      parallel.replicate(plan.mesh, num_frames),
      parallel.shard(plan.mesh, points),
  )


def track_call(
    run: Stages,
    params: Params,
    plan: Plan,
    segment: Segment,
    features: PyTree,
    queries: PyTree,
    number: int,
    points: Float[np.ndarray, 'd m 3'],
    memory: PyTree,
) -> tuple[Tracks, PyTree]:
  """Tracks the queries of one call through a segment.

  Args:
    run: stages of the plan.
    params: replicated over the devices.
    plan: for the video.
    segment: its frames.
    features: of the segment.
    queries: features of the queries; None to describe them in this segment.
    number: of the call.
    points: (t, y, x) in the video.
    memory: of the segments before.

  Returns:
    Tracks `[d, m, t]`, and the memory for the next segment.
  """
  num_frames = np.asarray(segment.stop - segment.start, np.int32)
  tracks, memory = run.track(
      (params, parallel.replicate(plan.mesh, num_frames)),
      features,
      *parallel.shard(
          plan.mesh,
          (queries, shift_points(points, segment), count_valid(plan, number)),
      ),
      memory,
  )
  return parallel.fetch(tracks), memory


def make_empty_tracks(
    functions: TrackerFunctions, num_queries: int, num_frames: int
) -> Tracks:
  """Returns tracks of zeros, with the fields that the tracker has."""
  return jax.tree.map(
      lambda leaf: np.zeros(
          (num_queries, num_frames, *leaf.shape[2:]), leaf.dtype
      ),
      shapes.describe_tracks(functions, max(num_frames, 1)),
  )


def place(tracks: Tracks, part: Tracks, segment: Segment, first: int) -> None:
  """Writes tracks `[d, m, t]` of a call, from row `first` on, into all."""
  kept = slice(segment.first - segment.start, segment.end - segment.start)
  for whole, array in _pair(tracks, part):
    rows = array.reshape(-1, *array.shape[2:])
    taken = whole[first : first + len(rows), segment.first : segment.end]
    taken[...] = rows[: len(taken), kept]


def report(
    progress: Progress | None, plan: Plan, segment: int, call: int
) -> None:
  """Reports how many tracks of how many segments precede a call."""
  if progress is None:
    return
  done = min(call * plan.queries_per_call, plan.num_queries)
  total = len(plan.segments.tracked) * plan.num_queries
  progress('track', segment * plan.num_queries + done, total)


def _pair(one: PyTree, other: PyTree) -> Iterator[tuple[Any, Any]]:
  """Returns the arrays of two trees of the same structure."""
  return zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
