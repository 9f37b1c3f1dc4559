"""Sets of points of a point transformer, and their way through a video."""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from tapjax.models.contract import NumFrames
from tapjax.models.contract import NumQueries
from tapjax.ops.sampling import read_in_frames


def sample_points(
    grids: Float[Array, 't h w c'],
    frames: Int[Array, 'k'],
    points_unit: Float[Array, 'n 2'],
) -> Float[Array, 'k n c']:
  """Reads the grid of each frame at the points.

  Outside of a grid there are zeros.
  """
  height, width = grids.shape[1:3]
  # PARITY: normalized coordinates, which lead from edge to edge, are taken as
  # from the center of the first cell to that of the last one
  # (test_point_transformer_parity).
  size_xy = jnp.asarray([[width, height]], points_unit.dtype)
  points_yx = jnp.flip(points_unit * (size_xy - 1), axis=-1) + 0.5
  padded = jnp.pad(grids, ((0, 0), (1, 1), (1, 1), (0, 0)))
  samples = read_in_frames(
      padded,
      frames.repeat(len(points_unit)),
      jnp.tile(points_yx + 1, (len(frames), 1)),
  )
  return samples.reshape(len(frames), len(points_unit), -1)


def assign_sets(
    frames: Int[Array, 'n'],
    num_points: int,
    num_queries: int | NumQueries,
) -> Int[Array, 'n m']:
  """Returns the queries of each set; n stands for none.

  They are on the same frame and in their order. After the last set are empty
  ones. Queries from `num_queries` on are padding, and in no set.
  """
  capacity = len(frames)
  index = jnp.arange(capacity)
  frames = jnp.where(index < num_queries, frames, jnp.iinfo(jnp.int32).max)
  order = jnp.argsort(frames, stable=True)
  is_first = jnp.diff(frames[order], prepend=-1) != 0
  place = index - jax.lax.cummax(jnp.where(is_first, index, 0))
  slots = place % num_points
  numbers = jnp.cumsum(slots == 0) - 1
  empty = jnp.full((capacity, num_points), capacity)
  order = jnp.where(index < num_queries, order, capacity)
  return empty.at[numbers, slots].set(order)


def track_set(
    predict: Callable[[Array, Array], Array],
    window: int,
    grids: Float[Array, 't h w c'],
    points_unit: Float[Array, 'n 2'],
    query_frame: Int[Array, ''],
    num_frames: int | NumFrames,
) -> Float[Array, 't n 2']:
  """Tracks a set of points from one frame to both ends of a video.

  Args:
    predict: (samples `[w, n, c]`, positions on the first of these frames) ->
      positions `[w, n, 2]`.
    window: frames that are tracked together.
    grids: of every frame.
    points_unit: positions on the query's frame.
    query_frame: frame of the query.
    num_frames: of the video; grids from there on are padding. It must fill a
      window if there are any.

  Returns:
    Positions on every frame. Where windows meet the earlier one counts.
  """
  tracking = SetTracking(predict, window, grids, query_frame, num_frames)
  # One program for both directions.
  forward, backward = jax.lax.map(
      lambda step: tracking.track(step, points_unit), jnp.asarray([1, -1])
  )
  offsets = jnp.arange(len(grids)) - query_frame
  distances = jnp.abs(offsets)
  return jnp.where(
      (offsets >= 0)[:, None, None], forward[distances], backward[distances]
  )


@dataclasses.dataclass(frozen=True)
class SetTracking:
  """Tracking of a set of points, window after window; see `track_set`."""

  predict: Callable[[Array, Array], Array]
  window: int
  grids: Float[Array, 't h w c']
  query_frame: Int[Array, '']
  num_frames: int | NumFrames

  @property
  def _size(self) -> int:
    """Frames of a window."""
    return min(self.window, len(self.grids))

  def track(
      self, step: Int[Array, ''], points_unit: Float[Array, 'n 2']
  ) -> Float[Array, 't n 2']:
    """Returns positions by distance from the query's frame.

    `step` is 1 forward in time and -1 backward.
    """
    advance = max(self._size - 1, 1)
    num_windows = max(1, -(-(len(self.grids) - 1) // advance))
    _, windows = jax.lax.scan(
        lambda points, index: self._track_window(step, points, index),
        points_unit,
        jnp.arange(num_windows),
    )
    later = windows[1:, 1:].reshape(
        (num_windows - 1) * (self._size - 1), len(points_unit), 2
    )
    return jnp.concatenate([windows[0], later])

  def _track_window(
      self,
      step: Int[Array, ''],
      points: Float[Array, 'n 2'],
      index: Int[Array, ''],
  ) -> tuple[Float[Array, 'n 2'], Float[Array, 'w n 2']]:
    """Returns positions on the last frame of a window and on all of them."""
    start = index * max(self._size - 1, 1)
    frames = self.query_frame + step * (start + jnp.arange(self._size))
    positions = jax.lax.cond(
        self._is_needed(step, start, index),
        lambda points: self._predict(frames, points),
        lambda points: jnp.repeat(points[None], self._size, axis=0),
        points,
    )
    return positions[-1], positions

  def _is_needed(
      self, step: Int[Array, ''], start: Int[Array, ''], index: Int[Array, '']
  ) -> Bool[Array, '']:
    """Returns whether a window has frames of the video past its first one."""
    available = jnp.where(
        step > 0, self.num_frames - 1 - self.query_frame, self.query_frame
    )
    # The query's own frame belongs to the forward direction.
    return (start < available) | ((index == 0) & (step > 0))

  def _predict(
      self, frames: Int[Array, 'w'], points: Float[Array, 'n 2']
  ) -> Float[Array, 'w n 2']:
    inside = jnp.clip(frames, 0, self.num_frames - 1)
    return self.predict(sample_points(self.grids, inside, points), points)
