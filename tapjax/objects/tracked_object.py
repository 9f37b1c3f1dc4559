"""Records of tracked objects: states by frame, and estimates from points."""

import dataclasses
from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Num
import numpy as np

from tapjax.objects import boxes as boxes_lib
from tapjax.objects.sources import Reading

# Number of frames for which the motion of a hidden object is extrapolated.
_COASTING = 10


class ObjectState(NamedTuple):
  """State of a visible object on one frame.

  Attributes:
    id: id of the object, from 1.
    label: class name; empty without labels of the detector.
    box: (left, top, right, bottom), which may reach beyond the frame.
    detected: whether the detector found it on this frame.
    visible_share: fraction of its points in `points_visible`.
    points: positions (x, y) of its points.
    points_visible: whether each point is visible and an inlier of the motion.
  """

  id: int
  label: str
  box: Float[np.ndarray, '4']
  detected: bool
  visible_share: float
  points: Float[np.ndarray, 'n 2']
  points_visible: np.ndarray


@dataclasses.dataclass
class TrackedObject:
  """Tracked object; `shown` holds its states, by visible frame."""

  number: int
  label: str
  detector_id: int | None
  points: Int[np.ndarray, 'n']
  # Box and point positions of the last correction; box area at the last
  # sampling of points.
  box: Float[np.ndarray, '4']
  places: Float[np.ndarray, 'n 2']
  sampled_area: float
  born: int
  last_seen: int
  shown: dict[int, ObjectState] = dataclasses.field(default_factory=dict)
  num_detections: int = 1
  num_missed: int = 0
  corrected: int = 0
  is_matched: bool = True


class Estimate(NamedTuple):
  """Box and motion of an object from its points; both None if hidden."""

  reading: Reading
  is_inlier: np.ndarray
  box: np.ndarray | None
  motion: boxes_lib.Similarity | None


def rebase(
    item: TrackedObject, estimate: Estimate, box: Num[np.ndarray, '4']
) -> None:
  """Sets the box and the current positions of all points as references.

  Positions of outliers come from the common motion.
  """
  assert estimate.motion is not None, 'what is hidden has no box'
  places = estimate.motion.apply(item.places)
  places[estimate.is_inlier] = estimate.reading.positions[estimate.is_inlier]
  item.places, item.box = places, box


def extrapolate(item: TrackedObject, frame: int) -> Float[np.ndarray, '4']:
  """Returns the box of a hidden object, extrapolated at constant velocity."""
  frames = sorted(item.shown)
  last = frames[-1]
  before = next((t for t in reversed(frames) if last - t >= 3), last)
  box = item.shown[last].box.astype(np.float64)
  if before == last:
    return box
  shift = np.tile(
      boxes_lib.to_shape(box)[:2]
      - boxes_lib.to_shape(item.shown[before].box)[:2],
      2,
  )
  return box + shift * min(frame - last, _COASTING) / (last - before)
