"""Object lifecycle: begin, track, hide, re-identify, remove.

On every frame, the visible points of an object move its box. Every
`detect_every` frames, detections are matched with objects:

detections ──match──► the box of the object is corrected, its points resampled
               └─ no match ──► a new object
points ──too few, or no common motion──► hidden, until points reappear

Identity follows the points: an object that reappears keeps its id.
"""

from jaxtyping import Num
import numpy as np

from tapjax.objects import boxes as boxes_lib
from tapjax.objects.detections import Detections
from tapjax.objects.matching import find_whole
from tapjax.objects.matching import match_detections
from tapjax.objects.sampling import sample_points
from tapjax.objects.settings import ObjectSettings
from tapjax.objects.sources import PointSource
from tapjax.objects.sources import Reading
from tapjax.objects.tracked_object import Estimate
from tapjax.objects.tracked_object import extrapolate
from tapjax.objects.tracked_object import ObjectState
from tapjax.objects.tracked_object import rebase
from tapjax.objects.tracked_object import TrackedObject

# Overlap (IoU) above which two boxes are one object, if only one is detected.
_SAME = 0.6
# Area ratio above which a box does not count as smaller than another.
_AS_LARGE = 0.8
# Least fraction of an object's visible points with a common motion.
_LEAST_INLIER_FRACTION = 0.4
# Range of an object's scale, relative to its last correction.
_SMALLEST_SCALE = 0.1
_LARGEST_SCALE = 10.0


