"""A tracker with its weights, as users hold it."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
import pathlib
from typing import Any
import warnings

import jax
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import checkpoints
from tapjax.models import registry
from tapjax.models.contract import flatten_params
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.weight_names import list_haiku_sources
from tapjax.settings import list_changes
from tapjax.streaming import labels
from tapjax.streaming import lost
from tapjax.streaming import session as streaming
from tapjax.tracking import checks
from tapjax.tracking import forward_backward
from tapjax.tracking import memory
from tapjax.tracking import plan as plans
from tapjax.tracking.options import Options
from tapjax.tracking.options import Progress
from tapjax.tracking.prepare import count_block_frames
from tapjax.tracking.prepare import prepare_video
from tapjax.tracking.prepare import PreparedVideo
from tapjax.tracking.prepare import split_frames
from tapjax.tracking.programs import Programs
from tapjax.tracking.track import track
from tapjax.types import Tracks

Path = str | os.PathLike[str]
# Types of weights in files; others would lose them.
_SAVED_DTYPES = ('float32', 'float16', 'bfloat16')


@dataclasses.dataclass(frozen=True, eq=False)
class Tracker:
  """A tracker with its weights: frames and query points in, tracks out.

  Trackers of the same preset, settings and weights are equal. A tracker can be
  pickled, and compiles anew where it arrives.

  Attributes:
    name: of the preset.
    config: settings of the network; they belong to the weights.
    functions: the tracker as pure functions, for those who train or compose.
    params: the first argument of the functions.
    programs: compiled programs of this tracker.
  """

  name: str
  config: Any
  functions: TrackerFunctions
  params: Params
  programs: Programs = dataclasses.field(default_factory=Programs, repr=False)

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, Tracker):
      return NotImplemented
    return (
        self.name == other.name
        and self.config == other.config
        and _are_equal(self.params, other.params)
    )

  def __hash__(self) -> int:
    return hash((self.name, self.config))

  @property
  def visibility_threshold(self) -> float:
    """The confidence above which this tracker calls a point visible.

    `Tracks.apply_threshold` takes another one. A tracker that predicts neither
    occlusion nor uncertainty has confidences of 0 and 1 alone.
    """
    return getattr(self.config, 'visibility_threshold', 0.5)

  def track(
      self,
      frames: UInt8[np.ndarray, 't h w 3'],
      query_points: Float[np.ndarray, 'n 3'],
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      max_memory: int | str | None = None,
      window: int | None = None,
      devices: Sequence[jax.Device] | None = None,
      report: Progress | None = None,
  ) -> Tracks:
    """Tracks points through a whole video.

    Args:
      frames: RGB, of any size.
      query_points: (t, y, x) each: the index of a frame, which may be a
        fraction, then pixels of `frames` with (0, 0) the outer corner of the
        upper-left one.
      query_chunk: points to track at once; bounds memory, changes no result. A
        tracker whose points attend to each other takes all of them without it,
        and with it each chunk as a set of its own.
      frame_chunk: frames to encode at once; bounds memory, changes no result.
      max_memory: bytes that tracking may take besides `frames`, or text such as
        '4GB'. A video that needs more is tracked through windows, as long as
        memory allows.
      window: tracks through windows of that many frames. A causal tracker gives
        the tracks of the whole video; of another one they differ a little, and
        a warning says so.
      devices: that share the work; without it all local GPUs or TPU cores, or
        one CPU.
      report: called as `report(stage, done, total)` while work goes on.

    Returns:
      Tracks in pixels of `frames`, one row per query, as NumPy arrays.

    Raises:
      ValueError: the argument is not a video, or not points in it, or
        `max_memory` is too little for the tracker.
    """
    frames = checks.check_frames(frames)
    points = checks.check_query_points(query_points)
    checks.check_queries_inside(points, len(frames), frames.shape[1:3])
    checks.check_chunks(query_chunk, frame_chunk, window)
    blocks = split_frames(frames)
    return self.track_video(
        self.prepare(blocks, on_disk=max_memory is not None),
        points,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        max_memory=max_memory,
        window=window,
        devices=devices,
        report=report,
    )

  def warmup(
      self,
      num_frames: int,
      num_queries: int,
      resolution: Sequence[int] | None = None,
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ) -> None:
    """Compiles what `track` needs, before there is a video.

    Later videos of up to `num_frames`, and at least half as many, need no
    compilation, whatever their number of queries; where queries see each other
    there may be up to `num_queries` of them. Frames are `resolution` large, or
    as the network wants them.
    """
    _check_counts(num_frames, num_queries)
    checks.check_chunks(query_chunk, frame_chunk)
    size = checks.check_resolution(resolution or self.functions.resolution)
    options = Options(
        query_chunk=query_chunk, frame_chunk=frame_chunk, devices=devices
    )
    plan = self._plan(num_frames, num_queries, options)
    dtype = memory.get_frame_dtype(self.functions, size)
    self.programs.compile(plan, self.params, dtype, options)
    if dtype != np.uint8:
      block = np.zeros((count_block_frames(size), *size, 3), np.uint8)
      self.prepare([block])

  def _plan(
      self, num_frames: int, num_queries: int, options: Options
  ) -> plans.Plan:
    """Returns the plan for queries on the first frame of a video."""
    points = np.zeros((num_queries, 3), np.float32)
    known = self.programs.list_shapes(self.functions, options)
    return plans.make_plan(self.functions, num_frames, points, options, known)

  def estimate_memory(
      self,
      num_frames: int,
      num_queries: int,
      resolution: Sequence[int] | None = None,
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ) -> int:
    """Returns the bytes that `track` takes for such a video.

    It is estimated from the shapes of all arrays, without compiling. The
    caller's frames and the memory of the process so far come on top.
    """
    _check_counts(num_frames, num_queries)
    checks.check_chunks(query_chunk, frame_chunk)
    size = checks.check_resolution(resolution or self.functions.resolution)
    options = Options(
        query_chunk=query_chunk, frame_chunk=frame_chunk, devices=devices
    )
    plan = self._plan(num_frames, num_queries, options)
    return memory.estimate_memory(plan, self.params, size)

  def fit_window(
      self,
      num_frames: int,
      num_queries: int,
      resolution: Sequence[int],
      max_memory: int | str,
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      devices: Sequence[jax.Device] | None = None,
  ) -> int | None:
    """Returns the longest window for which `max_memory` is enough.

    None if it is enough for the whole video, or for the windows of a tracker
    that has its own. The caller's frames do not count.

    Raises:
      ValueError: it is enough for none.
    """
    return memory.fit_window(
        self.functions,
        self.params,
        num_frames,
        np.zeros((num_queries, 3), np.float32),
        checks.check_resolution(resolution),
        checks.check_memory(max_memory),
        Options(
            query_chunk=query_chunk, frame_chunk=frame_chunk, devices=devices
        ),
    )

  def prepare(
      self,
      blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
      *,
      on_disk: bool = False,
  ) -> PreparedVideo:
    """Resizes a video that arrives in blocks of a few frames.

    It is only held at the resolution of the network, or in a temporary file.
    """
    return prepare_video(blocks, self.functions.resolution, on_disk=on_disk)

  def track_video(
      self,
      video: PreparedVideo,
      query_points: Float[np.ndarray, 'n 3'],
      *,
      query_chunk: int | None = None,
      frame_chunk: int | None = None,
      max_memory: int | str | None = None,
      window: int | None = None,
      devices: Sequence[jax.Device] | None = None,
      report: Progress | None = None,
  ) -> Tracks:
    """As `track`, for a video that `prepare` made.

    The video's frames do not count for `max_memory`; keep them on disk.
    """
    points = checks.check_query_points(query_points)
    checks.check_queries_inside(points, len(video.frames), video.original)
    checks.warn_of_shares(points[:, 1:], video.original, 'query_points', 2)
    checks.check_chunks(query_chunk, frame_chunk, window)
    if max_memory is not None and window is None and len(points):
      window = self.fit_window(
          len(video.frames),
          len(points),
          video.original,
          max_memory,
          query_chunk=query_chunk,
          frame_chunk=frame_chunk,
          devices=devices,
      )
    options = Options(
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        window=window,
        devices=devices,
        progress=report,
    )
    if window is not None:
      self._warn_of_windows(len(video.frames), window)
    return track(
        self.functions, self.params, self.programs, video, points, options
    )

  def _warn_of_windows(self, num_frames: int, window: int) -> None:
    """Warns where tracks through windows differ from those of the video."""
    segments = self.functions.list_segments(
        num_frames, np.zeros(1, int), window
    )
    if not segments.carries_memory:
      warnings.warn(
          f'{self.name} sees windows of {window} of the {num_frames} frames: '
          'tracks may differ from those of the whole video',
          stacklevel=3,
      )

  def measure_agreement(
      self,
      video: PreparedVideo,
      query_points: Float[np.ndarray, 'n 3'],
      tracks: Tracks,
      *,
      num_checks: int = forward_backward.NUM_CHECKS,
      radius: float = forward_backward.RADIUS,
  ) -> Float[np.ndarray, 'n t']:
    """Returns how well tracks lead back to their queries, in [0, 1].

    From `num_checks` frames of the video the points are tracked anew; the
    result is 1 where they meet their query and 1/2 where they miss it by
    `radius` pixels at 256x256; see `tapjax.tracking.forward_backward`.
    """
    return forward_backward.measure_agreement(
        lambda points: track(
            self.functions,
            self.params,
            self.programs,
            video,
            points,
            Options(),
        ),
        checks.check_query_points(query_points),
        tracks,
        video.original,
        num_checks=num_checks,
        radius=radius,
        together=self.functions.queries_independent,
    )

  def start(
      self,
      frame: labels.Frames,
      points_yx: Float[np.ndarray, '*k n 2'],
  ) -> streaming.Session:
    """Begins to track points frame by frame; see `tapjax.streaming.session`.

    The frame shows the points, (y, x) in its pixels. It is not tracked: pass it
    to `step` too if it is the first one of the video. It may be from another
    video, or of another size. Several frames with points `[k, n, 2]`, NaN where
    one is not given, describe each point by the mean over them.
    """
    return streaming.start(self.functions, self.params, frame, points_yx)

  def step(
      self,
      session: streaming.Session,
      frame: UInt8[np.ndarray, 'h w 3'],
      rule: lost.LostRule = lost.DEFAULT_RULE,
  ) -> tuple[streaming.Session, Tracks]:
    """Tracks all points of a session in the next frame.

    Returns the session to go on with, and tracks `[n, 1]` of the points of
    `session.ids`, in pixels of `frame`. `session.lost` says which of them are
    lost, by the rule.
    """
    return streaming.step(self.functions, self.params, session, frame, rule)

  def add(
      self,
      session: streaming.Session,
      frame: labels.Frames,
      points_yx: Float[np.ndarray, '*k n 2'],
  ) -> streaming.Session:
    """Begins to track more points, as `start` does."""
    return streaming.add(self.functions, self.params, session, frame, points_yx)

  def remove(
      self,
      session: streaming.Session,
      ids: Int[np.ndarray, 'n'] | Sequence[int],
  ) -> streaming.Session:
    """Ceases to track points, by their numbers in `session.ids`."""
    return streaming.remove(session, np.asarray(ids))

  def save(
      self,
      path: Path,
      metadata: Mapping[str, str] | None = None,
      *,
      dtype: str = 'float32',
  ) -> None:
    """Writes the weights: `.npy` as published, else tapjax's `.safetensors`.

    Both are read by `load(checkpoint=path)`. Only the latter keeps settings
    that differ from the preset's, and `metadata`: what else to say of the
    weights. It can be half as large, with `dtype='float16'`.
    """
    if str(np.dtype(dtype)) not in _SAVED_DTYPES:
      raise ValueError(
          f'dtype must be one of {", ".join(_SAVED_DTYPES)}; got {dtype!r}'
      )
    path = pathlib.Path(path)
    if path.suffix not in ('.npy', '.safetensors'):
      raise ValueError(
          f'path must end in .safetensors or .npy; got {path.name!r}'
      )
    arrays = {
        name: np.asarray(array, dtype)
        for name, array in flatten_params(self.params).items()
    }
    if path.suffix == '.safetensors':
      own = {
          'preset': self.name,
          'config': json.dumps(dataclasses.asdict(self.config)),
      }
      checkpoints.write_checkpoint(path, arrays, {**(metadata or {}), **own})
      return
    preset = registry.get_preset(self.name)
    names = preset.architecture.list_weight_names(self.config)
    published = checkpoints.invert_arrays(arrays, list_haiku_sources(names))
    checkpoints.write_haiku_npy(path, published)
    inferred = preset.architecture.infer_config(
        preset.config, {name: array.shape for name, array in published.items()}
    )
    if changes := list_changes(inferred, self.config):
      warnings.warn(
          f'{path.name} holds no settings, and these differ from what its '
          f'arrays are of a {self.name}: {changes} - pass them when you load '
          'it, or save as .safetensors',
          stacklevel=2,
      )


def _are_equal(ours: Params, theirs: Params) -> bool:
  """Returns whether weights are the same, to the last bit."""
  if ours is theirs:
    return True
  mine, others = flatten_params(ours), flatten_params(theirs)

  def is_equal(one: Any, other: Any) -> bool:
    return one is other or (
        (one.shape, one.dtype) == (other.shape, other.dtype)
        and np.asarray(one).tobytes() == np.asarray(other).tobytes()
    )

  return mine.keys() == others.keys() and all(
      is_equal(array, others[name]) for name, array in mine.items()
  )


def _check_counts(num_frames: int, num_queries: int) -> None:
  for name, number in (
      ('num_frames', num_frames),
      ('num_queries', num_queries),
  ):
    if not isinstance(number, (int, np.integer)) or number < 1:
      raise ValueError(
          f'{name} must be a whole number, at least 1; got {number!r}'
      )
