"""Tracking frame by frame, for trackers that see only the past.

A session is what is known of its points: what they look like and what the
tracker remembers of them. It is a value: nothing is changed in place, and it
can be kept, saved and gone on with at any time.

Points live in slots, of which there are 8, 16, 32 and so on. Nothing is
compiled anew while points come and go and the slots suffice.

start, add    frame ──encode, describe──► what the points look like ─┐
step          frame ──encode──► features ──initialize, refine──► tracks, memory

A point that was not seen for some frames in a row is called lost, and found
when it was seen for some again; see `LostRule`. It keeps its slot and is sought
in all of every frame meanwhile, as all points are.
"""

from collections.abc import Sequence
import functools
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import checkpoints
from tapjax.geometry import normalize_frames
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.models.contract import estimate_tracks
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.tracking import checks
from tapjax.tracking import padding
from tapjax.types import PyTree
from tapjax.types import Tracks

_FEWEST_SLOTS = 8
_EMPTY = -1


class LostRule(NamedTuple):
  """When points are called lost, and when they are found again.

  Attributes:
    threshold: a point is seen on a frame where its confidence is above it; None
      takes what the tracker calls visible.
    lost_after: frames in a row on which a point is not seen.
    found_after: frames in a row on which a lost point is seen.
  """

  threshold: float | None = None
  lost_after: int = 25
  found_after: int = 3


DEFAULT_RULE = LostRule()


class Watch(NamedTuple):
  """Which points are lost, and what speaks against it.

  Attributes:
    streaks: frames in a row, the last one among them, that contradict `lost`.
    lost: whether the point is.
  """

  streaks: Int[np.ndarray | Array, 's']
  lost: Bool[np.ndarray | Array, 's']


class Session(NamedTuple):
  """Points that are tracked frame by frame.

  Attributes:
    queries: what the point of each slot looks like.
    memory: what the tracker remembers of each slot.
    slots: the number of the point in each slot, or -1.
    num_added: points that ever were; the next one gets this number.
    watch: which slots hold a point that is lost.
  """

  queries: PyTree
  memory: PyTree
  slots: Int[np.ndarray | Array, 's']
  num_added: Int[np.ndarray | Array, '']
  watch: Watch

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


# One picture of points, or several of the same points.
Frames = UInt8[np.ndarray, '*k h w 3'] | Sequence[UInt8[np.ndarray, '_ _ 3']]


