"""Videos whose features are computed once, and tracked in many times."""

import functools

import jax
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.models import arrows
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.tracking import shapes
from tapjax.tracking.programs import encode_all
from tapjax.types import PyTree
from tapjax.types import Tracks


def encode_frames(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'],
) -> PyTree:
  """Returns the features of a video at the resolution of the tracker."""
  chunk = shapes.choose_frame_chunk(functions, len(frames), None)
  count = np.asarray(len(frames), np.int32)
  return _encode(functions, chunk, params, frames, count)


def track_features(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[np.ndarray, 'n 3'],
) -> Tracks:
  """Tracks one query or more through the features of a video.

  Queries and tracks are in pixels of the tracker. Videos of one length share a
  program, whatever the number of queries; where these depend on each other,
  there is one program for each round number.
  """
  num_frames = jax.tree.leaves(features)[0].shape[1]
  size = max(1, shapes.get_rows() // num_frames)
  if not functions.queries_independent:
    size = shapes.round_set(len(query_points))
  parts = []
  for start in range(0, len(query_points), size):
    chunk = query_points[start : start + size]
    rows = np.minimum(np.arange(size), len(chunk) - 1)
    valid = ValidLength(
        np.asarray(num_frames, np.int32), np.asarray(len(chunk), np.int32)
    )
    tracks = parallel.fetch(
        _track(functions, params, features, chunk[rows], valid)
    )
    count = len(chunk)
    parts.append(jax.tree.map(lambda array, n=count: array[:n], tracks))
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    functions: TrackerFunctions,
    frame_chunk: int,
    params: Params,
    frames: UInt8[Array, 't h w 3'] | Float[Array, 't h w 3'],
    num_frames: Array,
) -> PyTree:
  return encode_all(functions, params, frames, num_frames, frame_chunk)


@functools.partial(jax.jit, static_argnums=0)
def _track(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[Array, 'n 3'],
    valid: ValidLength,
) -> Tracks:
  points = query_points[None]
  queries = arrows.describe_queries(functions, params, features, points)
  segment = arrows.track_segment(
      functions, params, features, queries, points, None, valid
  )
  return jax.tree.map(lambda array: array[0], segment.tracks)
