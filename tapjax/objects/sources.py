"""Point sources of object tracking: frame by frame, or window by window.

Each source numbers its points, adds points on the current frame and reads the
positions of all points on it. A window can also be read on its other frames.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Num
import numpy as np

from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.objects.detections import Frame
from tapjax.objects.sampling import find_outliers
from tapjax.objects.settings import ObjectSettings
from tapjax.streaming import session as streaming
from tapjax.tracker import Tracker
from tapjax.tracking import encoded
from tapjax.tracking import prepare

# Query frames are put before each window; their number is rounded up to a
# multiple of this, to limit compilation.
_REFERENCE_STEP = 4


class Reading(NamedTuple):
  """Positions (x, y) and visibility of points on a frame."""

  positions: Float[np.ndarray, 'n 2']
  visible: Bool[np.ndarray, 'n']


@runtime_checkable
class PointSource(Protocol):
  """Source of tracked points; numbers identify its points."""

  def add(self, points: Num[np.ndarray, 'n 2']) -> Int[np.ndarray, 'n']:
    """Adds points (x, y) on the current frame; returns their numbers."""

  def remove(self, numbers: Int[np.ndarray, 'n']) -> None:
    """Removes points."""

  def read(self, numbers: Int[np.ndarray, 'n'], frame: int) -> Reading:
    """Returns positions and visibility of points on a frame."""

  def get_first_frame(self) -> int:
    """Returns the index of the earliest frame that can be read."""


class StreamedPoints:
  """Points tracked frame by frame, by a causal tracker."""

  def __init__(self, tracker: Tracker):
    self._tracker = tracker
    self._session: streaming.Session | None = None
    self._frame: Frame | None = None
    self._index = -1
    self._known: dict[int, tuple[np.ndarray, bool]] = {}

  def step(self, frame: Frame) -> None:
    """Tracks all points in the next frame."""
    self._frame, self._index = frame, self._index + 1
    if self._session is None or not len(self._session.ids):
      return
    self._session, tracks = self._tracker.step(self._session, frame)
    self._known = {
        int(number): (position, bool(visible))
        for number, position, visible in zip(
            self._session.ids,
            tracks.positions[:, 0],
            tracks.visible[:, 0],
            strict=True,
        )
    }

  def add(self, points: Num[np.ndarray, 'n 2']) -> Int[np.ndarray, 'n']:
    """Adds points (x, y) on the current frame; returns their numbers."""
    assert self._frame is not None, 'points are those of a frame'
    points_yx = np.asarray(points, np.float32)[:, ::-1]
    if self._session is None:
      first = 0
      self._session = self._tracker.start(self._frame, points_yx)
    else:
      first = int(self._session.num_added)
      self._session = self._tracker.add(self._session, self._frame, points_yx)
    numbers = np.arange(first, first + len(points))
    for number, point in zip(numbers, points, strict=True):
      self._known[int(number)] = (np.asarray(point, np.float32), True)
    return numbers

  def remove(self, numbers: Int[np.ndarray, 'n']) -> None:
    """Removes points."""
    if self._session is not None and len(numbers):
      self._session = self._tracker.remove(self._session, numbers)

  def read(self, numbers: Int[np.ndarray, 'n'], frame: int) -> Reading:
    """Returns positions and visibility of points on the current frame."""
    assert frame == self._index, 'only the current frame is known'
    known = [self._known[int(number)] for number in numbers]
    return Reading(
        np.asarray([position for position, _ in known]).reshape(-1, 2),
        np.asarray([visible for _, visible in known], bool),
    )

  def get_first_frame(self) -> int:
    """Returns the current frame, the only one that can be read."""
    return self._index


class WindowedPoints:
  """Points tracked through one window after the other, by any tracker.

  Each window is preceded by the query frames of its points, so that query
  features always come from the original query position.
  """

  def __init__(self, tracker: Tracker, settings: ObjectSettings):
    self._tracker = tracker
    self._settings = settings
    self._size: tuple[int, int] = (1, 1)
    # The frame of the video and the query (x, y) of each point.
    self._origins: dict[int, tuple[int, np.ndarray]] = {}
    self._references: dict[int, np.ndarray] = {}
    self._frames: np.ndarray | None = None
    self._first = 0
    self._current = 0
    self._num_added = 0
    self._places: dict[int, int] = {}
    self._length = 0
    self._tracked: dict[int, tuple[np.ndarray, np.ndarray]] = {}

  def open_window(
      self, blocks: Iterable[np.ndarray], num_kept: int, first: int
  ) -> int:
    """Tracks all points through the next window.

    Args:
      blocks: blocks of its new frames.
      num_kept: number of frames shared with the previous window.
      first: index in the video of the first new frame.

    Returns:
      The number of new frames.
    """
    video = prepare.prepare_video(blocks, self._tracker.functions.resolution)
    self._size = video.original
    frames = np.asarray(video.frames)
    num_new = len(frames)
    if self._frames is not None and num_kept:
      frames = np.concatenate([self._frames[-num_kept:], frames])
    self._frames = frames
    self._first = first + num_new - len(frames)
    self._current = first
    self._encode()
    self._tracked = {}
    self._track(list(self._origins))
    return num_new

  def go_to(self, frame: int) -> None:
    """Sets the current frame, by its index in the video."""
    self._current = frame

  def add(self, points: Num[np.ndarray, 'n 2']) -> Int[np.ndarray, 'n']:
    """Adds points (x, y) on the current frame; returns their numbers."""
    assert self._frames is not None, 'points are those of a window'
    numbers = np.arange(self._num_added, self._num_added + len(points))
    self._num_added += len(points)
    for number, point in zip(numbers, points, strict=True):
      self._origins[int(number)] = (self._current, np.asarray(point))
    self._references[self._current] = self._frames[self._current - self._first]
    self._track(numbers.tolist())
    return numbers

  def remove(self, numbers: Int[np.ndarray, 'n']) -> None:
    """Removes points."""
    for number in numbers.tolist():
      del self._origins[number]
    used = {frame for frame, _ in self._origins.values()}
    self._references = {
        frame: image
        for frame, image in self._references.items()
        if frame in used
    }

  def read(self, numbers: Int[np.ndarray, 'n'], frame: int) -> Reading:
    """Returns positions and visibility of points on a frame of the window."""
    known = [self._tracked[int(number)] for number in numbers]
    index = frame - self._first
    return Reading(
        np.asarray([positions[index] for positions, _ in known]).reshape(-1, 2),
        np.asarray([visible[index] for _, visible in known], bool),
    )

  def get_first_frame(self) -> int:
    """Returns the first frame of the window."""
    return self._first

  def _encode(self) -> None:
    """Computes the features of the query frames and of the window."""
    assert self._frames is not None, 'there is a window'
    before = [
        frame for frame in sorted(self._references) if frame < self._first
    ]
    missing = -len(before) % _REFERENCE_STEP
    shown = [self._references[frame] for frame in before]
    # Padding repeats the first frame of the window.
    shown += [self._frames[0]] * missing
    self._places = {frame: i for i, frame in enumerate(before)}
    self._length = len(shown) + len(self._frames)
    frames = np.stack([*shown, *self._frames])
    functions, params = self._tracker.functions, self._tracker.params
    self._features = encoded.encode_frames(functions, params, frames)

  def _track(self, numbers: list[int]) -> None:
    """Tracks points through the window, by their numbers."""
    if not numbers:
      return
    functions, params = self._tracker.functions, self._tracker.params
    num_before = self._length - self._count_frames()
    queries = np.asarray(
        [
            (
                self._places.get(frame, frame - self._first + num_before),
                point[1],
                point[0],
            )
            for frame, point in (self._origins[number] for number in numbers)
        ],
        np.float32,
    )
    queries = np.asarray(
        rescale_query_points(queries, self._size, functions.resolution)
    )
    tracks = encoded.track_features(functions, params, self._features, queries)
    positions = np.asarray(tracks.positions[:, num_before:])
    visible = np.array(tracks.visible[:, num_before:])
    if self._settings.outlier_deviations is not None:
      visible &= ~find_outliers(positions, self._settings.outlier_deviations)
    positions = np.asarray(
        rescale_positions(positions, functions.resolution, self._size)
    )
    for row, number in enumerate(numbers):
      self._tracked[number] = (positions[row], visible[row])

  def _count_frames(self) -> int:
    assert self._frames is not None, 'there is a window'
    return len(self._frames)
