"""Boxes: overlaps, motion with points, and smoothing over time.

Boxes are (left, top, right, bottom) in raster pixels.
"""

import itertools
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Num
import numpy as np

# Residuals above this many median residuals are downweighted.
_CLIP = 2.0
_ROUNDS = 12
# Initial rotations, and the fraction of inliers that accepts one.
_TURNS = tuple(
    np.asarray([[c, -s], [s, c]], np.float64)
    for c, s in ((1, 0), (0, 1), (0, -1), (-1, 0))
)
_ENOUGH = 0.6


class Similarity(NamedTuple):
  """Similarity x' = matrix @ x + shift, and its inliers.

  Attributes:
    matrix: scale times rotation.
    shift: translation in pixels.
    is_inlier: whether each point lies within the tolerance.
  """

  matrix: Float[np.ndarray, '2 2']
  shift: Float[np.ndarray, '2']
  is_inlier: Bool[np.ndarray, 'n']

  def apply(self, points: Num[np.ndarray, 'n 2']) -> Float[np.ndarray, 'n 2']:
    """Returns the transformed points."""
    return points @ self.matrix.T + self.shift


def measure_overlaps(
    boxes: Num[np.ndarray, 'n 4'], others: Num[np.ndarray, 'm 4']
) -> Float[np.ndarray, 'n m']:
  """Returns the intersection over union of all pairs of boxes."""
  shared = measure_shared(boxes, others)
  total = measure_areas(boxes)[:, None] + measure_areas(others)[None]
  return shared / np.maximum(total - shared, 1e-9)


def measure_shared(
    boxes: Num[np.ndarray, 'n 4'], others: Num[np.ndarray, 'm 4']
) -> Float[np.ndarray, 'n m']:
  """Returns the intersection areas of all pairs of boxes."""
  low = np.maximum(boxes[:, None, :2], others[None, :, :2])
  high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
  return np.prod(np.maximum(high - low, 0.0), axis=-1, dtype=np.float64)


def measure_areas(
    boxes: Num[np.ndarray, 'n 4'],
) -> Float[np.ndarray, 'n']:
  """Returns widths times heights."""
  sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
  return np.prod(sides, axis=-1, dtype=np.float64)


def measure_area(box: Num[np.ndarray, '4']) -> float:
  """Returns width times height."""
  return float(measure_areas(box[None])[0])


def are_inside(
    points: Num[np.ndarray, 'n 2'], box: Num[np.ndarray, '4']
) -> Bool[np.ndarray, 'n']:
  """Returns whether each point (x, y) lies in a box, edges included."""
  return np.all((points >= box[:2]) & (points <= box[2:]), axis=-1)


def fit_similarity(
    sources: Num[np.ndarray, 'n 2'],
    targets: Num[np.ndarray, 'n 2'],
    tolerance: float,
) -> Similarity:
  """Fits a robust similarity from sources to targets.

  Iteratively reweighted least squares, initialized with the medians' shift and
  scale. If too few points are inliers, the fit restarts from quarter turns.

  Args:
    sources: points (x, y).
    targets: corresponding points (x, y).
    tolerance: largest residual of an inlier, in pixels.
  """
  x, y = np.asarray(sources, np.float64), np.asarray(targets, np.float64)
  best = None
  for turn in _TURNS:
    motion = _fit_from(x, y, tolerance, turn)
    if best is None or motion.is_inlier.sum() > best.is_inlier.sum():
      best = motion
    if best.is_inlier.mean() >= _ENOUGH:
      break
  assert best is not None, 'there is at least one turn'
  return best


def _fit_from(
    x: Float[np.ndarray, 'n 2'],
    y: Float[np.ndarray, 'n 2'],
    tolerance: float,
    turn: Float[np.ndarray, '2 2'],
) -> Similarity:
  """Returns the similarity fitted from an initial rotation."""
  middle_x, middle_y = np.median(x, axis=0), np.median(y, axis=0)
  spread = [
      np.median(np.linalg.norm(points - middle, axis=-1))
      for points, middle in ((x, middle_x), (y, middle_y))
  ]
  scale = spread[1] / spread[0] if spread[0] > 1e-6 else 1.0
  matrix = turn * min(max(scale, 0.2), 5.0)
  shift = middle_y - matrix @ middle_x
  for _ in range(_ROUNDS):
    errors = np.linalg.norm(x @ matrix.T + shift - y, axis=-1)
    usual = max(float(np.median(errors)) * _CLIP, 0.25 * tolerance, 1e-6)
    weights = 1 / np.maximum(1, errors / usual) ** 2
    matrix, shift = _solve(x, y, weights / weights.sum())
  errors = np.linalg.norm(x @ matrix.T + shift - y, axis=-1)
  return Similarity(matrix, shift, errors <= tolerance)


