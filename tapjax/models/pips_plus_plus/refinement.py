"""Refinement of PIPs++: the windows of a query, one after the other.

A query's windows are counted from its own frame: first those forward to the end
of the video, then those backward to its beginning. Each window begins on the
last frame of the one before and takes over its vectors. In a segment of the
video all windows are refined that lie in it.
"""

from collections.abc import Callable
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from tapjax.models.contract import NumFrames
from tapjax.models.pips_plus_plus.config import LAGS
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.correlation import correlate_tracks
from tapjax.models.pips_plus_plus.correlation import embed_motion
from tapjax.models.pips_plus_plus.correlation import Pyramid
from tapjax.models.pips_plus_plus.correlation import read_features

# Positions in cells and lagged features, from one iteration to the next.
_Iteration = tuple[Float[Array, 'n w 2'], Float[Array, 'n w k c']]


class UpdateTracks(NamedTuple):
  """The update network with its parameters.

  Attributes:
    config: of the network.
    platform: that the program is traced for.
    apply: (inputs, valid frames) -> changes of positions.
  """

  config: PipsPlusPlusConfig
  platform: str
  apply: Callable[[Array, Array], Array]


class Recurrence(NamedTuple):
  """State that leads from window to window, with a batch axis in front.

  Attributes:
    num_frames: of the video; positions from there on are padding.
    times: of the queries in the video, not rounded.
    next_window: index of the next window of each query.
    positions: on every frame, in cells. While windows are refined they have an
      axis of iterations in front, of which the last one is the answer.
    vectors: at the query points.
    lagged: on every frame of the last window, features at the track's positions
      some frames earlier, one for each lag.
  """

  num_frames: NumFrames
  times: Float[Array, 'n']
  next_window: Int[Array, 'n']
  positions: Float[Array, '*i n t 2']
  vectors: Float[Array, 'n c']
  lagged: Float[Array, 'n w k c']

  @property
  def frames(self) -> Int[Array, 'n']:
    """Frames of the queries in the video."""
    return jnp.round(self.times).astype(jnp.int32)


class QueryWindow(NamedTuple):
  """The next window of each query.

  Attributes:
    exists: whether there is another one.
    is_first: whether the window begins on the query itself.
    step: 1 forward in time, -1 backward.
    start: first frame, counted from the query's in the window's direction.
    length: number of valid frames; less than all in short videos only.
  """

  exists: Bool[Array, 'n']
  is_first: Bool[Array, 'n']
  step: Int[Array, 'n']
  start: Int[Array, 'n']
  length: Int[Array, 'n']


class WindowFrames(NamedTuple):
  """The frames of one window, for each query.

  Attributes:
    indices: of the frames among the features.
    length: number of valid ones.
  """

  indices: Int[Array, 'n w']
  length: Int[Array, 'n']


def make_recurrence(
    config: PipsPlusPlusConfig,
    num_frames: int | NumFrames,
    times: Float[Array, 'n'],
    vectors: Float[Array, 'n c'],
    positions: Float[Array, '*i n t 2'],
) -> Recurrence:
  """Returns the state before the first window."""
  window = min(config.window, positions.shape[-2])
  shape = (times.shape[0], window, len(LAGS), vectors.shape[-1])
  return Recurrence(
      num_frames=jnp.asarray(num_frames, jnp.int32),
      times=times,
      next_window=jnp.zeros(times.shape, jnp.int32),
      positions=positions,
      vectors=vectors,
      lagged=jnp.zeros(shape, vectors.dtype),
  )


def refine_windows(
    update: UpdateTracks,
    pyramid: Pyramid,
    first_frame: Array | int,
    recurrence: Recurrence,
) -> Recurrence:
  """Refines every window that lies in a segment of the video, in order.

  Args:
    update: the network.
    pyramid: features of the segment.
    first_frame: of the segment, in the video.
    recurrence: with an axis of iterations; zero or more windows are done.
  """
  capacity, size = recurrence.positions.shape[2], recurrence.lagged.shape[1]
  num_available = pyramid[0].shape[0]
  # A query in the middle may need one window more than one at an end.
  most = math.ceil((min(capacity, num_available) - 1) / max(size - 1, 1)) + 1
  recurrence, _ = jax.lax.scan(
      lambda now, _: (_refine_next(update, pyramid, first_frame, now), None),
      recurrence,
      None,
      length=most,
  )
  return recurrence


def _refine_next(
    update: UpdateTracks,
    pyramid: Pyramid,
    first_frame: Array | int,
    now: Recurrence,
) -> Recurrence:
  """Refines the next window of every query for which it lies in the segment."""
  window = find_window(now)
  begin = now.frames + window.step * window.start
  last = begin + window.step * (window.length - 1)
  low, high = jnp.minimum(begin, last), jnp.maximum(begin, last)
  num_available = pyramid[0].shape[0]
  is_inside = (low >= first_frame) & (high < first_frame + num_available)
  is_due = window.exists & is_inside
  return jax.lax.cond(
      jnp.any(is_due),
      lambda now: _refine_due(
          update, pyramid, first_frame, now, window, is_due
      ),
      lambda now: now,
      now,
  )


