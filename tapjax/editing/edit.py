"""An edit made on one frame, carried through the video by tracked points.

The edit is a picture with transparency of the size of the frame. Points of its
region are tracked, by any tracker; on every frame those that are visible tell
how the region has moved,

  x = homography^-1(x') + mean of what it misses the points around x' by

from a frame's pixel x' to the edit's x, and those that are hidden where the
edit is behind something. Positions are raster pixels.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.types import Tracks

# A homography has eight unknowns; fewer points than four move the edit less
# freely, and none hide it.
_LEAST_FOR_HOMOGRAPHY = 6
_LEAST_FOR_AFFINE = 3
_NEIGHBORS = 8
# Points that their neighbors disagree with by more pixels than this are wrong,
# or where these are far apart or bend, by more than a share of their distance.
_LARGEST_DISAGREEMENT = 3.0
_LARGEST_BEND = 0.5
# Nor do points move away from the whole by more than a share of its size.
_LARGEST_WARP = 0.25
# Of all points, below which what they say is chance.
_LEAST_RIGHT_SHARE = 0.1
_ROUNDS = 6
# Pixels this many times as far from every point as points are from each other
# are not those of the edit.
_REACH = 3.0
_PIXELS_AT_ONCE = 1 << 14


class Edit(NamedTuple):
  """Colors to be laid over a frame, and how opaque they are, 0 to 1."""

  colors: UInt8[np.ndarray, 'h w 3']
  opacity: Float[np.ndarray, 'h w']


def make_region(
    resolution: tuple[int, int], corners_xy: Float[np.ndarray, 'k 2']
) -> Bool[np.ndarray, 'h w']:
  """Returns which pixel centers are inside of a polygon.

  Two corners are opposite ones of a rectangle.
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
  """Returns an edit of one color."""
  colors = np.broadcast_to(np.asarray(color, np.uint8), (*region.shape, 3))
  return Edit(colors, region.astype(np.float32))


def fit_picture(
    picture: UInt8[np.ndarray, 'a b 4'], region: Bool[np.ndarray, 'h w']
) -> Edit:
  """Returns a picture stretched over a region's bounding box, seen in it."""
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
  # The border is repeated, so that edges stay as opaque as they are.
  bordered = np.pad(
      picture.astype(np.float32), ((1, 1), (1, 1), (0, 0)), 'edge'
  )
  fitted = _read_between(bordered, np.stack([x, y], axis=-1) + 1)
  box = np.s_[top : top + height, left : left + width]
  colors = np.zeros((*region.shape, 3), np.uint8)
  colors[box] = np.round(fitted[..., :3])
  opacity = np.zeros(region.shape, np.float32)
  opacity[box] = fitted[..., 3] / 255
  return Edit(colors, opacity * region)


