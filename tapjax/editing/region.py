"""Regions of a frame, the edits that cover them, and query points inside.

Positions are raster pixels.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np


class Edit(NamedTuple):
  """RGB colors to lay over a frame, and their opacity, 0 to 1."""

  colors: UInt8[np.ndarray, 'h w 3']
  opacity: Float[np.ndarray, 'h w']


def make_region(
    resolution: tuple[int, int], corners_xy: Float[np.ndarray, 'k 2']
) -> Bool[np.ndarray, 'h w']:
  """Returns the mask of pixel centers inside of a polygon.

  Two corners are opposite corners of a rectangle.
  """
  corners = np.asarray(corners_xy, np.float64)
  if len(corners) == 2:
    (left, top), (right, bottom) = corners
    corners = np.asarray(
        [[left, top], [right, top], [right, bottom], [left, bottom]]
    )
  y, x = np.meshgrid(
      *(np.arange(side) + 0.5 for side in resolution), indexing='ij'
  )
  inside = np.zeros(resolution, bool)
  for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
    if y0 == y1:
      continue
    crossed = (y0 > y) != (y1 > y)
    inside ^= crossed & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
  return inside


def fill_region(
    region: Bool[np.ndarray, 'h w'], color: tuple[int, int, int]
) -> Edit:
  """Returns an edit that fills a region with one RGB color."""
  colors = np.broadcast_to(np.asarray(color, np.uint8), (*region.shape, 3))
  return Edit(colors, region.astype(np.float32))


def fit_picture(
    picture: UInt8[np.ndarray, 'a b 4'], region: Bool[np.ndarray, 'h w']
) -> Edit:
  """Returns an RGBA picture stretched over a region's bounding box.

  Outside of the region, the edit is transparent.

  Raises:
    ValueError: the region holds no pixels.
  """
  rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
  if not len(rows):
    raise ValueError(
        'region must hold pixels of the frame; it holds none - are its corners '
        'x, y in pixels of the video?'
    )
  top, left = rows[0], columns[0]
  height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
  y, x = np.meshgrid(
      (np.arange(height) + 0.5) / height * picture.shape[0],
      (np.arange(width) + 0.5) / width * picture.shape[1],
      indexing='ij',
  )
  # Repeated borders keep the opacity of the picture's edges.
  bordered = np.pad(
      picture.astype(np.float32), ((1, 1), (1, 1), (0, 0)), 'edge'
  )
  fitted = sample_bilinear(bordered, np.stack([x, y], axis=-1) + 1)
  box = np.s_[top : top + height, left : left + width]
  colors = np.zeros((*region.shape, 3), np.uint8)
  colors[box] = np.round(fitted[..., :3])
  opacity = np.zeros(region.shape, np.float32)
  opacity[box] = fitted[..., 3] / 255
  return Edit(colors, opacity * region)


def sample_region(
    region: Bool[np.ndarray, 'h w'], frame: int, num_points: int
) -> Float[np.ndarray, 'n 3']:
  """Returns query points (t, y, x) on a regular grid over a region of a frame.

  Their number is about `num_points`, and at least one.

  Raises:
    ValueError: the region holds no pixels.
  """
  if not region.any():
    raise ValueError('region must hold pixels of the frame; it holds none')
  spacing = max(1.0, (np.count_nonzero(region) / num_points) ** 0.5)
  rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))

  def divide(cells: np.ndarray) -> np.ndarray:
    length = cells[-1] + 1 - cells[0]
    count = max(1, round(length / spacing))
    return cells[0] + (np.arange(count) + 0.5) * length / count

  y, x = np.meshgrid(divide(rows), divide(columns), indexing='ij')
  points = np.stack([y.ravel(), x.ravel()], axis=-1)
  points = points[region[tuple(np.floor(points).astype(int).T)]]
  if not len(points):
    points = np.argwhere(region)[:1] + 0.5
  return np.insert(points, 0, frame, axis=1).astype(np.float32)


def sample_bilinear(
    grid: Float[np.ndarray, 'h w c'], points: Float[np.ndarray, '*n 2']
) -> Float[np.ndarray, '*n c']:
  """Samples a picture bilinearly at (x, y), with zeros outside."""
  height, width, _ = grid.shape
  bordered = np.pad(grid, ((1, 1), (1, 1), (0, 0)))
  x = np.clip(points[..., 0] + 0.5, 0, width + 1 - 1e-6)
  y = np.clip(points[..., 1] + 0.5, 0, height + 1 - 1e-6)
  column, row = x.astype(int), y.astype(int)
  dx, dy = (x - column)[..., None], (y - row)[..., None]
  top = bordered[row, column] * (1 - dx) + bordered[row, column + 1] * dx
  low = (
      bordered[row + 1, column] * (1 - dx) + bordered[row + 1, column + 1] * dx
  )

  return (top * (1 - dy) + low * dy).astype(np.float32)