def _refine_due(
    update: UpdateTracks,
    pyramid: Pyramid,
    first_frame: Array | int,
    now: Recurrence,
    window: QueryWindow,
    is_due: Bool[Array, 'n'],
) -> Recurrence:
  """Refines the windows that are due, and leaves the other queries as is."""
  capacity, size = now.positions.shape[2], now.lagged.shape[1]
  kept = now.positions.shape[0]
  slots = window.start[:, None] + jnp.arange(size)[None]
  frames = now.frames[:, None] + window.step[:, None] * slots
  # Frames past the end of a short window are not used.
  frames = jnp.clip(frames, 0, now.num_frames - 1)
  vectors = jnp.broadcast_to(now.vectors[:, None, None], now.lagged.shape)
  indices = jnp.clip(frames - first_frame, 0, pyramid[0].shape[0] - 1)
  positions, lagged = refine_window(
      update,
      pyramid,
      WindowFrames(indices, window.length),
      _take(now.positions[-1], frames),
      now.vectors,
      jnp.where(window.is_first[:, None, None, None], vectors, now.lagged),
  )
  # Frames past the window keep the position on its last frame.
  place = window.step[:, None] * (
      jnp.arange(capacity)[None] - now.frames[:, None]
  )
  place -= window.start[:, None]
  source = jnp.clip(place, 0, window.length[:, None] - 1)
  is_new = is_due[:, None] & (place >= 0)
  moved = jax.vmap(lambda rows: _take(rows, source))(positions[-kept:])
  return now._replace(
      next_window=now.next_window + is_due,
      positions=jnp.where(is_new[None, :, :, None], moved, now.positions),
      lagged=jnp.where(is_due[:, None, None, None], lagged, now.lagged),
  )


def find_window(recurrence: Recurrence) -> QueryWindow:
  """Returns the next window of each query."""
  size = recurrence.lagged.shape[1]
  # A video of one frame has no windows.
  advance = max(size - 1, 1)
  frames = recurrence.frames
  ahead = recurrence.num_frames - 1 - frames
  forward, backward = -(-ahead // advance), -(-frames // advance)
  is_forward = recurrence.next_window < forward
  index = recurrence.next_window - jnp.where(is_forward, 0, forward)
  available = jnp.where(is_forward, ahead, frames) + 1
  # The last window slides back until it is full.
  start = jnp.minimum(index * advance, jnp.maximum(available - size, 0))
  return QueryWindow(
      exists=recurrence.next_window < forward + backward,
      is_first=index == 0,
      step=jnp.where(is_forward, 1, -1),
      start=start,
      length=jnp.minimum(available, size),
  )


def refine_window(
    update: UpdateTracks,
    pyramid: Pyramid,
    frames: WindowFrames,
    start: Float[Array, 'n w 2'],
    vectors: Float[Array, 'n c'],
    lagged: Float[Array, 'n w k c'],
) -> tuple[Float[Array, 'i n w 2'], Float[Array, 'n w k c']]:
  """Refines the tracks of one window.

  Args:
    update: the network.
    pyramid: features of frames.
    frames: of the window, for each query.
    start: positions in cells; those on the first frame stay.
    vectors: features of the queries.
    lagged: features at the track's positions some frames earlier, for the first
      iteration.

  Returns:
    Positions after each iteration, with the first frame as the network gives
    it, then the answer, with the first frame as given; and the lagged features
    of the last iteration.
  """
  (answer, lagged), moved = jax.lax.scan(
      lambda state, iteration: _iterate(
          update, pyramid, frames, start[:, :1], vectors, state, iteration
      ),
      (start, lagged),
      jnp.arange(update.config.num_iterations),
  )
  return jnp.concatenate([moved, answer[None]]), lagged


def _iterate(
    update: UpdateTracks,
    pyramid: Pyramid,
    frames: WindowFrames,
    query: Float[Array, 'n 1 2'],
    vectors: Float[Array, 'n c'],
    state: _Iteration,
    iteration: Int[Array, ''],
) -> tuple[_Iteration, Float[Array, 'n w 2']]:
  """Returns the state after one iteration, and positions as the network says.

  In the state, tracks are back on the query on the window's first frame.
  """
  config, indices = update.config, frames.indices
  slots = jnp.arange(indices.shape[1])
  positions, lagged = state
  positions = jax.lax.stop_gradient(positions)
  seen = read_features(
      pyramid[0], indices.reshape(-1), positions.reshape(-1, 2)
  ).reshape(*indices.shape, -1)
  earlier = [seen[:, jnp.maximum(slots - lag, 0)] for lag in LAGS]
  lagged = jnp.where(iteration == 0, lagged, jnp.stack(earlier, axis=2))
  first = jnp.repeat(vectors[:, None, None], seen.shape[1], axis=1)
  correlations = correlate_tracks(
      pyramid,
      indices,
      positions,
      jnp.concatenate([first, lagged], axis=2),
      config.radius,
      update.platform,
  )
  motion = _compute_motion(positions, frames.length)
  inputs = jnp.concatenate(
      [correlations, embed_motion(motion, config.frequencies)], axis=-1
  )
  is_late = iteration > 3 * config.num_iterations // 4
  change = update.apply(inputs, slots[None] < frames.length[:, None])
  change *= jnp.where(is_late, config.late_step, 1.0)
  moved = positions + change
  return (jnp.concatenate([query, moved[:, 1:]], axis=1), lagged), moved


def _compute_motion(
    positions: Float[Array, 'n w 2'], length: Int[Array, 'n']
) -> Float[Array, 'n w 2']:
  """Returns the motion to the next frame; the last frame repeats it."""
  slots = jnp.arange(positions.shape[1])
  moves = jnp.minimum(slots[None], jnp.maximum(length - 2, 0)[:, None])
  following = jnp.minimum(moves + 1, (length - 1)[:, None])
  return _take(positions, following) - _take(positions, moves)


def _take(
    rows: Float[Array, 'n t c'], indices: Int[Array, 'n s']
) -> Float[Array, 'n s c']:
  """Returns some frames of each row."""
  return jnp.take_along_axis(rows, indices[..., None], axis=1)