def sample_region(
    region: Bool[np.ndarray, 'h w'], frame: int, num_points: int
) -> Float[np.ndarray, 'n 3']:
  """Returns query points (t, y, x) about evenly over a region of a frame.

  There are about `num_points`, and at least one.
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


def iterate_edit(
    frames: Iterable[UInt8[np.ndarray, 'h w 3']],
    edit: Edit,
    query_points: Float[np.ndarray, 'n 3'],
    tracks: Tracks,
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Yields each frame with the edit laid over it.

  Args:
    frames: of the video, from the first on.
    edit: as made on the frame of the query points.
    query_points: (t, y, x) in the edit's region, as `sample_region` gives them.
    tracks: of these points.
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
    # On its own frame a query is what the caller says, not what is estimated.
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
  """Returns a frame with the layer where the points have taken it."""
  if not visible.any():
    return frame
  is_right = visible.copy()
  is_right[visible] = _agree_with_neighbors(
      sources[visible], positions[visible]
  )
  if np.count_nonzero(is_right) < max(1, _LEAST_RIGHT_SHARE * len(sources)):
    return frame
  motion = fit_motion(sources[is_right], positions[is_right])
  box = _find_box(layer[..., 3], motion, frame.shape[:2])
  if box is None:
    return frame
  left, top, right, bottom = box
  y, x = np.meshgrid(
      np.arange(top, bottom) + 0.5, np.arange(left, right) + 0.5, indexing='ij'
  )
  pixels = np.stack([x.ravel(), y.ravel()], axis=-1)
  inverse = np.linalg.inv(motion)
  misses = sources[is_right] - _transform(inverse, positions[is_right])
  spread = _measure_spacing(positions[is_right])
  source_spread = _measure_spacing(sources)
  # Where some points are far from all others, they are as far from pixels.
  reach = max(spread, (np.count_nonzero(layer[..., 3]) / len(sources)) ** 0.5)
  reach *= max(1.0, _measure_growth(motion, sources))
  laid = np.empty((len(pixels), 4), np.float32)
  for start in range(0, len(pixels), _PIXELS_AT_ONCE):
    part = slice(start, start + _PIXELS_AT_ONCE)
    places = _transform(inverse, pixels[part])
    squared = _square_distances(pixels[part], positions[is_right])
    places += _average_near(squared, misses, spread)
    is_reached = squared.min(axis=1) <= (_REACH * reach) ** 2
    # Wrong points are no sign that the edit can be seen.
    shown = _average_near(
        _square_distances(places, sources),
        is_right[:, None].astype(float),
        source_spread,
    )
    # Half of the points around are enough, over a soft border.
    shown = np.clip(4 * (shown - 0.375), 0, 1) * is_reached[:, None]
    laid[part] = _read_between(layer, places) * shown
  patch = laid.reshape(bottom - top, right - left, 4)
  result = frame.copy()
  under = frame[top:bottom, left:right] * (1 - patch[..., 3:])
  result[top:bottom, left:right] = np.round(under + patch[..., :3]).clip(0, 255)
  return result


def fit_motion(
    sources: Float[np.ndarray, 'n 2'], targets: Float[np.ndarray, 'n 2']
) -> Float[np.ndarray, '3 3']:
  """Returns the matrix of the homography that takes sources to targets.

  Points that are far off count little. Of few points, or of points on a line,
  it is the shift or the affine motion that fits best.
  """
  spread = np.linalg.svd(sources - sources.mean(0), compute_uv=False)
  is_flat = (
      len(sources) < _LEAST_FOR_AFFINE or spread[-1] < 1e-3 * spread[0] + 1
  )
  # Before anything is fitted, most points are taken to shift alike.
  shifts = targets - sources
  errors = np.linalg.norm(shifts - np.median(shifts, axis=0), axis=-1)
  weights = _weigh(errors)
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
    weights = _weigh(errors)
  return motion


def _weigh(errors: np.ndarray) -> Float[np.ndarray, 'n']:
  """Returns what points count that are off by so many pixels."""
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
  """Solves the linear equations of normalised points."""
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
  # Beyond its horizon a homography turns over, which no tracked surface does.
  depth = np.insert(sources, 2, 1, axis=1) @ motion[2]
  if depth.min() * depth.max() <= 0:
    return _fit_affine(sources, targets, weights)
  return motion / np.median(depth)


def _normalize(points: np.ndarray) -> Float[np.ndarray, '3 3']:
  """Returns what moves points to the origin and gives them length about 1."""
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


def _agree_with_neighbors(
    sources: np.ndarray, targets: np.ndarray
) -> Bool[np.ndarray, 'n']:
  """Returns which points move about as those around them do."""
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
  # Where neighbors disagree among themselves, none of them is trusted.
  is_calm = spread <= limit
  agrees = errors <= np.clip(3 * spread, _LARGEST_DISAGREEMENT, limit)
  return is_near & is_calm & agrees


def _find_box(
    opacity: np.ndarray, motion: np.ndarray, resolution: tuple[int, int]
) -> tuple[int, int, int, int] | None:
  """Returns left, top, right and bottom of what the layer may cover."""
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
  # Room for what the points around differ from the homography by.
  margin = 8 + 0.1 * np.ptp(moved, axis=0)
  low = np.clip(np.floor(moved.min(0) - margin), 0, [width, height])
  high = np.clip(np.ceil(moved.max(0) + margin), 0, [width, height])
  if (high <= low).any():
    return None
  return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _measure_growth(
    motion: Float[np.ndarray, '3 3'], points: Float[np.ndarray, 'n 2']
) -> float:
  """Returns by how much a motion stretches what is around the points."""
  corners = np.asarray([[-0.5, -0.5], [0.5, -0.5], [0, 0.5]])
  moved = _transform(motion, points.mean(0) + corners)
  return float(np.linalg.norm(np.diff(moved, axis=0), 2))


def _measure_spacing(points: np.ndarray) -> float:
  """Returns the usual distance between neighbors."""
  if len(points) < 2:
    return 1.0
  squared = np.sum((points[:, None] - points[None]) ** 2, axis=-1)
  np.fill_diagonal(squared, np.inf)
  return max(1.0, float(np.median(squared.min(axis=1)) ** 0.5))


def _square_distances(
    places: Float[np.ndarray, 'p 2'], points: Float[np.ndarray, 'n 2']
) -> Float[np.ndarray, 'p n']:
  """Returns how far each place is from each point, squared."""
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
  """Returns the mean of the values of points around each place.

  Places are told by their squared distances from the points.
  """
  nearest = squared.min(axis=1, keepdims=True)
  weights = np.exp((nearest - squared) / (2 * spread**2))
  return weights @ values / weights.sum(axis=1, keepdims=True)


def _read_between(
    grid: Float[np.ndarray, 'h w c'], points: Float[np.ndarray, '*n 2']
) -> Float[np.ndarray, '*n c']:
  """Reads a picture at (x, y), bilinearly, with zeros outside."""
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
