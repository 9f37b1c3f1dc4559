"""Multi-object tracking: boxes from a detector and tracked points.

frames ──detector, every few frames──► detections ─┐
   └──tracker, in windows or streamed──► points ──ObjectLifecycle──► boxes
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import itertools
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.objects import boxes as boxes_lib
from tapjax.objects.detections import check_detections
from tapjax.objects.detections import Detections
from tapjax.objects.detections import Detector
from tapjax.objects.detections import Frame
from tapjax.objects.lifecycle import ObjectLifecycle
from tapjax.objects.settings import ObjectSettings
from tapjax.objects.sources import StreamedPoints
from tapjax.objects.sources import WindowedPoints
from tapjax.objects.tracked_object import ObjectState
from tapjax.objects.tracked_object import TrackedObject
from tapjax.tracker import Tracker
from tapjax.tracking import checks
from tapjax.tracking import prepare
from tapjax.tracking.options import Progress


class ObjectTracks(NamedTuple):
  """Tracks of all objects, in pixels of the frames.

  Attributes:
    ids: ids of the objects, from 1.
    labels: class names; empty without labels of the detector.
    boxes: (left, top, right, bottom); NaN where an object is hidden.
    visible: whether an object is visible.
    detected: whether the detector found it on that frame.
    visible_share: fraction of its points that are visible.
    points: visible points (x, y) of all objects, for each frame.
    point_owners: ids of the objects of these points, for each frame.
  """

  ids: Int[np.ndarray, 'k']
  labels: list[str]
  boxes: Float[np.ndarray, 'k t 4']
  visible: Bool[np.ndarray, 'k t']
  detected: Bool[np.ndarray, 'k t']
  visible_share: Float[np.ndarray, 'k t']
  points: list[Float[np.ndarray, '_ 2']]
  point_owners: list[Int[np.ndarray, '_']]


def track_objects(
    tracker: Tracker,
    frames: UInt8[np.ndarray, 't h w 3'],
    detector: Detector,
    settings: ObjectSettings | None = None,
    *,
    report: Progress | None = None,
) -> ObjectTracks:
  """Tracks all objects of a video, in windows, with any tracker.

  Args:
    tracker: point tracker.
    frames: RGB video.
    detector: called on every `detect_every`-th frame, from the first on.
    settings: settings of the lifecycle; None for the defaults.
    report: called as `report('track', done, total)`.

  Returns:
    Tracks of all objects with at least `min_detections` detections.

  Raises:
    ValueError: the frames are not a video, or detections are malformed.
  """
  frames = checks.check_frames(frames)

  def report_frames(done: int) -> None:
    if report is not None:
      report('track', done, len(frames))

  return track_object_blocks(
      tracker, prepare.split_frames(frames), detector, settings, report_frames
  )


def track_object_blocks(
    tracker: Tracker,
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    detector: Detector,
    settings: ObjectSettings | None = None,
    progress: Callable[[int], None] | None = None,
) -> ObjectTracks:
  """Tracks objects as `track_objects`, in a video given as blocks of frames.

  Memory holds one window of frames at the resolution of the network.

  Args:
    tracker: point tracker.
    blocks: successive blocks of the video.
    detector: called on every `detect_every`-th frame, from the first on.
    settings: settings of the lifecycle; None for the defaults.
    progress: called with the number of tracked frames.

  Raises:
    ValueError: the video has no frames, or detections are malformed.
  """
  settings = settings or ObjectSettings()
  source = WindowedPoints(tracker, settings)
  found: dict[int, Detections] = {}
  sizes: list[tuple[int, int]] = []
  lifecycle: ObjectLifecycle | None = None
  arriving = _detect(blocks, detector, settings.detect_every, found, sizes)
  first = 0
  while True:
    window = _stack(itertools.islice(arriving, settings.window))
    block = next(window, None)
    if block is None:
      break
    if lifecycle is None:
      lifecycle = ObjectLifecycle(source, settings, sizes[0])
    kept = min(first, settings.overlap)
    # Frames are read, detected and resized block by block.
    stop = first + source.open_window(
        itertools.chain([block], window), kept, first
    )
    del block
    for frame in range(first, stop):
      source.go_to(frame)
      lifecycle.step(frame, found.pop(frame, None))
      if progress is not None:
        progress(frame + 1)
    first = stop
  if lifecycle is None:
    raise ValueError('the video must have at least one frame; got none')
  return _gather(lifecycle.list_reported(), first, settings)


def stream_objects(
    tracker: Tracker,
    frames: Iterable[Frame],
    detector: Detector,
    settings: ObjectSettings | None = None,
) -> Iterator[list[ObjectState]]:
  """Yields the visible objects of each frame as it arrives.

  Causal: holes are not filled, only the sides of boxes are smoothed, and
  outlier steps are not removed. The tracker must stream.
  """
  settings = settings or ObjectSettings()
  source = StreamedPoints(tracker)
  lifecycle: ObjectLifecycle | None = None
  sides: dict[int, np.ndarray] = {}
  for index, frame in enumerate(frames):
    checks.check_frame(np.asarray(frame))
    if lifecycle is None:
      lifecycle = ObjectLifecycle(source, settings, frame.shape[:2])
    source.step(frame)
    detections = None
    if index % settings.detect_every == 0:
      detections = check_detections(detector(frame), frame.shape[:2])
    shown = lifecycle.step(index, detections)
    yield [_smooth_sides(item.shown[index], sides, settings) for item in shown]
    for item in lifecycle.objects:
      # Extrapolation needs no older states.
      for old in [t for t in item.shown if t < index - settings.max_hidden]:
        del item.shown[old]


def _detect(
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    detector: Detector,
    every: int,
    found: dict[int, Detections],
    sizes: list[tuple[int, int]],
) -> Iterator[Frame]:
  """Yields single frames; adds sizes and detections to `sizes` and `found`."""
  index = 0
  for block in blocks:
    for frame in block:
      if not sizes:
        sizes.append(frame.shape[:2])
      if index % every == 0:
        found[index] = check_detections(detector(frame), frame.shape[:2])
      yield frame
      index += 1


def _stack(frames: Iterator[Frame]) -> Iterator[UInt8[np.ndarray, '_ h w 3']]:
  """Joins frames into blocks, as they arrive."""
  for first in frames:
    count = prepare.count_block_frames(first.shape[:2])
    yield np.stack([first, *itertools.islice(frames, count - 1)])


def _smooth_sides(
    state: ObjectState, sides: dict[int, np.ndarray], settings: ObjectSettings
) -> ObjectState:
  """Averages the sides of a box over past frames; keeps its center."""
  shape = boxes_lib.to_shape(state.box)
  share = 1 / (1 + settings.smoothing)
  before = sides.get(state.id, shape[2:])
  sides[state.id] = before + share * (shape[2:] - before)
  box = boxes_lib.from_shape(np.concatenate([shape[:2], sides[state.id]]))
  return state._replace(box=_pad(box, settings.padding).astype(np.float32))


def _pad(box: np.ndarray, share: float) -> np.ndarray:
  margin = share * (box[..., 2:] - box[..., :2])
  return np.concatenate([box[..., :2] - margin, box[..., 2:] + margin], -1)


def _gather(
    items: list[TrackedObject], num_frames: int, settings: ObjectSettings
) -> ObjectTracks:
  """Returns arrays of all objects, with filled and smoothed boxes."""
  shape = len(items), num_frames
  boxes = np.full((*shape, 4), np.nan, np.float32)
  visible, detected = np.zeros(shape, bool), np.zeros(shape, bool)
  shares = np.zeros(shape, np.float32)
  points: list[list[np.ndarray]] = [[] for _ in range(num_frames)]
  owners: list[list[np.ndarray]] = [[] for _ in range(num_frames)]
  for row, item in enumerate(items):
    for t, state in item.shown.items():
      boxes[row, t], visible[row, t] = state.box, True
      detected[row, t], shares[row, t] = state.detected, state.visible_share
      seen = state.points[state.points_visible]
      points[t].append(seen)
      owners[t].append(np.full(len(seen), item.number))
    filled, visible[row] = boxes_lib.fill_holes(
        boxes[row], visible[row], settings.fill
    )
    smooth = boxes_lib.smooth_boxes(filled, visible[row], settings.smoothing)
    boxes[row] = _pad(smooth, settings.padding)
  return ObjectTracks(
      np.asarray([item.number for item in items], int),
      [item.label for item in items],
      boxes,
      visible,
      detected,
      shares,
      [
          np.concatenate([np.zeros((0, 2), np.float32), *rows])
          for rows in points
      ],
      [np.concatenate([np.zeros(0, int), *rows]) for rows in owners],
  )