def _solve(
    x: Float[np.ndarray, 'n 2'],
    y: Float[np.ndarray, 'n 2'],
    weights: Float[np.ndarray, 'n'],
) -> tuple[Float[np.ndarray, '2 2'], Float[np.ndarray, '2']]:
  """Solves weighted least squares for a similarity."""
  mean_x, mean_y = weights @ x, weights @ y
  (a, b), (c, d) = (x - mean_x).T, (y - mean_y).T
  size = weights @ (a**2 + b**2)
  if size < 1e-9:
    return np.eye(2), mean_y - mean_x
  cos = weights @ (a * c + b * d) / size
  sin = weights @ (a * d - b * c) / size
  matrix = np.asarray([[cos, -sin], [sin, cos]])
  return matrix, mean_y - matrix @ mean_x


def move_box(
    box: Num[np.ndarray, '4'], motion: Similarity
) -> Float[np.ndarray, '4']:
  """Returns the bounding box of the moved ellipse inscribed in a box."""
  half = (box[2:] - box[:2]).astype(np.float64) / 2
  center = motion.apply((box[None, :2] + box[None, 2:]) / 2)[0]
  half = np.sqrt(motion.matrix**2 @ half**2)
  return np.concatenate([center - half, center + half])


def to_shape(boxes: Num[np.ndarray, '*n 4']) -> Float[np.ndarray, '*n 4']:
  """Returns (center x, center y, log width, log height), for averages."""
  low = boxes[..., :2].astype(np.float64)
  high = boxes[..., 2:].astype(np.float64)
  sides = np.log(np.maximum(high - low, 1e-3))
  return np.concatenate([(low + high) / 2, sides], axis=-1)


def from_shape(shapes: Float[np.ndarray, '*n 4']) -> Float[np.ndarray, '*n 4']:
  """Inverts `to_shape`."""
  half = np.exp(shapes[..., 2:]) / 2
  center = shapes[..., :2]
  return np.concatenate([center - half, center + half], axis=-1)


def correct_box(
    box: Num[np.ndarray, '4'],
    other: Num[np.ndarray, '4'],
    outward: float,
    inward: float,
) -> Float[np.ndarray, '4']:
  """Moves each side toward another box, by the given fractions of the way.

  Sides that move away from the center use `outward`, others `inward`.
  """
  change = (other - box).astype(np.float64)
  is_outward = change * np.asarray([-1, -1, 1, 1]) > 0
  return box + np.where(is_outward, outward, inward) * change


def fill_holes(
    boxes: Num[np.ndarray, 't 4'], known: Bool[np.ndarray, 't'], longest: int
) -> tuple[Num[np.ndarray, 't 4'], Bool[np.ndarray, 't']]:
  """Interpolates boxes through holes of at most `longest` frames.

  Returns:
    The boxes, and whether each is known or interpolated.
  """
  filled, present = boxes.copy(), known.copy()
  frames = np.flatnonzero(known)
  for start, stop in itertools.pairwise(frames):
    if 1 < stop - start <= longest + 1:
      share = (np.arange(start + 1, stop) - start)[:, None] / (stop - start)
      ends = to_shape(boxes[[start, stop]])
      filled[start + 1 : stop] = from_shape(
          (1 - share) * ends[:1] + share * ends[1:]
      )
      present[start + 1 : stop] = True
  return filled, present


def smooth_boxes(
    boxes: Num[np.ndarray, 't 4'],
    known: Bool[np.ndarray, 't'],
    deviation: float,
) -> Float[np.ndarray, 't 4']:
  """Smooths boxes over time, within each run of known frames.

  Local linear regression with Gaussian weights of standard deviation
  `deviation`, in frames, so that linear motion has no lag, not even at the ends
  of a track. Unknown boxes are unchanged.
  """
  smooth = np.array(boxes, np.float64)
  if deviation <= 0:
    return smooth
  edges = np.flatnonzero(np.diff(np.pad(known.astype(int), 1)))
  for start, stop in edges.reshape(-1, 2):
    shapes = to_shape(boxes[start:stop])
    t = np.arange(stop - start)
    offsets = t[None] - t[:, None]
    weights = np.exp(-(offsets**2) / (2 * deviation**2))
    weights /= weights.sum(axis=1, keepdims=True)
    first = np.sum(weights * offsets, axis=1, keepdims=True)
    second = np.sum(weights * offsets**2, axis=1, keepdims=True)
    variance = np.maximum(second - first**2, 1e-9)
    weights *= 1 - first * (offsets - first) / variance
    smooth[start:stop] = from_shape(weights @ shapes)
  return smooth
