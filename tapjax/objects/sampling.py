"""Sampling of an object's query points, and detection of outlier tracks."""

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Num
import numpy as np

from tapjax.objects.settings import ObjectSettings

# Without a mask, points are sampled from an ellipse with this fraction of the
# box's sides: objects seldom fill the corners of their boxes.
_FILLED = 0.85


def sample_points(
    box: Num[np.ndarray, '4'],
    mask: Bool[np.ndarray, 'h w'] | None,
    settings: ObjectSettings,
) -> Float[np.ndarray, 'n 2']:
  """Samples points (x, y) of an object on a grid over its box.

  Points lie in the eroded mask or, without a mask, in an ellipse inside of the
  box. There is at least one point, unless the mask is empty.
  """
  grid = _make_grid(box, settings.grid_size)
  if mask is None:
    center = (box[:2] + box[2:]) / 2
    half = (box[2:] - box[:2]) / 2 * _FILLED
    kept = np.sum(((grid - center) / half) ** 2, axis=-1) <= 1
    points = grid[kept] if kept.any() else center[None]
    return _thin(points, settings.max_points).astype(np.float32)
  eroded = erode(mask, settings.erosion)
  if not eroded.any():
    eroded = mask
  rows, columns = np.floor(grid[:, ::-1]).astype(int).T
  rows = np.clip(rows, 0, mask.shape[0] - 1)
  columns = np.clip(columns, 0, mask.shape[1] - 1)
  points = grid[eroded[rows, columns]]
  if not len(points):
    points = np.argwhere(eroded)[:, ::-1] + 0.5
  return _thin(points, settings.max_points).astype(np.float32)


def _make_grid(
    box: Num[np.ndarray, '4'], size: int
) -> Float[np.ndarray, 'n 2']:
  """Returns the centers of `size` x `size` equal cells of a box."""
  steps = (np.arange(size) + 0.5) / size
  x = box[0] + steps * (box[2] - box[0])
  y = box[1] + steps * (box[3] - box[1])
  return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float64)


def _thin(points: Num[np.ndarray, 'n 2'], most: int) -> Num[np.ndarray, '_ 2']:
  """Returns at most `most` evenly chosen points."""
  if len(points) <= most:
    return points
  return points[np.linspace(0, len(points) - 1, most).round().astype(int)]


def erode(
    mask: Bool[np.ndarray, 'h w'], radius: int
) -> Bool[np.ndarray, 'h w']:
  """Erodes a mask by a disc of a radius in pixels.

  Pixels outside of the frame count as part of the mask.
  """
  padded = np.pad(mask, radius, constant_values=True)
  height, width = mask.shape
  eroded = mask.copy()
  for dy in range(-radius, radius + 1):
    reach = round((radius**2 - dy**2) ** 0.5)
    for dx in range(-reach, reach + 1):
      top, left = radius + dy, radius + dx
      eroded &= padded[top : top + height, left : left + width]
  return eroded


def find_outliers(
    positions: Num[np.ndarray, 'n t 2'], deviations: float
) -> Bool[np.ndarray, 'n t']:
  """Returns the frames after steps of unusual length.

  With step lengths d of a point and e = |d - median(d)|, outliers are frames
  with e > mean(e) + deviations * std(e). Tracks of fewer than three steps have
  no outliers.
  """
  outliers = np.zeros(positions.shape[:2], bool)
  if positions.shape[1] < 4:
    return outliers
  steps = np.linalg.norm(np.diff(positions, axis=1), axis=-1)
  errors = np.abs(steps - np.median(steps, axis=1, keepdims=True))
  mean = errors.mean(axis=1, keepdims=True)
  spread = errors.std(axis=1, keepdims=True)
  # Differences below rounding errors are not outliers.
  limit = np.maximum(mean + deviations * spread, 1e-3)
  outliers[:, 1:] = errors > limit
  return outliers
