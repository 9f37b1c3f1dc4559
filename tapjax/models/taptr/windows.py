"""Windows of TAPTRv2: points are tracked to one end of a video at a time.

Windows overlap by half. Each leaves positions and vectors on its frames to the
next one, and on its last frame to all frames past it.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from tapjax.models.contract import NumFrames
from tapjax.models.contract import ValidLength
from tapjax.models.taptr.config import TaptrConfig
from tapjax.models.taptr.layers import TrackWindow
from tapjax.models.taptr.network import LayerOutputs

_DROPOUT = 0.6
# Longer videos than those of training pass vectors on after fewer windows.
_TRAINED_FRAMES = 24


class WindowMemory(NamedTuple):
  """Results of windows for those after them, on every frame of a video."""

  vectors: Float[Array, 't n c']
  outputs: LayerOutputs


class Schedule(NamedTuple):
  """The windows of a video, in the order in which they are tracked.

  Attributes:
    starts: first frame of each.
    exists: False for those after the last one.
    passes_on: whether the vectors of its last frame go to all frames beyond.
  """

  starts: Int[Array, 'w']
  exists: Bool[Array, 'w']
  passes_on: Bool[Array, 'w']


def count_windows(num_frames: int | NumFrames, window: int) -> int | NumFrames:
  """Returns the number of windows that overlap by half, at least one."""
  return -((window - num_frames) // (window // 2)) + 1


def plan_windows(
    num_frames: int | NumFrames, window: int, most: int
) -> Schedule:
  """Returns windows that overlap by half, the last one as far as needed.

  In long videos only some windows pass vectors on to the frames beyond them.
  The schedule is that of `num_frames`, at least a window, and has `most` rows.
  """
  index = jnp.arange(most)
  gap = jnp.maximum(1, num_frames // _TRAINED_FRAMES)
  return Schedule(
      starts=jnp.minimum(window // 2 * index, num_frames - window),
      exists=index < count_windows(num_frames, window),
      passes_on=index % gap == 0,
  )


def track_windows(
    apply: Callable[..., Any],
    config: TaptrConfig,
    tokens: Float[Array, 't s c'],
    vectors: Float[Array, 'n c'],
    query_frames: Int[Array, 'n'],
    start: LayerOutputs,
    is_forward: Bool[Array, ''],
    dropout_key: Array | None = None,
    valid: ValidLength | None = None,
) -> LayerOutputs:
  """Tracks points from their queries to one end of the video.

  Args:
    apply: calls a method of `Taptr`, as in `apply('decode_window', ...)`.
    config: the settings.
    tokens: of each frame.
    vectors: of each query.
    query_frames: of the queries.
    start: outputs of one layer before the first window. Frames on the other
      side of the query, and its own, keep them.
    is_forward: whether to go to the last frame, or else to the first.
    dropout_key: drops out part of the changes of vectors between windows.
    valid: the valid part of tokens and vectors, if not all.

  Returns:
    Outputs of each layer, for the losses; the last one's is the result.
  """
  capacity, window = len(tokens), config.window
  num_frames, num_queries = valid or (capacity, len(vectors))
  # A short video is continued by the frame at its end.
  missing = jnp.maximum(0, window - num_frames)
  before = jnp.where(is_forward, 0, missing)
  longest = max(capacity, window)
  # In a padded video, the number of missing frames is not known yet.
  frames = jnp.arange(longest if valid is None else capacity + window)
  video_frames = jnp.clip(frames - before, 0, num_frames - 1)
  continued = num_frames + missing
  schedule = plan_windows(
      continued, window, int(count_windows(longest, window))
  )
  starts = schedule.starts
  starts = jnp.where(is_forward, starts, continued - window - starts)
  video_pass = VideoPass(
      apply,
      config,
      tokens,
      vectors,
      jnp.arange(len(vectors)) < num_queries,
      query_frames + before,
      frames,
      video_frames,
      is_forward,
      dropout_key,
  )
  memory, _ = jax.lax.scan(
      lambda memory, now: (video_pass.track(memory, now), None),
      video_pass.begin(start),
      schedule._replace(starts=starts),
  )
  return jax.tree.map(
      lambda array: jax.lax.dynamic_slice_in_dim(array, before, capacity, 1),
      memory.outputs,
  )


@dataclasses.dataclass(frozen=True)
class VideoPass:
  """A pass through a video in one direction.

  Attributes:
    apply: see `track_windows`.
    config: the settings.
    tokens: of each frame of the video.
    vectors: of each query.
    is_query: whether a query is valid.
    query_frames: of the queries, among the frames of the pass.
    frames: indices of the frames of the pass: those of the video, continued.
    video_frames: frame of the video for each of them.
    is_forward: whether the pass leads to the last frame.
    dropout_key: see `track_windows`.
  """

  apply: Callable[..., Any]
  config: TaptrConfig
  tokens: Float[Array, 't s c']
  vectors: Float[Array, 'n c']
  is_query: Bool[Array, 'n']
  query_frames: Int[Array, 'n']
  frames: Int[Array, 'u']
  video_frames: Int[Array, 'u']
  is_forward: Bool[Array, '']
  dropout_key: Array | None

  def begin(self, start: LayerOutputs) -> WindowMemory:
    """Returns the memory before the first window."""
    outputs = jax.tree.map(
        lambda array: jnp.broadcast_to(
            array[self.video_frames][None],
            (self.config.decoder_layers, len(self.frames), *array.shape[1:]),
        ),
        start,
    )
    vectors = jnp.broadcast_to(
        self.vectors[None], (len(self.frames), *self.vectors.shape)
    )
    return WindowMemory(vectors, outputs)

  def track(self, memory: WindowMemory, now: Schedule) -> WindowMemory:
    """Tracks one window of the schedule, if there is a point to track in it."""
    sign = jnp.where(self.is_forward, 1, -1)
    window_frames = now.starts + jnp.arange(self.config.window)
    age = sign * (window_frames[:, None] - self.query_frames[None])
    # Points attend to those that are tracked, too.
    age = jnp.where(self.is_query[None], age, -1)
    # Nothing is passed on by windows without a point to track.
    return jax.lax.cond(
        now.exists & jnp.any(age > 0),
        lambda memory: self._track_window(memory, now, window_frames, age),
        lambda memory: memory,
        memory,
    )

  def _track_window(
      self,
      memory: WindowMemory,
      now: Schedule,
      window_frames: Int[Array, 'w'],
      age: Int[Array, 'w n'],
  ) -> WindowMemory:
    """Returns the memory after a window.

    `age` is the number of frames since the query, in the pass's direction.
    """
    last_frame = jnp.where(self.is_forward, window_frames[-1], now.starts)
    old = jax.tree.map(
        lambda array: self._take(array, now.starts, 1), memory.outputs
    )
    before = self._take(memory.vectors, now.starts, 0)
    window = TrackWindow(
        before,
        old.boxes[-1],
        self.video_frames[window_frames] * self.tokens.shape[1],
        tracked=age >= 0,
        updating=age > 0,
    )
    all_tokens = self.tokens.reshape(-1, self.tokens.shape[-1])
    new, after = self.apply('decode_window', window, all_tokens)
    outputs = jax.tree.map(
        lambda array, part, old: self._pass_on(
            _put(
                array,
                jnp.where(age[None, ..., None] > 0, part, old),
                now.starts,
                1,
            ),
            last_frame,
            1,
        ),
        memory.outputs,
        new,
        old,
    )
    change = self._compute_change(before, after, now.starts)
    change = jnp.where(age[..., None] > 0, change, 0)
    changed = _put(memory.vectors, before + change, now.starts, 0)
    changed = jnp.where(
        now.passes_on, self._pass_on(changed, last_frame, 0), changed
    )
    return WindowMemory(changed, outputs)

  def _compute_change(
      self,
      before: Float[Array, 'w n c'],
      after: Float[Array, 'w n c'],
      first_frame: Int[Array, ''],
  ) -> Float[Array, 'w n c']:
    """Returns the changes of vectors in a window."""
    first = jnp.broadcast_to(self.vectors[None], before.shape)
    change = self.apply('update_vectors', first, before, after)
    if self.dropout_key is None:
      return change
    key = jax.random.fold_in(self.dropout_key, first_frame)
    is_kept = jax.random.bernoulli(key, 1 - _DROPOUT, change.shape)
    return jnp.where(is_kept, change / (1 - _DROPOUT), 0)

  def _take(
      self, array: Array, first_frame: Int[Array, ''], axis: int
  ) -> Array:
    """Returns the frames of a window."""
    return jax.lax.dynamic_slice_in_dim(
        array, first_frame, self.config.window, axis
    )

  def _pass_on(
      self, array: Array, last_frame: Int[Array, ''], axis: int
  ) -> Array:
    """Repeats the last frame of a window on all frames beyond."""
    sign = jnp.where(self.is_forward, 1, -1)
    is_beyond = sign * (self.frames - last_frame) > 0
    last = jax.lax.dynamic_index_in_dim(array, last_frame, axis)
    shape = [1] * array.ndim
    shape[axis] = -1
    return jnp.where(is_beyond.reshape(shape), last, array)


def _put(
    array: Array, part: Array, first_frame: Int[Array, ''], axis: int
) -> Array:
  """Replaces the frames of a window."""
  return jax.lax.dynamic_update_slice_in_dim(array, part, first_frame, axis)
