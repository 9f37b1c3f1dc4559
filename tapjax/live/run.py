"""Online tracking of a stream: camera, video file or pictures as they appear.

```
source ──StreamFrame──► add, step ──rows──► recording ──► tracks.npz, .csv
                            ▲          │
                screen: clicks, keys ◄─ draw ──► tracks.mp4
```

Memory does not grow with the length of the stream: each frame is tracked,
recorded, drawn and released.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import os
import pathlib
import threading
import time
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution
from tapjax.live import cuts
from tapjax.live import recording
from tapjax.live import screen as live_screen
from tapjax.live.interrupts import StopOnInterrupt
from tapjax.live.painting import Image
from tapjax.live.painting import Painter
from tapjax.media import video as video_files
from tapjax.media.pictures import scale_image
from tapjax.media.sources import Source
from tapjax.streaming import lost
from tapjax.streaming import session as streaming
from tapjax.streaming import session_files
from tapjax.tracker import Tracker

RESULTS = ('tracks.npz', 'tracks.csv', 'tracks.mp4')
# Frames over which times are averaged, and frames of compilation before them.
_TIMED = 100
_UNTIMED = 2

# (resolution, index of the first whole frame) -> query points (t, y, x).
ChoosePoints = Callable[[Resolution, int], Float[np.ndarray, 'n 3']]


class DamagedFrameError(ValueError):
  """Damaged frame in a run with `damaged='stop'`."""


class Options(NamedTuple):
  """Options of live tracking.

  Attributes:
    threshold: confidence above which a point is visible; None for the
      tracker's own threshold.
    lost_after: consecutive hidden frames after which a point is lost.
    found_after: consecutive visible frames after which it is found again.
    damaged: whether to skip damaged frames or stop at the first.
    reset_at_cuts: whether to reset the memory of the tracker at scene cuts.
    save_every: number of frames between saved states; None for never.
    max_frames: maximum number of frames to track; None for all.
  """

  threshold: float | None = None
  lost_after: int = lost.DEFAULT_RULE.lost_after
  found_after: int = lost.DEFAULT_RULE.found_after
  damaged: Literal['skip', 'stop'] = 'skip'
  reset_at_cuts: bool = False
  save_every: int | None = None
  max_frames: int | None = None


class Summary(NamedTuple):
  """Summary of a run.

  Attributes:
    num_frames: number of frames, damaged ones included.
    num_points: number of points, removed ones included.
    damaged: indices of damaged frames.
    cuts: first frames of new scenes.
    first_seconds: mean seconds per frame of the first 100 frames after
      compilation; NaN for shorter streams.
    last_seconds: mean seconds per frame of the last 100 frames; NaN for
      shorter streams.
  """

  num_frames: int
  num_points: int
  damaged: list[int]
  cuts: list[int]
  first_seconds: float
  last_seconds: float


def run(
    tracker: Tracker,
    source: Source,
    output: pathlib.Path,
    choose_points: ChoosePoints,
    options: Options = Options(),  # noqa: B008 - a tuple of constants.
    *,
    resume: bool = False,
    window: live_screen.Screen | None = None,
    log: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int | None], None] = lambda *_: None,
) -> Summary:
  """Tracks a stream to its end and writes the results into a folder.

  Args:
    tracker: tracker that streams.
    source: source of the frames.
    output: existing folder.
    choose_points: function `(resolution, index) -> [n, 3]` that gives the query
      points (t, y, x), called at the first whole frame.
    options: options of tracking.
    resume: whether to resume from the saved state of a run with equal settings.
    window: window that shows the points and returns the events of a user.
    log: called with each message for the user.
    progress: called as `progress(stage, done, total)`.

  Raises:
    DamagedFrameError: a frame is damaged and `options.damaged` is 'stop'; the
      results of the frames before it are written.
    ValueError: the tracker does not stream, or the run cannot be resumed.
  """
  if resume and not source.repeatable:
    raise ValueError(
        '--resume needs a stream that can be read again; a camera cannot'
    )
  record = recording.Recording(output, resume=resume)
  run = _Run(tracker, source, choose_points, options, record, window, log)
  is_done = False
  try:
    run.restore()
    with StopOnInterrupt() as run.stopped:
      video = record.folder / RESULTS[2]
      video_files.write_video(
          video,
          run.iterate_frames(progress),
          source.frame_rate,
          times=run.times,
      )
      run.write(progress)
    for name in RESULTS:
      os.replace(record.folder / name, output / name)
    is_done = True
  finally:
    keep = not is_done or run.problem is not None
    record.close(keep=keep and (resume or options.save_every is not None))
  if run.problem is not None:
    raise DamagedFrameError(run.problem)
  return run.summarize()


class _Run:
  """Run in progress."""

  def __init__(
      self,
      tracker: Tracker,
      source: Source,
      choose_points: ChoosePoints,
      options: Options,
      record: recording.Recording,
      window: live_screen.Screen | None,
      log: Callable[[str], None],
  ):
    self._tracker = tracker
    self._source = source
    self._choose_points = choose_points
    self._options = options
    self._record = record
    self._window = window
    self._log = log
    self._rule = lost.LostRule(
        options.threshold, options.lost_after, options.found_after
    )
    self._session: streaming.Session | None = None
    # First frame to track; frames before it were tracked by an earlier run.
    self._resumed = 0
    self._points: list[tuple[float, float, float]] = []
    self._point_of_id: list[int] = []
    self._damaged: list[int] = []
    self._cuts: list[int] = []
    self._num_frames = 0
    self._first: list[float] = []
    self._last: collections.deque[float] = collections.deque(maxlen=_TIMED)
    self._size: Resolution | None = None
    self._scene_size: Resolution | None = None
    # Seconds of all frames so far.
    self.times: list[float] = []
    self._clock = video_files.Clock(source.frame_rate, self.times)
    self.stopped = threading.Event()
    self.problem: str | None = None

  def restore(self) -> None:
    """Restores the saved state of an earlier run, if there is one."""
    saved = self._record.saved
    if saved is None:
      return
    settings = self._describe_settings()
    if saved.settings != settings:
      differing = [
          f'{name} was {saved.settings.get(name)!r}, is {value!r}'
          for name, value in settings.items()
          if saved.settings.get(name) != value
      ]
      raise ValueError(
          f'the run to resume was another one: {"; ".join(differing)}'
      )
    self._session = session_files.read_session(
        self._record.session_path, self._tracker.functions, self._tracker.params
    )
    self._resumed = saved.next_frame
    self._points = list(saved.points)
    self._point_of_id = list(saved.point_of_id)
    self._log(f'going on from frame {saved.next_frame}')

  def iterate_frames(
      self, progress: Callable[[str, int, int | None], None]
  ) -> Iterator[Image]:
    """Tracks the stream; yields its frames with the points drawn over them."""
    painter = Painter()
    earlier = self._record.read_saved_rows()
    rows: recording.Rows | None = next(earlier, None)
    colors: cuts.Colors | None = None
    drawn: Image | None = None
    is_first = True
    total = self._options.max_frames or self._source.num_frames
    progress('track', 0, total)
    began = time.perf_counter()
    with self._source.open(self.stopped) as stream:
      for index, stream_frame in enumerate(stream):
        self._clock.add(stream_frame.time)
        if stream_frame.frame is None:
          if not self._note_damage(index, stream_frame.damage):
            break
          self._num_frames = index + 1
          if drawn is not None:
            yield drawn
          began = time.perf_counter()
        else:
          self._num_frames = index + 1
          frame = self._fit_size(index, stream_frame.frame)
          if is_first:
            # Damaged frames before the first whole one are black, so that the
            # times of later frames are right.
            for _ in range(index):
              yield np.zeros_like(frame)
          before, colors = colors, self._count_colors(frame)
          if before is not None and colors is not None:
            self._note_cut(index, before, colors)
          if index < self._resumed:
            own = np.zeros(0, recording.ROW)
            if rows is not None and int(rows['frame'][0]) == index:
              own, rows = rows, next(earlier, None)
          else:
            own = self._follow(index, frame, is_first=is_first)
          is_first = False
          drawn = painter.draw(frame, own)
          yield drawn
          self._show(index, frame, drawn, own, began)
          self._save(index)
          began = self._note_time(index, began)
        progress('track', self._num_frames, total)
        if (
            self.stopped.is_set()
            or self._num_frames == self._options.max_frames
        ):
          break
    if drawn is None:
      reason = self.problem or 'the stream has none'
      raise ValueError(
          f'no whole frame came from {self._source.name}: {reason}'
      )

  def write(self, progress: Callable[[str, int, int | None], None]) -> None:
    """Writes tracks.npz and tracks.csv."""
    progress('write', 0, 2)
    late = sum(round(t) >= self._num_frames for t, _, _ in self._points)
    if late:
      self._log(f'points that begin after the last frame: {late}')
    self._record.write_arrays(
        self._record.folder / RESULTS[0],
        self._num_frames,
        query_points=np.asarray(self._points, np.float32).reshape(-1, 3),
        frame_rate=np.asarray(self._source.frame_rate, np.float64),
        times=np.asarray(self.times[: self._num_frames], np.float64),
        model=np.asarray(self._tracker.name),
        damaged=np.asarray(self._damaged, np.int64),
        cuts=np.asarray(self._cuts, np.int64),
    )
    progress('write', 1, 2)
    self._record.write_table(self._record.folder / RESULTS[1], self.times)
    progress('write', 2, 2)

  def summarize(self) -> Summary:
    """Returns the summary of the run."""
    return Summary(
        self._num_frames,
        len(self._points),
        self._damaged,
        self._cuts,
        float(np.mean(self._first)) if len(self._first) == _TIMED else np.nan,
        float(np.mean(self._last)) if len(self._last) == _TIMED else np.nan,
    )

  def _follow(
      self, index: int, frame: Image, *, is_first: bool
  ) -> recording.Rows:
    """Adds the points that begin on this frame, then tracks all points."""
    if is_first and self._session is None:
      chosen = self._choose_points(frame.shape[:2], index)
      self._points = [(t, y, x) for t, y, x in chosen.tolist()]
      missed = sum(round(t) < index for t, _, _ in self._points)
      if missed:
        self._log(
            f'points that begin before frame {index}, the first whole one, '
            f'are not tracked: {missed}'
        )
    begin = [
        point
        for point, (t, _, _) in enumerate(self._points)
        if round(t) == index and point not in self._point_of_id
    ]
    self._add(frame, begin)
    assert self._session is not None, 'the first frame began one'
    self._session, tracks = self._tracker.step(self._session, frame, self._rule)
    if self._options.threshold is not None:
      tracks = tracks.apply_threshold(self._options.threshold)
    points = np.asarray(self._point_of_id, np.int64)[self._session.ids]
    rows = recording.make_rows(index, points, tracks, self._session.lost)
    self._record.append(rows)
    return rows

  def _add(self, frame: Image, points: list[int]) -> None:
    """Adds points, by their indices, to the session."""
    places = np.asarray(
        [self._points[point][1:] for point in points], np.float32
    ).reshape(-1, 2)
    if self._session is None:
      self._session = self._tracker.start(frame, places)
    elif points:
      self._session = self._tracker.add(self._session, frame, places)
    self._point_of_id += points

  def _note_damage(self, index: int, reason: str) -> bool:
    """Logs a damaged frame; returns whether to continue after it."""
    missed = [
        point
        for point, (t, _, _) in enumerate(self._points)
        if round(t) == index
    ]
    text = f'frame {index} is damaged: {reason}'
    if self._options.damaged == 'stop':
      self.problem = f'{text} - stopped before it; --damaged=skip goes on'
      return False
    self._damaged.append(index)
    if missed:
      text += f'; points that begin there are not tracked: {len(missed)}'
    if index >= self._resumed:
      self._log(f'{text}; skipped')
    return True

  def _count_colors(self, frame: Image) -> cuts.Colors | None:
    return cuts.count_colors(frame) if self._options.reset_at_cuts else None

  def _note_cut(
      self, index: int, before: cuts.Colors, after: cuts.Colors
  ) -> None:
    if cuts.is_cut(before, after):
      self._begin_scene(index, f'frame {index} begins a new scene')

  def _begin_scene(self, index: int, text: str) -> None:
    """Forgets what the tracker remembers of earlier frames."""
    if index in self._cuts:
      return
    self._cuts.append(index)
    if index >= self._resumed:
      self._log(text)
      if self._session is not None:
        self._session = streaming.forget(self._session)

  def _fit_size(self, index: int, frame: Image) -> UInt8[np.ndarray, '_ _ 3']:
    """Scales a frame to the size of the first; a new size is a new scene."""
    size = frame.shape[0], frame.shape[1]
    if self._size is None:
      self._size = self._scene_size = size
    if size != self._scene_size:
      self._scene_size = size
      self._begin_scene(
          index,
          f'frame {index} is {size[1]}x{size[0]}: a new scene, scaled to '
          f'{self._size[1]}x{self._size[0]} as the first',
      )
    return frame if size == self._size else scale_image(frame, self._size)

  def _show(
      self,
      index: int,
      frame: Image,
      drawn: Image,
      rows: recording.Rows,
      began: float,
  ) -> None:
    """Shows a frame and applies the events of the user."""
    if self._window is None:
      return
    rate = 1 / max(time.perf_counter() - began, 1e-6)
    seen = int(rows['visible'].sum())
    caption = f'{rate:.1f} frames/s, {seen} of {len(rows)} points seen'
    for event in self._window.show(drawn, caption):
      if event.kind == 'quit':
        self.stopped.set()
      elif index >= self._resumed:
        self._apply_event(event, index, frame, rows)

  def _apply_event(
      self,
      event: live_screen.Event,
      index: int,
      frame: Image,
      rows: recording.Rows,
  ) -> None:
    """Adds or removes points, with effect from the next frame on."""
    assert self._session is not None, 'a frame was tracked'
    height, width = frame.shape[:2]
    if event.kind == 'add':
      if 0 <= event.x <= width and 0 <= event.y <= height:
        self._points.append((float(index), event.y, event.x))
        self._add(frame, [len(self._points) - 1])
      return
    ids = self._session.ids
    if event.kind == 'remove' and len(ids):
      points = np.asarray(self._point_of_id)[ids]
      known = np.isin(rows['point'], points)
      if not known.any():
        return
      away = np.hypot(rows['x'] - event.x, rows['y'] - event.y)
      nearest = rows['point'][np.argmin(np.where(known, away, np.inf))]
      ids = ids[points == nearest]
    self._session = self._tracker.remove(self._session, ids)

  def _save(self, index: int) -> None:
    every = self._options.save_every
    if every is None or index < self._resumed or (index + 1) % every:
      return
    assert self._session is not None, 'a frame was tracked'
    with self._record.save(
        index + 1,
        points=self._points,
        point_of_id=self._point_of_id,
        damaged=self._damaged,
        cuts=self._cuts,
        settings=self._describe_settings(),
    ) as path:
      session_files.write_session(path, self._session)

  def _note_time(self, index: int, began: float) -> float:
    now = time.perf_counter()
    if index >= self._resumed + _UNTIMED:
      if len(self._first) < _TIMED:
        self._first.append(now - began)
      self._last.append(now - began)
    return now

  def _describe_settings(self) -> dict[str, Any]:
    """Returns the settings that a resumed run must share."""
    options = self._options
    return {
        'model': self._tracker.name,
        'resolution': list(self._tracker.functions.resolution),
        'source': self._source.name,
        'threshold': options.threshold,
        'lost_after': options.lost_after,
        'found_after': options.found_after,
        'reset_at_cuts': options.reset_at_cuts,
    }
