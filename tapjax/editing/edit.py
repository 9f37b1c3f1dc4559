"""Edits of one frame, propagated through a video by tracked points.

An edit is an RGBA picture of the size of the frame. Points of its region are
tracked by any tracker. On each frame, the visible points give the motion from
the frame's pixel x' to the edit's pixel x,

  x = homography^-1(x') + mean residual of the points near x',

and the hidden points give the part of the edit that is occluded. Positions are
raster pixels.
"""

from collections.abc import Iterable
from collections.abc import Iterator

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.editing.region import Edit
from tapjax.editing.region import sample_bilinear
from tapjax.types import Tracks

# Least numbers of points for each model: below six, an affine motion instead of
# a homography (eight unknowns); below three, a shift. Without points, the edit
# is hidden.
_LEAST_FOR_HOMOGRAPHY = 6
_LEAST_FOR_AFFINE = 3
_NEIGHBORS = 8
# Points whose residuals differ from those of their neighbors by more than this
# many pixels are outliers; where neighbors are far apart, by more than this
# fraction of their distance.
_LARGEST_DISAGREEMENT = 3.0
_LARGEST_BEND = 0.5
# Largest residual of the global motion, as a fraction of the region's size.
_LARGEST_WARP = 0.25
# Least fraction of inliers; with fewer, the edit is hidden.
_LEAST_INLIER_FRACTION = 0.1
_ROUNDS = 6
# Pixels farther than this many point spacings from every point are not covered
# by the edit.
_REACH = 3.0
_PIXELS_AT_ONCE = 1 << 14


