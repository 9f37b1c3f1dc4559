"""The one caller of a tracker's functions, over one segment of a video."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8

from tapjax.geometry import normalize_frames
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import QueryPoints
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import ValidLength
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState


class SegmentTracks(NamedTuple):
  """Tracks of a segment `[b, n, t]`, and how they came about.

  Attributes:
    tracks: the result.
    states: from the first guess on, `[i, b, n, t]`, as a loss compares them.
    memory: for the frames after the segment; None without one.
  """

  tracks: Tracks
  states: TrackState
  memory: PyTree


def encode_segment(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[Array, 'b t h w 3'] | Float[Array, 'b t h w 3'],
    num_frames: NumFrames | None = None,
) -> PyTree:
  """Returns features of frames at the tracker's resolution.

  Frames of floats are in [-1, 1]; those from `num_frames` on are padding.
  """
  if frames.dtype == jnp.uint8:
    frames = normalize_frames(frames)
  return functions.encode_video(params, frames, num_frames)


def encode_in_training(
    functions: TrackerFunctions,
    params: Params,
    video: Float[Array, 'b t h w 3'],
    key: Array | None = None,
) -> tuple[PyTree, PyTree]:
  """Returns features and batch-norm statistics; without a key, unchanged."""
  if key is None:
    return functions.encode_video(params, video), params.state
  return functions.encode_in_training(params, video, key)


def describe_queries(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: QueryPoints,
) -> PyTree:
  """Returns features at query points (t, y, x) of a segment."""
  return functions.describe_queries(params, features, query_points)


def track_segment(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    queries: PyTree,
    points: QueryPoints | None,
    memory: PyTree = None,
    valid: ValidLength | None = None,
    *,
    start: TrackState | None = None,
    target_points: Float[Array, 'b n t 2'] | None = None,
) -> SegmentTracks:
  """Tracks queries through a segment: memory in, memory out.

  Args:
    functions: the tracker.
    params: its parameters.
    features: of the segment's frames.
    queries: features of the queries.
    points: (t, y, x), with the time counted from the segment's first frame;
      None in a session.
    memory: of the frames before; None where the segment is the whole video.
    valid: the valid part of padded arrays.
    start: tracks to refine in place of the tracker's own first guess.
    target_points: see `TrackerFunctions.initialize_tracks`.
  """
  if start is None:
    start = functions.initialize_tracks(
        params, features, queries, points, memory, target_points=target_points
    )
  states, memory = functions.refine_tracks(
      params,
      features,
      queries,
      start,
      memory,
      valid,
      points,
      target_points=target_points,
  )
  return SegmentTracks(functions.finalize_tracks(states), states, memory)


def finalize_tracks(functions: TrackerFunctions, states: TrackState) -> Tracks:
  """Returns tracks from states `[i, b, n, t]`, from the first guess on."""
  return functions.finalize_tracks(states)


def refine_some(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    queries: PyTree,
    points: QueryPoints,
    count: int,
    target_points: Float[Array, 'b n t 2'] | None = None,
) -> SegmentTracks:
  """Tracks all queries of a video; only `count` of them learn to refine.

  The first guess of every query learns. Gradients of the refinement are those
  of the first `count` queries, which bounds the memory that they take.
  """
  guess = functions.initialize_tracks(
      params, features, queries, points, target_points=target_points
  )

  def refine(rows: slice, *, learns: bool) -> TrackState:
    inputs: tuple[Params, PyTree, PyTree, TrackState] = (
        params,
        features,
        *jax.tree.map(lambda array: array[:, rows], (queries, guess)),
    )
    if not learns:
      inputs = jax.lax.stop_gradient(inputs)
    states, _ = functions.refine_tracks(*inputs, None, None, points[:, rows])
    return jax.tree.map(lambda array: array[1:], states)

  refined = jax.tree.map(
      lambda *parts: jnp.concatenate(parts, axis=2),
      refine(slice(count), learns=True),
      refine(slice(count, None), learns=False),
  )
  states = prepend_guess(guess, refined)
  return SegmentTracks(functions.finalize_tracks(states), states, None)


def prepend_guess(guess: TrackState, refined: TrackState) -> TrackState:
  """Returns states from the first guess on; `refined` follow it.

  Log-probabilities of targets are those of the guess.
  """
  states = jax.tree.map(
      lambda first, rest: jnp.concatenate([first[None], rest]),
      guess._replace(target_log_probs=None),
      refined._replace(target_log_probs=None),
  )
  scores = guess.target_log_probs
  return states._replace(
      target_log_probs=None if scores is None else scores[None]
  )


def round_query_times(query_points: Float[Array, '*b 3']) -> Int[Array, '*b']:
  """Returns the frame nearest to each query; halfway between two the even."""
  return jnp.round(query_points[..., 0]).astype(jnp.int32)


def get_query_frames(
    query_points: Float[Array, 'n 3'], num_frames: int | NumFrames
) -> Int[Array, 'n']:
  """Returns the frame of the video that is nearest to each query's time."""
  return jnp.clip(round_query_times(query_points), 0, num_frames - 1)


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