class ObjectLifecycle:
  """Lifecycle of all objects, advanced frame by frame."""

  def __init__(
      self,
      source: PointSource,
      settings: ObjectSettings,
      resolution: tuple[int, int],
  ):
    self._source = source
    self._settings = settings
    self._resolution = resolution
    self._next = 1
    # All objects, and those that are not removed.
    self.objects: list[TrackedObject] = []
    self._living: list[TrackedObject] = []

  def step(
      self, frame: int, detections: Detections | None
  ) -> list[TrackedObject]:
    """Advances all objects to a frame of the source.

    Args:
      frame: index of the frame.
      detections: detections of the frame; None if the detector was not called.

    Returns:
      The visible objects with at least `min_detections` detections.
    """
    estimates = {
        item.number: self._estimate(item, frame) for item in self._living
    }
    for item in self._living:
      self._show(item, frame, estimates[item.number])
    if detections is not None:
      self._take_detections(frame, detections, estimates)
    self._hide_doubles(frame)
    for item in list(self._living):
      if frame in item.shown:
        item.last_seen = frame
      elif frame - item.last_seen > self._settings.max_hidden or (
          self._is_tentative(item) and item.num_missed > self._settings.patience
      ):
        self._source.remove(item.points)
        self._living.remove(item)
    return [
        item
        for item in self._living
        if frame in item.shown and not self._is_tentative(item)
    ]

  def list_reported(self) -> list[TrackedObject]:
    """Returns all objects with at least `min_detections` detections, by id."""
    return [item for item in self.objects if not self._is_tentative(item)]

  def _is_tentative(self, item: TrackedObject) -> bool:
    return item.num_detections < self._settings.min_detections

  def _estimate(self, item: TrackedObject, frame: int) -> Estimate:
    """Estimates the box of an object from its visible points."""
    settings = self._settings
    reading = self._source.read(item.points, frame)
    visible = reading.visible & np.isfinite(reading.positions).all(axis=-1)
    count = len(visible)
    least = max(
        min(settings.min_points, count), int(settings.min_visible_share * count)
    )
    hidden_estimate = Estimate(reading, np.zeros(count, bool), None, None)
    if visible.sum() < max(least, 1):
      return hidden_estimate
    size = np.sqrt(max(boxes_lib.measure_area(item.box), 1.0))
    motion = boxes_lib.fit_similarity(
        item.places[visible],
        reading.positions[visible],
        settings.tolerance * size,
    )
    is_inlier = np.zeros(count, bool)
    is_inlier[np.flatnonzero(visible)[motion.is_inlier]] = True
    if is_inlier.sum() < max(_LEAST_INLIER_FRACTION * visible.sum(), 1):
      return hidden_estimate
    scale = np.sqrt(abs(np.linalg.det(motion.matrix)))
    box = boxes_lib.move_box(item.box, motion)
    height, width = self._resolution
    is_outside = (box[2:] <= 0).any() or (box[:2] >= [width, height]).any()
    if is_outside or not _SMALLEST_SCALE < scale < _LARGEST_SCALE:
      return hidden_estimate
    return Estimate(reading, is_inlier, box, motion)

  def _show(
      self,
      item: TrackedObject,
      frame: int,
      estimate: Estimate,
      *,
      detected: bool = False,
  ) -> None:
    """Adds the state of a visible object; no effect for a hidden one."""
    if estimate.box is None:
      return
    item.shown[frame] = ObjectState(
        item.number,
        item.label,
        estimate.box.astype(np.float32),
        detected,
        float(np.mean(estimate.is_inlier)),
        estimate.reading.positions.astype(np.float32),
        estimate.is_inlier,
    )

  def _take_detections(
      self,
      frame: int,
      detections: Detections,
      estimates: dict[int, Estimate],
  ) -> None:
    """Matches detections with objects; begins objects for unmatched ones."""
    pairs = match_detections(
        self._living, frame, detections, estimates, self._settings
    )
    for item in self._living:
      item.is_matched = item.number in pairs.values()
      item.num_missed = 0 if item.is_matched else item.num_missed + 1
    by_number = {item.number: item for item in self._living}
    for row, number in pairs.items():
      self._correct(
          by_number[number], frame, detections, row, estimates.pop(number)
      )
    for row in range(len(detections.boxes)):
      if row in pairs:
        continue
      whole = find_whole(self._living, frame, detections, row, self._settings)
      if whole is None:
        self._begin(frame, detections, row)
      elif self._settings.joins_parts:
        estimate = estimates.pop(whole.number, None)
        self._join(whole, frame, detections.boxes[row], estimate)

  def _join(
      self,
      item: TrackedObject,
      frame: int,
      part: Num[np.ndarray, '4'],
      estimate: Estimate | None,
  ) -> None:
    """Extends the box of an object to a detected part of it."""
    state = item.shown[frame]
    old = state.box.astype(np.float64)
    box = boxes_lib.correct_box(old, part, self._settings.correction, 0.0)
    if estimate is None:
      item.box = box
    else:
      rebase(item, estimate, box)
    item.is_matched, item.num_missed = True, 0
    item.shown[frame] = state._replace(box=box.astype(np.float32))
    self._spread_correction(item, frame, old, box)
    item.corrected = frame

  def _begin(self, frame: int, detections: Detections, row: int) -> None:
    """Begins a new object at a detection."""
    box = detections.boxes[row].astype(np.float64)
    label = '' if detections.labels is None else str(detections.labels[row])
    identity = None if detections.ids is None else int(detections.ids[row])
    item = TrackedObject(
        self._next,
        label,
        identity,
        np.zeros(0, int),
        box,
        np.zeros((0, 2)),
        0.0,
        frame,
        frame,
        corrected=frame,
    )
    self._next += 1
    self._sample(item, frame, detections, row, box)
    self.objects.append(item)
    self._living.append(item)
    self._look_back(item, frame)

  def _sample(
      self,
      item: TrackedObject,
      frame: int,
      detections: Detections,
      row: int,
      box: Num[np.ndarray, '4'],
  ) -> None:
    """Resamples the points of an object from a detection."""
    masks = detections.masks
    mask = None if masks is None else masks[row]
    if mask is not None and not mask.any():
      mask = None
    places = sample_points(detections.boxes[row], mask, self._settings)
    self._source.remove(item.points)
    item.points = self._source.add(places)
    item.places = places.astype(np.float64)
    item.box = box.astype(np.float64)
    item.sampled_area = boxes_lib.measure_area(item.box)
    is_all = np.ones(len(places), bool)
    estimate = Estimate(Reading(places, is_all), is_all, item.box, None)
    self._show(item, frame, estimate, detected=True)

  def _correct(
      self,
      item: TrackedObject,
      frame: int,
      detections: Detections,
      row: int,
      estimate: Estimate,
  ) -> None:
    """Corrects the box of an object with its matched detection."""
    settings = self._settings
    box = detections.boxes[row].astype(np.float64)
    item.num_detections += 1
    expected = estimate.box
    if expected is None:
      expected = extrapolate(item, frame)
    mixed = boxes_lib.correct_box(
        expected,
        box,
        settings.correction,
        settings.correction * settings.shrinking,
    )
    if estimate.box is None or estimate.motion is None:
      # After hiding, the old points may be invalid.
      self._sample(item, frame, detections, row, mixed)
      self._look_back(item, frame)
      item.corrected = frame
      return
    inside = boxes_lib.are_inside(estimate.reading.positions, mixed)
    share = float((inside & estimate.is_inlier).mean())
    growth = boxes_lib.measure_area(mixed) / max(item.sampled_area, 1e-9)
    limit = settings.reinitialize_growth
    # A larger scale of the same points is not growth.
    scale = abs(np.linalg.det(estimate.motion.matrix))
    if growth > limit * max(1, scale) and settings.joins_parts:
      # More of the object is visible; its new points extend earlier boxes.
      self._sample(item, frame, detections, row, mixed)
      self._look_back(item, frame, replaces=True)
      item.corrected = frame
      return
    if share < settings.reinitialize_share or growth > limit * max(1, scale):
      self._sample(item, frame, detections, row, mixed)
    else:
      rebase(item, estimate, mixed)
      item.sampled_area *= scale
      self._show(item, frame, estimate._replace(box=mixed), detected=True)
    self._spread_correction(item, frame, estimate.box, mixed)
    item.corrected = frame

  def _spread_correction(
      self,
      item: TrackedObject,
      frame: int,
      old: Num[np.ndarray, '4'],
      new: Num[np.ndarray, '4'],
  ) -> None:
    """Interpolates a correction over the frames since the last one.

    Boxes between two detections then agree with both. Only frames of the
    current window change.
    """
    begin = item.corrected
    first = max(begin + 1, self._source.get_first_frame())
    if any(t not in item.shown for t in range(begin, frame)):
      return
    change = boxes_lib.to_shape(new) - boxes_lib.to_shape(old)
    for t in range(first, frame):
      shape = boxes_lib.to_shape(item.shown[t].box)
      moved = shape + change * ((t - begin) / (frame - begin))
      box = boxes_lib.from_shape(moved).astype(np.float32)
      item.shown[t] = item.shown[t]._replace(box=box)

  def _look_back(
      self, item: TrackedObject, frame: int, *, replaces: bool = False
  ) -> None:
    """Tracks an object backward until its points give no box.

    With `replaces`, larger boxes replace known ones.
    """
    for t in range(frame - 1, self._source.get_first_frame() - 1, -1):
      if frame - t > self._settings.max_hidden:
        return
      if t in item.shown and not replaces:
        return
      estimate = self._estimate(item, t)
      if estimate.box is None or self._is_taken(item, t, estimate.box):
        return
      if t in item.shown:
        area = boxes_lib.measure_area(item.shown[t].box)
        if area > _AS_LARGE * boxes_lib.measure_area(estimate.box):
          return
      self._show(item, t, estimate)

  def _is_taken(
      self, item: TrackedObject, frame: int, box: Num[np.ndarray, '4']
  ) -> bool:
    """Returns whether another object overlaps a box."""
    others = [
        other.shown[frame].box
        for other in self.objects
        if other is not item and frame in other.shown
    ]
    if not others:
      return False
    overlaps = boxes_lib.measure_overlaps(np.stack(others), box[None])
    return bool(overlaps.max() > _SAME)

  def _hide_doubles(self, frame: int) -> None:
    """Hides unmatched objects that overlap a matched one.

    Their points drifted to the other object, or are occluded by it.
    """
    shown = [item for item in self._living if frame in item.shown]
    for item in shown:
      rivals = [
          other.shown[frame].box
          for other in shown
          if other is not item
          and other.is_matched
          and not item.is_matched
          and frame in other.shown
      ]
      if rivals:
        overlaps = boxes_lib.measure_overlaps(
            np.stack(rivals), item.shown[frame].box[None]
        )
        if overlaps.max() > _SAME:
          del item.shown[frame]
