"""Random choice of queries for tracks of a MOVi video.

pixels of a grid ──by segment──► numbers of points ──draw──► queries
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.data.kubric.movi import decode_depth
from tapjax.data.kubric.movi import MoviRecord
from tapjax.settings import check_at_least

# An occluder is nearer than this fraction of a pixel's depth.
OCCLUDER = 0.95
NEIGHBORS = tuple(
    (y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)
)


@dataclasses.dataclass(frozen=True)
class MoviTrackConfig:
  """Settings of the points of a video.

  Attributes:
    num_points: number of points per video.
    stride: of the grid of candidate queries, in pixels and frames.
    most_segments: largest number of segments, including the background.
    largest_share: largest fraction of a segment's grid points to choose.
    snap_to_occluder: whether queries at the edge of an occluder may lie on the
      surface behind it; pixels next to an occluder are then no candidates.
    as_published: whether to reproduce errors of the published program: missing
      points repeat the last but one instead of the last, `relative_depths` use
      depths of other queries, mirrored frames have negative y, snapping uses
      the depth of a wrong pixel, and positions stay in pixels of the record if
      the video is resized to another size.
  """

  num_points: int = 256
  stride: int = 4
  most_segments: int = 25
  largest_share: float = 0.1
  snap_to_occluder: bool = False
  as_published: bool = False

  def __post_init__(self):
    check_at_least(1, self, ('num_points', 'stride', 'most_segments'))
    if not 0 < self.largest_share <= 1:
      raise ValueError(
          'largest_share must be more than 0 and at most 1; got '
          f'{self.largest_share}'
      )


class CropWindow(NamedTuple):
  """A crop of a frame, in pixels; bottom and right are exclusive."""

  top: int
  left: int
  bottom: int
  right: int


class MoviChoices(NamedTuple):
  """Random choices for the points of a video.

  Attributes:
    start: offset (t, y, x) of the grid, relative to the crop's corner.
    chosen: for every segment, indices into its grid points in the order
      (t, y, x).
    shifts: (y, x) by which snapped queries move, in pixels.
    coins: numbers in [0, 1); only queries with less than 0.5 may be snapped.
  """

  start: tuple[int, int, int]
  chosen: Sequence[Int[np.ndarray, 'k']]
  shifts: Int[np.ndarray, 'n 2'] | None = None
  coins: Float[np.ndarray, 'n'] | None = None


def find_segments(
    record: MoviRecord, config: MoviTrackConfig
) -> Int[np.ndarray, 't h w']:
  """Returns the segment of each pixel; -1 for pixels without queries.

  With `snap_to_occluder`, pixels next to an occluder are excluded.
  """
  segments = record.segmentations.astype(np.int16)
  if config.snap_to_occluder:
    depth = decode_depth(record.depth, record.depth_range)
    height, width = depth.shape[1:]
    padded = np.pad(depth, ((0, 0), (1, 1), (1, 1)), mode='symmetric')
    nearest = np.min(
        [
            padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]
            for y, x in NEIGHBORS
        ],
        axis=0,
    )
    segments[nearest < OCCLUDER * depth] = -1
  return segments


def count_grid_points(
    segments: Int[np.ndarray, 't h w'],
    crop: CropWindow,
    start: tuple[int, int, int],
    config: MoviTrackConfig,
) -> Int[np.ndarray, 's']:
  """Returns the number of grid points of each segment.

  Raises ValueError for more than `most_segments` segments.
  """
  on_grid = segments[slice_grid(crop, start, config.stride)].ravel()
  # The first bin has the excluded pixels.
  counts = np.bincount(on_grid + 1)[1:]
  if len(counts) > config.most_segments:
    raise ValueError(
        f'a video must have at most {config.most_segments} segments; got one '
        f'with {len(counts)} - raise most_segments'
    )
  return np.pad(counts, (0, config.most_segments - len(counts)))


def divide_points(
    counts: Int[np.ndarray, 's'], config: MoviTrackConfig
) -> Int[np.ndarray, 's']:
  """Returns the number of points to choose of each segment.

  Points are divided evenly, in order of segment size, but a segment gets at
  most `largest_share` of its grid points.
  """
  numbers = np.zeros(len(counts), np.int64)
  missing, remaining = config.num_points, len(counts)
  for segment in np.argsort(counts, kind='stable'):
    even = np.round(np.float32(missing) / np.float32(remaining))
    most = np.round(
        np.float32(config.largest_share) * np.float32(counts[segment])
    )
    numbers[segment] = min(even, most)
    missing -= numbers[segment]
    remaining -= 1
  return numbers


def draw_choices(
    segments: Int[np.ndarray, 't h w'],
    crop: CropWindow,
    config: MoviTrackConfig,
    generator: np.random.Generator,
) -> MoviChoices:
  """Draws the grid, and points of each segment, with replacement."""
  a, b, c = generator.integers(config.stride, size=3).tolist()
  counts = count_grid_points(segments, crop, (a, b, c), config)
  numbers = divide_points(counts, config)
  chosen = [
      generator.integers(max(count, 1), size=number)
      for count, number in zip(counts, numbers, strict=True)
  ]
  shifts = coins = None
  if config.snap_to_occluder:
    shifts = generator.integers(-1, 2, size=(config.num_points, 2))
    coins = generator.random(config.num_points)
  return MoviChoices((a, b, c), chosen, shifts, coins)


def slice_grid(
    crop: CropWindow, start: tuple[int, int, int], stride: int
) -> tuple[slice, slice, slice]:
  """Returns the slices (t, y, x) of the grid of candidates in a crop."""
  frame, row, column = start
  return (
      slice(frame, None, stride),
      slice(crop.top + row, crop.bottom, stride),
      slice(crop.left + column, crop.right, stride),
  )
