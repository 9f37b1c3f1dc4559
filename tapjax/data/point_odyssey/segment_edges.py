"""Edges between segments, at which the object of a point is ambiguous."""

from jaxtyping import Bool
from jaxtyping import UInt8
import numpy as np

# Holes of a mask are filled if it has more zeros than this.
_MOST_ZEROS = 128
_MEDIAN_SIDE = 7
# tan(22.5 degrees) in units of 1 / 2^15, as in edge detection.
_TANGENT = 13573
_TANGENT_BITS = 15


def fill_holes(mask: UInt8[np.ndarray, 'h w']) -> UInt8[np.ndarray, 'h w']:
  """Replaces zeros by the median of their neighborhood, if there are many."""
  rows, columns = np.nonzero(mask == 0)
  if len(rows) <= _MOST_ZEROS:
    return mask
  padded = np.pad(mask, _MEDIAN_SIDE // 2, mode='edge')
  around = np.arange(_MEDIAN_SIDE)
  windows = padded[
      rows[:, None, None] + around[None, :, None],
      columns[:, None, None] + around[None, None],
  ].reshape(-1, _MEDIAN_SIDE**2)
  filled = mask.copy()
  middle = _MEDIAN_SIDE**2 // 2
  filled[rows, columns] = np.partition(windows, middle, axis=1)[:, middle]
  return filled


def find_edges(
    mask: UInt8[np.ndarray, 'h w'], thickness: int
) -> Bool[np.ndarray, 'h w']:
  """Returns a mask of edges between segments, away from pixels without one."""
  edges = find_thin_edges(mask) & ~_dilate(mask == 0)
  for _ in range(thickness):
    edges = _dilate(edges)
  return edges


def find_thin_edges(
    image: UInt8[np.ndarray, 'h w'],
) -> Bool[np.ndarray, 'h w']:
  """Canny's edge detection with both thresholds at 1.

  With equal thresholds there is no hysteresis: edges are pixels with a gradient
  larger than that of their two neighbors across the edge.
  """
  padded = np.pad(image.astype(np.int64), 1, mode='edge')
  rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
  columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  dx = rows[:, 2:] - rows[:, :-2]
  dy = columns[2:] - columns[:-2]
  size = np.abs(dx) + np.abs(dy)
  outside = np.pad(size, 1)

  def shift(down: int, right: int) -> np.ndarray:
    height, width = size.shape
    return outside[1 + down : 1 + down + height, 1 + right : 1 + right + width]

  x, y = np.abs(dx), np.abs(dy) << _TANGENT_BITS
  low = x * _TANGENT
  high = low + (x << (_TANGENT_BITS + 1))
  is_upright = (size > shift(0, -1)) & (size >= shift(0, 1))
  is_level = (size > shift(-1, 0)) & (size >= shift(1, 0))
  falls = (size > shift(-1, -1)) & (size > shift(1, 1))
  rises = (size > shift(-1, 1)) & (size > shift(1, -1))
  is_slanted = np.where((dx ^ dy) < 0, rises, falls)
  across = np.where(y > high, is_level, is_slanted)
  return (size > 1) & np.where(y < low, is_upright, across)


def _dilate(image: Bool[np.ndarray, 'h w']) -> Bool[np.ndarray, 'h w']:
  """Dilates a mask by one pixel in all eight directions."""
  padded = np.pad(image, 1)
  wide = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
  return wide[:-2] | wide[1:-1] | wide[2:]