def iterate_edit(
    frames: Iterable[UInt8[np.ndarray, 'h w 3']],
    edit: Edit,
    query_points: Float[np.ndarray, 'n 3'],
    tracks: Tracks,
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Yields each frame with the edit laid over it.

  Args:
    frames: frames of the video, in order from the first.
    edit: edit of the frame of the query points.
    query_points: (t, y, x) in the edit's region, as from `sample_region`.
    tracks: tracks of the query points.
  """
  sources = query_points[:, :0:-1].astype(np.float64)
  layer = np.concatenate(
      [
          edit.colors.astype(np.float32) * edit.opacity[..., None],
          edit.opacity[..., None],
      ],
      axis=-1,
  )
  query_frames = np.round(query_points[:, 0])
  for i, (frame, positions, visible) in enumerate(
      zip(
          frames,
          np.swapaxes(tracks.positions, 0, 1).astype(np.float64),
          tracks.visible.T,
          strict=True,
      )
  ):
    # On its own frame, a query is at the given position, not the estimated one.
    is_query = query_frames == i
    yield _lay_over(
        frame,
        layer,
        sources,
        np.where(is_query[:, None], sources, positions),
        visible | is_query,
    )


def _lay_over(
    frame: UInt8[np.ndarray, 'h w 3'],
    layer: Float[np.ndarray, 'h w 4'],
    sources: Float[np.ndarray, 'n 2'],
    positions: Float[np.ndarray, 'n 2'],
    visible: Bool[np.ndarray, 'n'],
) -> UInt8[np.ndarray, 'h w 3']:
  """Returns a frame with the layer moved by the visible points."""
  if not visible.any():
    return frame
  is_inlier = visible.copy()
  is_inlier[visible] = _find_inliers(sources[visible], positions[visible])
  if np.count_nonzero(is_inlier) < max(
      1, _LEAST_INLIER_FRACTION * len(sources)
  ):
    return frame
  motion = fit_motion(sources[is_inlier], positions[is_inlier])
  box = _find_box(layer[..., 3], motion, frame.shape[:2])
  if box is None:
    return frame
  left, top, right, bottom = box
  y, x = np.meshgrid(
      np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5, indexing='ij'
  )
  pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
  inverse = np.linalg.inv(motion)
  misses = sources[is_inlier] - _transform(inverse, positions[is_inlier])
  spread = _measure_spacing(positions[is_inlier])
  source_spread = _measure_spacing(sources)
  # Isolated points have pixels of the edit as far away as their neighbors.
  reach = max(spread, (np.count_nonzero(layer[..., 3]) / len(sources)) ** 0.5)
  reach *= max(1.0, _measure_growth(motion, sources))
  laid = np.empty((len(pixels), 4), np.float32)
  for start in range(0, len(pixels), _PIXELS_AT_ONCE):
    part = slice(start, start + _PIXELS_AT_ONCE)
    places = _transform(inverse, pixels[part])
    squared = _square_distances(pixels[part], positions[is_inlier])
    places += _average_near(squared, misses, spread)
    is_reached = squared.min(axis=1) <= (_REACH * reach) ** 2
    # Outliers are no evidence that the edit is visible.
    shown = _average_near(
        _square_distances(places, sources),
        is_inlier[:, None].astype(float),
        source_spread,
    )
    # Visible where half of the nearby points are, with a soft border.
    shown = np.clip(4 * (shown - 0.375), 0, 1) * is_reached[:, None]
    laid[part] = sample_bilinear(layer, places) * shown
  patch = laid.reshape(bottom - top, right - left, 4)
  result = frame.copy()
  under = frame[top:bottom, left:right] * (1 - patch[..., 3:])
  result[top:bottom, left:right] = np.round(under + patch[..., :3]).clip(0, 255)
  return result


def fit_motion(
    sources: Float[np.ndarray, 'n 2'], targets: Float[np.ndarray, 'n 2']
) -> Float[np.ndarray, '3 3']:
  """Returns the homography from sources to targets, robust to outliers.

  Fitted by iteratively reweighted least squares. With few points, the motion
  is affine; with fewer, or points on a line, it is a shift.
  """
  spread = np.linalg.svd(sources - sources.mean(0), compute_uv=False)
  is_flat = (
      len(sources) < _LEAST_FOR_AFFINE or spread[-1] < 1e-3 * spread[0] + 1
  )
  # Initial weights assume that most points shift alike.
  shifts = targets - sources
  errors = np.linalg.norm(shifts - np.median(shifts, axis=0), axis=-1)
  weights = _compute_weights(errors)
  motion = np.eye(3)
  for _ in range(_ROUNDS):
    if is_flat:
      motion = np.eye(3)
      motion[:2, 2] = np.average(targets - sources, axis=0, weights=weights)
    elif len(sources) < _LEAST_FOR_HOMOGRAPHY:
      motion = _fit_affine(sources, targets, weights)
    else:
      motion = _fit_homography(sources, targets, weights)
    errors = np.linalg.norm(_transform(motion, sources) - targets, axis=-1)
    weights = _compute_weights(errors)
  return motion


def _compute_weights(errors: np.ndarray) -> Float[np.ndarray, 'n']:
  """Returns robust weights for residuals in pixels."""
  scale = max(np.median(errors) * 2, 0.1)
  return 1 / np.maximum(1, errors / scale) ** 2


def _fit_affine(
    sources: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> Float[np.ndarray, '3 3']:
  rows = np.insert(sources, 2, 1, axis=1) * weights[:, None] ** 0.5
  answers = targets * weights[:, None] ** 0.5
  solution = np.linalg.lstsq(rows, answers, rcond=None)[0]
  return np.concatenate([solution.T, [[0, 0, 1]]])


def _fit_homography(
    sources: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> Float[np.ndarray, '3 3']:
  """Solves the direct linear transform of normalized points."""
  before, after = _normalize(sources), _normalize(targets)
  x, y = _transform(before, sources).T
  u, v = _transform(after, targets).T
  zero, one = np.zeros_like(x), np.ones_like(x)
  rows = np.concatenate(
      [
          np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], axis=-1),
          np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], axis=-1),
      ]
  )
  squares = rows.T @ (rows * np.tile(weights, 2)[:, None])
  solution = np.linalg.eigh(squares)[1][:, 0].reshape(3, 3)
  motion = np.linalg.inv(after) @ solution @ before
  # Points on both sides of the horizon: no motion of a tracked surface.
  depth = np.insert(sources, 2, 1, axis=1) @ motion[2]
  if depth.min() * depth.max() <= 0:
    return _fit_affine(sources, targets, weights)
  return motion / np.median(depth)


def _normalize(points: np.ndarray) -> Float[np.ndarray, '3 3']:
  """Returns the transform to zero mean and mean absolute coordinate 1."""
  center = points.mean(0)
  scale = max(np.abs(points - center).mean(), 1e-6)
  return np.asarray(
      [
          [1 / scale, 0, -center[0] / scale],
          [0, 1 / scale, -center[1] / scale],
          [0, 0, 1],
      ]
  )


def _transform(
    motion: Float[np.ndarray, '3 3'], points: Float[np.ndarray, 'n 2']
) -> Float[np.ndarray, 'n 2']:
  moved = points @ motion[:, :2].T + motion[:, 2]
  return moved[:, :2] / moved[:, 2:]


def _find_inliers(
    sources: np.ndarray, targets: np.ndarray
) -> Bool[np.ndarray, 'n']:
  """Returns the points whose motion is consistent with their neighbors."""
  if len(sources) < _LEAST_FOR_AFFINE:
    return np.ones(len(sources), bool)
  motion = fit_motion(sources, targets)
  misses = targets - _transform(motion, sources)
  size = np.ptp(sources, axis=0).max() * _measure_growth(motion, sources)
  is_near = np.linalg.norm(misses, axis=-1) <= max(
      _LARGEST_DISAGREEMENT, _LARGEST_WARP * size
  )
  squared = np.sum((sources[:, None] - sources[None]) ** 2, axis=-1)
  near = np.argsort(squared, axis=1)[:, : _NEIGHBORS + 1]
  middle = np.median(misses[near], axis=1)
  errors = np.linalg.norm(misses - middle, axis=-1)
  spread = np.median(np.linalg.norm(misses[near] - middle[:, None], axis=-1), 1)
  distance = np.sqrt(np.median(np.take_along_axis(squared, near, 1), axis=1))
  limit = np.maximum(_LARGEST_DISAGREEMENT, _LARGEST_BEND * distance)
  # Where neighbors are inconsistent with each other, none is an inlier.
  is_consistent = spread <= limit
  agrees = errors <= np.clip(3 * spread, _LARGEST_DISAGREEMENT, limit)
  return is_near & is_consistent & agrees


def _find_box(
    opacity: np.ndarray, motion: np.ndarray, resolution: tuple[int, int]
) -> tuple[int, int, int, int] | None:
  """Returns (left, top, right, bottom) of the pixels the layer may cover."""
  y, x = np.nonzero(opacity)
  if not len(y):
    return None
  left, top, right, bottom = x.min(), y.min(), x.max() + 1, y.max() + 1
  corners = np.asarray(
      [[left, top], [right, top], [right, bottom], [left, bottom]], float
  )
  depth = np.insert(corners, 2, 1, axis=1) @ motion[2]
  height, width = resolution
  if depth.min() <= 0:
    return 0, 0, width, height
  moved = _transform(motion, corners)
  # Margin for the residuals of the homography.
  margin = 8 + 0.1 * np.ptp(moved, axis=0)
  low = np.clip(np.floor(moved.min(0) - margin), 0, [width, height])
  high = np.clip(np.ceil(moved.max(0) + margin), 0, [width, height])
  if (high <= low).any():
    return None
  return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _measure_growth(
    motion: Float[np.ndarray, '3 3'], points: Float[np.ndarray, 'n 2']
) -> float:
  """Returns the largest local scale of a motion at the mean of the points."""
  corners = np.asarray([[-0.5, -0.5], [0.5, -0.5], [0, 0.5]])
  moved = _transform(motion, points.mean(0) + corners)
  return float(np.linalg.norm(np.diff(moved, axis=0), 2))


def _measure_spacing(points: np.ndarray) -> float:
  """Returns the median distance to the nearest neighbor, at least 1 pixel."""
  if len(points) < 2:
    return 1.0
  squared = np.sum((points[:, None] - points[None]) ** 2, axis=-1)
  np.fill_diagonal(squared, np.inf)
  return max(1.0, float(np.median(squared.min(axis=1)) ** 0.5))


def _square_distances(
    places: Float[np.ndarray, 'p 2'], points: Float[np.ndarray, 'n 2']
) -> Float[np.ndarray, 'p n']:
  """Returns squared distances between places and points."""
  squared = (
      np.sum(places**2, axis=1)[:, None]
      + np.sum(points**2, axis=1)[None]
      - 2 * places @ points.T
  )
  return np.maximum(squared, 0)


def _average_near(
    squared: Float[np.ndarray, 'p n'],
    values: Float[np.ndarray, 'n c'],
    spread: float,
) -> Float[np.ndarray, 'p c']:
  """Returns Gaussian-weighted means of the points' values at each place.

  Args:
    squared: squared distances between places and points.
    values: values of the points.
    spread: standard deviation of the weights, in pixels.
  """
  nearest = squared.min(axis=1, keepdims=True)
  weights = np.exp((nearest - squared) / (2 * spread**2))
  return weights @ values / weights.sum(axis=1, keepdims=True)
