"""Plans: the segments of a video, and the shapes of the programs for them."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Float
import numpy as np

from tapjax import parallel
from tapjax.models.contract import TrackerFunctions
from tapjax.models.segments import list_whole_video
from tapjax.models.segments import SegmentList
from tapjax.tracking import shapes
from tapjax.tracking.options import Options
from tapjax.tracking.shapes import ProgramShape


class Plan(NamedTuple):
  """A way to track some queries through a video.

  Attributes:
    functions: the tracker.
    segments: in the order of tracking.
    shape: of the programs.
    mesh: devices that share the work.
    num_frames: of the video.
    num_queries: to track.
  """

  functions: TrackerFunctions
  segments: SegmentList
  shape: ProgramShape
  mesh: Mesh
  num_frames: int
  num_queries: int

  @property
  def is_whole_video(self) -> bool:
    """Whether one segment holds the whole video, padded as need be."""
    return len(self.segments.tracked) == 1 and not self.shape.describes

  @property
  def queries_per_call(self) -> int:
    """Number of queries that all devices together track at once."""
    return self.mesh.size * self.shape.query_chunk


def make_plan(
    functions: TrackerFunctions,
    num_frames: int,
    query_points: Float[np.ndarray, 'n 3'],
    options: Options,
    known: Sequence[ProgramShape] = (),
) -> Plan:
  """Returns the plan for a video, with a program that exists if one serves it.

  A program serves videos of half its length and more. The first video of a
  tracker compiles a program for exactly its length, and later ones compile for
  round lengths, so that a single video wastes nothing and many videos compile
  little.

  Args:
    functions: the tracker.
    num_frames: of the video.
    query_points: (t, y, x), at least one, in pixels of the tracker.
    options: see `track`.
    known: shapes that are compiled already for these options.

  Raises:
    ValueError: the tracker has no windows of the length that is asked for.
  """
  mesh = make_mesh(options.devices)
  query_frames = np.clip(
      np.round(query_points[:, 0]).astype(int), 0, num_frames - 1
  )
  segments = functions.list_segments(num_frames, query_frames, options.window)
  num_queries = len(query_points)

  def complete(shape: ProgramShape) -> Plan:
    return Plan(functions, segments, shape, mesh, num_frames, len(query_points))

  if len(segments.tracked) > 1 or options.window is not None:
    return complete(make_shape(functions, segments, num_queries, mesh, options))
  length = options.padded_frames or num_frames
  fitting = [
      shape
      for shape in known
      if shapes.serves(functions, shape, length, num_queries)
  ]
  if options.padded_frames is not None:
    fitting = [shape for shape in fitting if shape.num_frames == length]
  if fitting:
    return complete(min(fitting))
  if known:
    if not functions.queries_independent:
      num_queries = shapes.round_set(num_queries)
    if length >= functions.shortest_padded and options.padded_frames is None:
      length = shapes.round_up(length)
  whole = list_whole_video(length)
  return complete(make_shape(functions, whole, num_queries, mesh, options))


def make_shape(
    functions: TrackerFunctions,
    segments: SegmentList,
    num_queries: int,
    mesh: Mesh,
    options: Options,
) -> ProgramShape:
  """Returns the shape of programs for some segments."""
  return ProgramShape(
      num_frames=segments.length,
      block=segments.block,
      frame_chunk=shapes.choose_frame_chunk(
          functions, segments.block, options.frame_chunk
      ),
      query_chunk=shapes.choose_query_chunk(
          functions,
          segments.block,
          num_queries,
          mesh.size,
          options.query_chunk,
          is_round=len(segments.tracked) > 1 or bool(segments.described),
      ),
      capacity=segments.capacity,
      carries_memory=segments.carries_memory,
      describes=bool(segments.described),
  )


def make_mesh(devices: Sequence[jax.Device] | None) -> Mesh:
  """Returns the devices that share a video."""
  if devices is None:
    devices = jax.local_devices()
    if jax.default_backend() == 'cpu':
      devices = devices[:1]
  return parallel.make_mesh(devices)
