"""Tracking frame by frame, for trackers that see only the past.

A session holds the features of its points and the memory of the tracker. It is
a value: nothing changes in place, and it can be kept, saved and continued at
any time.

```
start, add    frame ──encode, describe──► features of the points
step          frame ──encode──► segment of one frame ──► tracks, memory
```

A point that was not seen for some consecutive frames counts as lost, and as
found when it was seen for some again; see `LostRule`. A lost point keeps its
slot, and like every point it is searched for in all of each frame.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Shaped
from jaxtyping import UInt8
import numpy as np

from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.streaming import slots as slot_arrays
from tapjax.streaming.labels import check_views
from tapjax.streaming.labels import Frames
from tapjax.streaming.labels import View
from tapjax.streaming.labels import warn_of_shares
from tapjax.streaming.lost import check_rule
from tapjax.streaming.lost import DEFAULT_RULE
from tapjax.streaming.lost import LostRule
from tapjax.streaming.lost import LostState
from tapjax.streaming.lost import make_lost_state
from tapjax.streaming.lost import update_lost_state
from tapjax.tracking import checks
from tapjax.types import PyTree
from tapjax.types import Tracks

_EMPTY = -1


class Session(NamedTuple):
  """Points that are tracked frame by frame.

  Attributes:
    queries: features of the point in each slot.
    memory: of the tracker, for each slot.
    slots: the number of the point in each slot, or -1.
    num_added: number of points added so far; the next one gets this number.
    watch: slots with a point that is lost.
  """

  queries: PyTree
  memory: PyTree
  slots: Int[np.ndarray | Array, 's']
  num_added: Int[np.ndarray | Array, '']
  watch: LostState

  @property
  def ids(self) -> Int[np.ndarray, 'n']:
    """Numbers of the points, in the order in which tracks are returned.

    Points are numbered from 0 in the order in which they were added.
    """
    slots = np.asarray(self.slots)
    return np.sort(slots[slots != _EMPTY])

  @property
  def lost(self) -> Bool[np.ndarray, 'n']:
    """Whether each point of `ids` is lost."""
    return np.asarray(self.watch.lost)[_order_slots(self)]


def start(
    functions: TrackerFunctions,
    params: Params,
    frame: Frames,
    points_yx: Float[np.ndarray, '*k n 2'],
) -> Session:
  """Begins to track points that a frame shows.

  The frame only describes the points: pass it to `step` as well if it is the
  first one of the video. It may be from elsewhere, and of another size.

  Args:
    functions: a tracker that streams.
    params: its parameters.
    frame: RGB; or several, each of any size, that show the same points. The
      features of a point are then the mean over the frames on which it is
      given.
    points_yx: (y, x) in raster pixels of `frame`; there may be none. For
      several frames `[k, n, 2]`, with NaN where a point is not given.

  Raises:
    ValueError: the tracker does not stream, or the input is no frame or no
      points in it.
  """
  num_points = len(check_views(frame, points_yx)[0].points)
  template = describe_session(
      functions, params, slot_arrays.count_slots(num_points)
  )
  queries, memory = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      (template.queries, template.memory),
  )
  empty = template._replace(queries=queries, memory=memory)
  return add(functions, params, empty, frame, points_yx)


def step(
    functions: TrackerFunctions,
    params: Params,
    session: Session,
    frame: UInt8[np.ndarray, 'h w 3'],
    rule: LostRule = DEFAULT_RULE,
) -> tuple[Session, Tracks]:
  """Tracks all points in the next frame of the video.

  Returns:
    The session to continue with, and tracks `[n, 1]` of the points of
    `session.ids`, in pixels of `frame`. `session.lost` says which of them the
    rule counts as lost; the tracks do not depend on it.
  """
  check_rule(rule)
  _check_session(functions, params, session)
  frames = checks.check_frame(np.asarray(frame))[None]
  tracks, memory = slot_arrays.track_frame(
      functions,
      params,
      *jax.tree.map(jnp.asarray, (session.queries, session.memory, frames)),
  )
  tracks = jax.tree.map(np.asarray, tracks)
  seen = tracks.visible
  if rule.threshold is not None:
    seen = tracks.confidence > rule.threshold
  watch = update_lost_state(session.watch, seen[:, 0], rule)
  order = _order_slots(session)
  rows = jax.tree.map(lambda array: array[order], tracks)
  return session._replace(memory=memory, watch=watch), rows


def add(
    functions: TrackerFunctions,
    params: Params,
    session: Session,
    frame: Frames,
    points_yx: Float[np.ndarray, '*k n 2'],
) -> Session:
  """Begins to track more points; see `start`.

  They are tracked as in a session that starts with this frame.
  """
  _check_session(functions, params, session)
  views = check_views(frame, points_yx)
  warn_of_shares(views, 3)
  num_points = len(views[0].points)
  num_slots = slot_arrays.count_slots(len(session.ids) + num_points)
  if num_slots > len(session.slots):
    session = _grow(functions, params, session, num_slots)
  free = np.flatnonzero(np.asarray(session.slots) == _EMPTY)[:num_points]
  slots = np.array(session.slots)
  first = int(session.num_added)
  slots[free] = np.arange(first, first + num_points)
  is_new = np.zeros(len(slots), bool)
  is_new[free] = True
  queries, memory = _describe_views(
      functions, params, session, views, free, is_new
  )
  watch = LostState(
      np.where(is_new, 0, session.watch.streaks).astype(np.int32),
      session.watch.lost & ~is_new,
  )
  num_added = np.array(first + num_points, np.int32)
  return Session(queries, memory, slots, num_added, watch)


def remove(session: Session, ids: Shaped[np.ndarray, '...']) -> Session:
  """Ceases to track points, by their numbers; other points are not affected.

  Raises ValueError for a number that is not in the session.
  """
  if ids.ndim > 1 or (ids.size and ids.dtype.kind not in 'iu'):
    raise ValueError(
        f'ids must be whole numbers [n]; got {ids.dtype} {ids.shape} - for a '
        'mask of points, pass session.ids[mask]'
    )
  unknown = np.setdiff1d(ids, session.ids)
  if unknown.size:
    raise ValueError(
        f'ids must be among those of the session, {session.ids.tolist()}; got '
        f'{unknown.tolist()} as well'
    )
  slots = np.array(session.slots)
  slots[np.isin(slots, ids)] = _EMPTY
  return session._replace(slots=slots)


def forget(session: Session) -> Session:
  """Keeps the points and drops all memory of frames, as after a cut."""
  return session._replace(memory=jax.tree.map(jnp.zeros_like, session.memory))


def describe_session(
    functions: TrackerFunctions, params: Params, num_slots: int
) -> Session:
  """Returns an empty session with shapes in place of arrays of the tracker.

  Raises ValueError for a tracker that does not stream.
  """
  queries, memory = slot_arrays.describe_slots(functions, params, num_slots)
  return Session(
      queries,
      memory,
      np.full(num_slots, _EMPTY, np.int32),
      np.array(0, np.int32),
      make_lost_state(num_slots),
  )


def _describe_views(
    functions: TrackerFunctions,
    params: Params,
    session: Session,
    views: list[View],
    free: Int[np.ndarray, 'n'],
    is_new: Bool[np.ndarray, 's'],
) -> tuple[PyTree, PyTree]:
  """Returns query features and memory with new points in free slots."""

  def place(rows: np.ndarray) -> Array:
    placed = np.zeros((len(is_new), *rows.shape[1:]), rows.dtype)
    placed[free] = rows
    return jnp.asarray(placed)

  old = jax.tree.map(jnp.asarray, (session.queries, session.memory))
  if len(views) == 1:
    (view,) = views
    return slot_arrays.describe_points(
        functions,
        params,
        *old,
        jnp.asarray(view.frame[None]),
        place(view.points),
        jnp.asarray(is_new),
    )
  total = jax.tree.map(jnp.zeros_like, session.queries)
  count = sum(view.given.astype(np.float32) for view in views)
  for view in views:
    total = slot_arrays.add_description(
        functions,
        params,
        total,
        jnp.asarray(view.frame[None]),
        place(view.points),
        place(view.given / count),
    )
  return slot_arrays.replace_slots(functions, *old, total, jnp.asarray(is_new))


def _check_session(
    functions: TrackerFunctions, params: Params, session: object
) -> None:
  """Raises ValueError unless a session is one of this tracker."""
  if not isinstance(session, Session):
    raise ValueError(
        'session must be what start returned, or step as the first of two; got '
        f'{type(session).__name__}'
    )
  expected = slot_arrays.describe_slots(functions, params, len(session.slots))
  held = session.queries, session.memory
  if slot_arrays.get_shapes(held) != slot_arrays.get_shapes(expected):
    raise ValueError(
        'session must be of this tracker; it is one of another tracker or '
        'setting - start it anew'
    )


def _order_slots(session: Session) -> Int[np.ndarray, 'n']:
  """Returns the slots of `session.ids`."""
  slots = np.asarray(session.slots)
  return np.argsort(slots)[np.sum(slots == _EMPTY) :]


def _grow(
    functions: TrackerFunctions,
    params: Params,
    session: Session,
    num_slots: int,
) -> Session:
  """Returns the session with more slots, the new ones empty."""
  template = describe_session(functions, params, num_slots)

  def pad(old: Array, new: jax.ShapeDtypeStruct) -> Array:
    widths = [
        (0, after - before)
        for before, after in zip(old.shape, new.shape, strict=True)
    ]
    return jnp.pad(old, widths)

  queries, memory = jax.tree.map(
      pad,
      (session.queries, session.memory),
      (template.queries, template.memory),
  )
  missing = num_slots - len(session.slots)
  slots = np.pad(np.asarray(session.slots), (0, missing))
  slots[-missing:] = _EMPTY
  watch = LostState(
      *(np.pad(np.asarray(array), (0, missing)) for array in session.watch)
  )
  return Session(queries, memory, slots, session.num_added, watch)
