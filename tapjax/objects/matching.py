"""Matching of detections with objects.

Ids of the detector decide where it gives any. Without them, visible objects are
matched by overlap and points, and then hidden objects by reappeared points.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from jaxtyping import Float
from jaxtyping import Num
import numpy as np

from tapjax.objects import boxes as boxes_lib
from tapjax.objects.detections import Detections
from tapjax.objects.settings import ObjectSettings
from tapjax.objects.tracked_object import Estimate
from tapjax.objects.tracked_object import extrapolate
from tapjax.objects.tracked_object import TrackedObject


def match_detections(
    items: Sequence[TrackedObject],
    frame: int,
    detections: Detections,
    estimates: Mapping[int, Estimate],
    settings: ObjectSettings,
) -> dict[int, int]:
  """Returns the matched object number for each matched detection row."""
  if detections.ids is not None:
    known = {
        item.detector_id: item.number
        for item in items
        if item.detector_id is not None
    }
    return {
        row: known[int(identity)]
        for row, identity in enumerate(detections.ids)
        if int(identity) in known
    }
  pairs: dict[int, int] = {}
  seen = [item for item in items if frame in item.shown]
  hidden = [item for item in items if frame not in item.shown]
  affinity = np.asarray(
      [
          [
              _rate_visible(item.shown[frame].box, estimates[item.number], box)
              for item in seen
          ]
          for box in detections.boxes
      ]
  ).reshape(len(detections.boxes), len(seen))
  _assign(detections, seen, affinity, settings.match, pairs)
  overlaps = np.asarray(
      [
          [
              _rate_hidden(item, frame, estimates[item.number], box, settings)
              for item in hidden
          ]
          for box in detections.boxes
      ]
  ).reshape(len(detections.boxes), len(hidden))
  _assign(detections, hidden, overlaps, 1e-6, pairs)
  return pairs


def _assign(
    detections: Detections,
    items: list[TrackedObject],
    affinity: Float[np.ndarray, 'n m'],
    least: float,
    pairs: dict[int, int],
) -> None:
  """Adds pairs of maximum total affinity, each at least `least`."""
  from scipy import optimize  # Comes with JAX; slow to import.

  labels = detections.labels
  for row in range(len(detections.boxes)):
    for column, item in enumerate(items):
      other = labels is not None and labels[row] != item.label
      if row in pairs or other:
        affinity[row, column] = 0
  affinity = np.where(affinity >= least, affinity, 0)
  for row, column in zip(
      *optimize.linear_sum_assignment(-affinity), strict=True
  ):
    if affinity[row, column] > 0:
      pairs[int(row)] = items[column].number


def _rate_visible(
    own: Num[np.ndarray, '4'],
    estimate: Estimate,
    box: Num[np.ndarray, '4'],
) -> float:
  """Returns the affinity of a detection and a visible object, 0 to 1.

  Mean of the boxes' IoU and the fraction of inlier points in the detection.
  """
  points = estimate.reading.positions[estimate.is_inlier]
  overlap = boxes_lib.measure_overlaps(own[None], box[None])[0, 0]
  inside = boxes_lib.are_inside(points, box).mean() if len(points) else 0.0
  return float(overlap + inside) / 2 if overlap > 0.05 else 0.0


def _rate_hidden(
    item: TrackedObject,
    frame: int,
    estimate: Estimate,
    box: Num[np.ndarray, '4'],
    settings: ObjectSettings,
) -> float:
  """Returns the affinity of a detection and a hidden object.

  Reappeared points (1 to 2) outweigh an overlap of the extrapolated box (up
  to 1).
  """
  reading = estimate.reading
  inside = reading.visible & boxes_lib.are_inside(reading.positions, box)
  share = float(inside.mean())
  if share >= settings.revive_share and inside.sum() >= min(
      settings.min_points, len(inside)
  ):
    return 1 + share
  expected = extrapolate(item, frame)
  overlap = boxes_lib.measure_overlaps(expected[None], box[None])[0, 0]
  if overlap >= settings.match:
    return float(overlap)
  shared = boxes_lib.measure_shared(expected[None], box[None])[0, 0]
  part = float(shared / boxes_lib.measure_area(box))
  is_part = settings.joins_parts and part >= settings.part_share
  return 0.1 * part if is_part else 0.0


def find_whole(
    items: Sequence[TrackedObject],
    frame: int,
    detections: Detections,
    row: int,
    settings: ObjectSettings,
) -> TrackedObject | None:
  """Returns the visible object that a detection is part of, or None."""
  shown = [item for item in items if frame in item.shown]
  if detections.ids is not None or not shown:
    return None
  box = detections.boxes[row]
  stacked = np.stack([item.shown[frame].box for item in shown])
  overlaps = boxes_lib.measure_overlaps(stacked, box[None])[:, 0]
  shared = boxes_lib.measure_shared(stacked, box[None])[:, 0]
  part = shared / boxes_lib.measure_area(box)
  claimed = (overlaps >= settings.match) | (part >= settings.part_share)
  best = int(np.argmax(np.where(claimed, part, -1)))
  return shown[best] if claimed[best] else None