def start(
    functions: TrackerFunctions,
    params: Params,
    frame: Frames,
    points_yx: Float[np.ndarray, '*k n 2'],
) -> Session:
  """Begins to track points that a frame shows.

  The frame is only looked at for the points: pass it to `step` too if it is the
  first one of the video. It may be from elsewhere, and of another size.

  Args:
    functions: a tracker that streams.
    params: its parameters.
    frame: RGB; or several, each of any size, that show the same points. What a
      point looks like is then the mean over the frames on which it is given.
    points_yx: (y, x) in raster pixels of `frame`; there may be none. For
      several frames `[k, n, 2]`, with NaN where a point is not given.

  Raises:
    ValueError: the tracker does not stream, or the input is no frame or no
      points in it.
  """
  num_slots = _count_slots(len(check_views(frame, points_yx)[0].points))
  template = _make_template(functions, params, num_slots)
  empty = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), template
  )._replace(
      slots=np.full(num_slots, _EMPTY, np.int32),
      num_added=np.array(0, np.int32),
      watch=_make_watch(num_slots),
  )
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
    The session to go on with, and tracks `[n, 1]` of the points of
    `session.ids`, in pixels of `frame`. `session.lost` says which of them the
    rule calls lost; the tracks do not depend on it.
  """
  _check_rule(rule)
  frames = checks.check_frames(np.asarray(frame)[None])
  tracks, memory = _step(
      functions, params, session.queries, session.memory, frames
  )
  tracks = jax.tree.map(np.asarray, tracks)
  seen = tracks.visible
  if rule.threshold is not None:
    seen = tracks.confidence > rule.threshold
  watch = update_watch(session.watch, seen[:, 0], rule)
  order = _order_slots(session)
  rows = jax.tree.map(lambda array: array[order], tracks)
  return session._replace(memory=memory, watch=watch), rows


def update_watch(
    watch: Watch, seen: Bool[np.ndarray, 's'], rule: LostRule
) -> Watch:
  """Returns which points are lost, after a frame on which some were seen."""
  lost = np.asarray(watch.lost)
  streaks = np.where(seen == lost, np.asarray(watch.streaks) + 1, 0)
  changed = streaks >= np.where(lost, rule.found_after, rule.lost_after)
  return Watch(
      np.where(changed, 0, streaks).astype(np.int32),
      np.where(changed, ~lost, lost),
  )


def add(
    functions: TrackerFunctions,
    params: Params,
    session: Session,
    frame: Frames,
    points_yx: Float[np.ndarray, '*k n 2'],
) -> Session:
  """Begins to track more points; see `start`.

  They are as those of a session that starts with this frame.
  """
  views = check_views(frame, points_yx)
  points = views[0].points
  num_slots = _count_slots(len(session.ids) + len(points))
  if num_slots > len(session.slots):
    session = _grow(functions, params, session, num_slots)
  free = np.flatnonzero(np.asarray(session.slots) == _EMPTY)[: len(points)]
  slots = np.array(session.slots)
  first = int(session.num_added)
  slots[free] = np.arange(first, first + len(points))
  is_new = np.zeros(len(slots), bool)
  is_new[free] = True

  def place(rows: np.ndarray) -> np.ndarray:
    placed = np.zeros((len(slots), *rows.shape[1:]), rows.dtype)
    placed[free] = rows
    return placed

  old = session.queries, session.memory
  if len(views) == 1:
    (view,) = views
    queries, memory = _add(
        functions, params, *old, view.frame[None], place(view.points), is_new
    )
  else:
    total = jax.tree.map(jnp.zeros_like, session.queries)
    count = sum(view.given.astype(np.float32) for view in views)
    for view in views:
      total = _sum_queries(
          functions,
          params,
          total,
          view.frame[None],
          place(view.points),
          place(view.given / count),
      )
    queries, memory = _replace_slots(functions, *old, total, is_new)
  watch = Watch(
      np.where(is_new, 0, session.watch.streaks).astype(np.int32),
      np.where(is_new, False, session.watch.lost),  # noqa: FBT003
  )
  num_added = np.array(first + len(points), np.int32)
  return Session(queries, memory, slots, num_added, watch)


def remove(session: Session, ids: Int[np.ndarray, 'n']) -> Session:
  """Ceases to track points, by their numbers; the others do not notice.

  Raises ValueError for a number that is not in the session.
  """
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


def write_session(path: str | os.PathLike[str], session: Session) -> None:
  """Writes a session as `.safetensors`."""
  leaves = {
      name: np.asarray(leaf) for name, leaf in _name_leaves(session).items()
  }
  checkpoints.write_checkpoint(path, leaves, {'kind': 'session'})


def read_session(
    path: str | os.PathLike[str], functions: TrackerFunctions, params: Params
) -> Session:
  """Reads a session that a tracker of the same kind wrote.

  Raises FileNotFoundError, or ValueError for a file that holds none of it.
  """
  arrays, metadata = checkpoints.read_native(path)
  if metadata.get('kind') != 'session' or '.slots' not in arrays:
    raise ValueError(f'{pathlib.Path(path)} must hold a session; it does not')
  template = _make_template(functions, params, len(arrays['.slots']))
  expected = _name_leaves(template)
  fits = expected.keys() == arrays.keys() and all(
      leaf.shape == arrays[name].shape for name, leaf in expected.items()
  )
  if not fits:
    raise ValueError(
        f'{pathlib.Path(path)} holds a session of another tracker or setting'
    )
  leaves = [arrays[name] for name in expected]
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _name_leaves(session: Any) -> dict[str, Any]:
  flat, _ = jax.tree.flatten_with_path(session)
  return {jax.tree_util.keystr(path): leaf for path, leaf in flat}


def check_points(frame: object, points_yx: object) -> Float[np.ndarray, 'n 3']:
  """Returns points (y, x) of a frame as queries (t, y, x), or ValueError."""
  frames = checks.check_frames(np.asarray(frame)[None])
  points = np.asarray(points_yx)
  if points.shape in ((0,), (0, 2)):
    return np.zeros((0, 3), np.float32)
  if points.ndim != 2 or points.shape[1] != 2:
    raise ValueError(
        f'points_yx must be [n, 2], each (y, x); got {list(points.shape)}'
    )
  points = checks.check_query_points(
      np.concatenate([np.zeros((len(points), 1), points.dtype), points], 1)
  )
  checks.check_queries_inside(points, 1, frames.shape[1:3])
  return points


class _View(NamedTuple):
  """Points on one of the frames that show them."""

  frame: UInt8[np.ndarray, 'h w 3']
  points: Float[np.ndarray, 'n 3']
  given: Bool[np.ndarray, 'n']


def check_views(frame: object, points_yx: object) -> list[_View]:
  """Returns points on one frame or on several; raises ValueError for others."""
  is_one = isinstance(frame, (np.ndarray, jax.Array)) and frame.ndim < 4
  if is_one:
    points = check_points(frame, points_yx)
    return [_View(np.asarray(frame), points, np.ones(len(points), bool))]
  frames = list(frame)  # type: ignore[call-overload]
  labels = np.asarray(points_yx)
  if labels.ndim != 3 or labels.shape[::2] != (len(frames), 2) or not frames:
    raise ValueError(
        'points_yx must be [k, n, 2] for k frames, at least one, each (y, x); '
        f'got {list(labels.shape)} for {len(frames)} frames'
    )
  given = ~np.isnan(labels).any(axis=-1)
  if not given.any(axis=0).all():
    row = int(np.argmin(given.any(axis=0)))
    raise ValueError(
        f'points_yx must give every point on some frame; point {row} is NaN on '
        'all of them'
    )
  labels = np.where(given[..., None], labels, 0)
  return [
      _View(np.asarray(one), check_points(one, label), known)
      for one, label, known in zip(frames, labels, given, strict=True)
  ]


def _check_rule(rule: LostRule) -> None:
  if min(rule.lost_after, rule.found_after) < 1:
    raise ValueError(
        'lost_after and found_after must be at least one frame; got '
        f'{rule.lost_after} and {rule.found_after}'
    )
  if rule.threshold is not None and not 0 <= rule.threshold < 1:
    raise ValueError(
        f'threshold must be at least 0 and less than 1; got {rule.threshold}'
    )


def _make_watch(num_slots: int) -> Watch:
  return Watch(np.zeros(num_slots, np.int32), np.zeros(num_slots, bool))


def _order_slots(session: Session) -> Int[np.ndarray, 'n']:
  """Returns the slots of `session.ids`."""
  slots = np.asarray(session.slots)
  return np.argsort(slots)[np.sum(slots == _EMPTY) :]


def _count_slots(num_points: int) -> int:
  """Returns the smallest sufficient number of slots."""
  return max(_FEWEST_SLOTS, padding.round_up(max(num_points, 1)))


def _make_template(
    functions: TrackerFunctions, params: Params, num_slots: int
) -> Session:
  """Returns an empty session, with shapes in the place of arrays."""
  make_memory = functions.make_memory
  if make_memory is None:
    raise ValueError(
        'the tracker must be one that sees only the past; this one needs the '
        'whole video - use one that `tapjax models` says streams'
    )

  def describe(params: Params) -> tuple[PyTree, PyTree]:
    video = jnp.zeros((1, 1, *functions.resolution, 3), jnp.float32)
    points = jnp.zeros((1, num_slots, 3), jnp.float32)
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, points)
    return queries, make_memory(num_slots)

  queries, memory = jax.eval_shape(describe, params)
  slots = np.full(num_slots, _EMPTY, np.int32)
  num_added = np.array(0, np.int32)
  return Session(queries, memory, slots, num_added, _make_watch(num_slots))


def _grow(
    functions: TrackerFunctions,
    params: Params,
    session: Session,
    num_slots: int,
) -> Session:
  """Returns the session with more slots, the new ones empty."""
  template = _make_template(functions, params, num_slots)

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
  watch = Watch(
      *(np.pad(np.asarray(array), (0, missing)) for array in session.watch)
  )
  return Session(queries, memory, slots, session.num_added, watch)


@functools.partial(jax.jit, static_argnums=0)
def _step(
    functions: TrackerFunctions,
    params: Params,
    queries: PyTree,
    memory: PyTree,
    frames: UInt8[Array, '1 h w 3'],
) -> tuple[Tracks, PyTree]:
  features = _encode(functions, params, frames)
  estimate = estimate_tracks(functions, params, features, queries, None, memory)
  tracks = functions.finalize_tracks(estimate.states)
  positions = rescale_positions(
      tracks.positions, functions.resolution, frames.shape[1:3]
  )
  tracks = tracks._replace(positions=positions)
  return jax.tree.map(lambda array: array[0], tracks), estimate.memory


@functools.partial(jax.jit, static_argnums=0)
def _add(
    functions: TrackerFunctions,
    params: Params,
    queries: PyTree,
    memory: PyTree,
    frames: UInt8[Array, '1 h w 3'],
    points: Float[Array, 's 3'],
    is_new: Bool[Array, 's'],
) -> tuple[PyTree, PyTree]:
  """Replaces what is known of some slots."""
  fresh = _describe(functions, params, frames, points)
  return _replace_slots(functions, queries, memory, fresh, is_new)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _sum_queries(
    functions: TrackerFunctions,
    params: Params,
    total: PyTree,
    frames: UInt8[Array, '1 h w 3'],
    points: Float[Array, 's 3'],
    weights: Float[Array, 's'],
) -> PyTree:
  """Adds what points look like on one more frame."""

  def add_weighted(array: Array, new: Array) -> Array:
    return array + new * weights.reshape(1, -1, *[1] * (new.ndim - 2))

  fresh = _describe(functions, params, frames, points)
  return jax.tree.map(add_weighted, total, fresh)


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
  return functions.describe_queries(params, features, points)


@functools.partial(jax.jit, static_argnums=0)
def _replace_slots(
    functions: TrackerFunctions,
    queries: PyTree,
    memory: PyTree,
    fresh: PyTree,
    is_new: Bool[Array, 's'],
) -> tuple[PyTree, PyTree]:
  """Takes some slots' queries from others, and clears their memory."""
  num_slots = is_new.shape[0]
  make_memory = functions.make_memory
  assert make_memory is not None, 'a session is only begun with a memory'
  fewer, more = (
      jax.eval_shape(lambda num=num: make_memory(num))
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
  """Chooses along the axis of queries, the one that differs in two shapes."""
  (axis,) = (i for i in range(old.ndim) if one.shape[i] != other.shape[i])
  shape = [1] * old.ndim
  shape[axis] = -1
  return jnp.where(is_new.reshape(shape), new, old)


def _encode(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[Array, '1 h w 3'],
) -> PyTree:
  video = resize_video(normalize_frames(frames)[None], functions.resolution)
  return functions.encode_video(params, video)
