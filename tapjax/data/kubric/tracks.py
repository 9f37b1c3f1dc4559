"""Point tracks of Kubric's MOVi videos, from depth, segmentation and poses.

pixels of a grid ──choose──► queries ──lift to 3-D──► points on every frame
──project──► tracks;  ──compare with depth, segments, normals──► occlusion

All objects and frames are processed at once. `draw_choices` makes the random
choices, and `compute_tracks` is deterministic.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.data.kubric.movi import compute_rotations
from tapjax.data.kubric.movi import decode_depth
from tapjax.data.kubric.movi import decode_normals
from tapjax.data.kubric.movi import decode_object_coordinates
from tapjax.data.kubric.movi import make_camera
from tapjax.data.kubric.movi import MoviCamera
from tapjax.data.kubric.movi import MoviRecord
from tapjax.data.kubric.query_choices import CropWindow
from tapjax.data.kubric.query_choices import draw_choices
from tapjax.data.kubric.query_choices import find_segments
from tapjax.data.kubric.query_choices import MoviChoices
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.data.kubric.query_choices import OCCLUDER
from tapjax.data.kubric.query_choices import slice_grid

# A point is occluded if all pixels around it are nearer than this fraction of
# its distance.
_NEARER = 0.99
# Largest squared distance of normals of neighbors on a smooth surface, and the
# number of the four neighbors that may exceed it.
_SMOOTH = 0.0025
_MOST_ROUGH = 2
_SIGNS = np.stack(
    np.meshgrid(*[[-1.0, 1.0]] * 3, indexing='ij'), axis=-1
).reshape(8, 3)
_DIAGONALS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


class MoviTracks(NamedTuple):
  """Points of a video: queries (t, y, x) and positions (x, y) in pixels.

  Pixels are raster pixels of the resized crop. `relative_depths` are distances
  from the camera, divided by the distance on the query frame.
  """

  query_points: Float[np.ndarray, 'n 3']
  target_points: Float[np.ndarray, 'n t 2']
  occluded: Bool[np.ndarray, 'n t']
  relative_depths: Float[np.ndarray, 'n t']


def make_tracks(
    record: MoviRecord,
    crop: CropWindow,
    resolution: tuple[int, int],
    config: MoviTrackConfig,
    generator: np.random.Generator,
) -> MoviTracks:
  """Returns tracks of random points of a crop, resized to `resolution`."""
  segments = find_segments(record, config)
  choices = draw_choices(segments, crop, config, generator)
  return compute_tracks(record, segments, crop, resolution, config, choices)


class _Queries(NamedTuple):
  """Pixels (t, y, x) of chosen points, and their segments."""

  pixels: Int[np.ndarray, 'n 3']
  segments: Int[np.ndarray, 'n']

  @property
  def places(self) -> tuple[np.ndarray, ...]:
    """Index of the pixels in arrays `[t, h, w]`."""
    return tuple(self.pixels.T)


def compute_tracks(
    record: MoviRecord,
    segments: Int[np.ndarray, 't h w'],
    crop: CropWindow,
    resolution: tuple[int, int],
    config: MoviTrackConfig,
    choices: MoviChoices,
) -> MoviTracks:
  """Returns the tracks of chosen points; see `make_tracks`.

  Raises ValueError if there is no point to choose.
  """
  queries = _locate_queries(segments, crop, config.stride, choices)
  if not len(queries.pixels):
    raise ValueError(
        'a video must have points to choose; this one has none in the crop '
        f'{tuple(crop)} - raise largest_share'
    )
  height, width = segments.shape[1:]
  camera = make_camera(record)
  query_depths = decode_depth(record.depth[queries.places], record.depth_range)
  points = _lift_points(record, camera, queries, query_depths)
  places, ahead = camera.project(points)
  pixels = places * (width, height)
  offsets = points - camera.positions[None]
  distances = np.linalg.norm(offsets, axis=-1)
  occluded = (
      (ahead < 0)
      | _find_outside(pixels, crop)
      | _find_covered(record, segments, queries, pixels, distances)
      | _find_averted(record, queries, offsets)
  )
  if config.as_published:
    query_depths = _swap_depths(query_depths, queries)
  if config.snap_to_occluder:
    queries, query_depths = _snap_queries(
        record, queries, query_depths, config, choices
    )
  corner = np.asarray([crop.left, crop.top])
  size = np.asarray([crop.right, crop.bottom]) - corner
  if config.as_published:
    resolution = height, width
  scale = np.asarray(resolution[::-1]) / size
  frames, *query_yx = queries.pixels.T
  query_xy = (np.stack(query_yx[::-1], axis=-1) + 0.5 - corner) * scale
  tracks = MoviTracks(
      np.stack([frames, query_xy[:, 1], query_xy[:, 0]], axis=-1),
      (pixels - corner) * scale,
      occluded,
      distances / query_depths[:, None],
  )
  return _fill(tracks, config)


def mirror_tracks(
    tracks: MoviTracks, height: int, *, as_published: bool = False
) -> MoviTracks:
  """Returns the tracks of the vertically mirrored video.

  With `as_published`, y becomes -y instead of height - y.
  """
  edge = 0 if as_published else height
  query_points = tracks.query_points.copy()
  target_points = tracks.target_points.copy()
  query_points[:, 1] = edge - query_points[:, 1]
  target_points[..., 1] = edge - target_points[..., 1]
  return tracks._replace(query_points=query_points, target_points=target_points)


def _locate_queries(
    segments: Int[np.ndarray, 't h w'],
    crop: CropWindow,
    stride: int,
    choices: MoviChoices,
) -> _Queries:
  """Returns the pixels of chosen points, segment by segment.

  Points of the background are in order of frames.
  """
  on_grid = segments[slice_grid(crop, choices.start, stride)]
  # Sorted by segment; grid points of a segment keep their order.
  order = np.argsort(on_grid.ravel(), kind='stable')
  firsts = np.searchsorted(
      on_grid.ravel()[order], np.arange(len(choices.chosen))
  )
  rows = [
      order[first + chosen]
      for first, chosen in zip(firsts, choices.chosen, strict=True)
      if len(chosen)
  ]
  if not rows:
    return _Queries(np.zeros((0, 3), np.int64), np.zeros(0, np.int64))
  places = np.stack(
      np.unravel_index(np.concatenate(rows), on_grid.shape), axis=-1
  )
  corner = np.asarray([0, crop.top, crop.left]) + choices.start
  pixels = places * stride + corner
  found = segments[tuple(pixels.T)].astype(np.int64)
  background = np.flatnonzero(found == 0)
  by_frame = np.argsort(pixels[background, 0], kind='stable')
  pixels[background] = pixels[background[by_frame]]
  return _Queries(pixels, found)


def _lift_points(
    record: MoviRecord,
    camera: MoviCamera,
    queries: _Queries,
    query_depths: Float[np.ndarray, 'n'],
) -> Float[np.ndarray, 'n t 3']:
  """Returns the world positions of points on all frames."""
  num_frames, height, width = record.depth.shape
  frames = queries.pixels[:, 0]
  places = (queries.pixels[:, :0:-1] + 0.5) / (width, height)
  still = camera.unproject(frames, places, query_depths)
  points = np.repeat(still[:, None], num_frames, axis=1)
  moving = np.flatnonzero(queries.segments > 0)
  if moving.size:
    local = decode_object_coordinates(
        record.object_coordinates[queries.places][moving]
    )
    # Least-squares affine map from the corners of the unit cube to those of the
    # box, which is a weighted sum of corners.
    weights = 1 / 8 + local @ _SIGNS.T / 4
    boxes = record.boxes[queries.segments[moving] - 1].astype(np.float64)
    points[moving] = np.einsum('nk,ntkc->ntc', weights, boxes)
  return points


def _find_outside(
    pixels: Float[np.ndarray, 'n t 2'], crop: CropWindow
) -> Bool[np.ndarray, 'n t']:
  x, y = np.moveaxis(pixels, -1, 0)
  return (y < crop.top) | (x < crop.left) | (y > crop.bottom) | (x > crop.right)


def _find_covered(
    record: MoviRecord,
    segments: Int[np.ndarray, 't h w'],
    queries: _Queries,
    pixels: Float[np.ndarray, 'n t 2'],
    distances: Float[np.ndarray, 'n t'],
) -> Bool[np.ndarray, 'n t']:
  """Returns a mask of points covered by nearer surfaces.

  A point is covered if all four pixels around it are nearer, or if none of them
  belongs to its segment.
  """
  height, width = segments.shape[1:]
  # Clipping avoids integer overflow, and does not change the clamped pixels.
  finite = np.nan_to_num(pixels, nan=-2.0)
  base = np.floor(np.clip(finite, -2, (width + 2, height + 2)) - 0.5)
  columns, rows = np.moveaxis(base.astype(np.int64), -1, 0)
  rows = np.clip(
      rows + np.asarray([0, 0, 1, 1]).reshape(4, 1, 1), 0, height - 1
  )
  columns = np.clip(
      columns + np.asarray([0, 1, 0, 1]).reshape(4, 1, 1), 0, width - 1
  )
  frames = np.arange(segments.shape[0]).reshape(1, 1, -1)
  around = record.depth[frames, rows, columns].max(axis=0)
  nearer = decode_depth(around, record.depth_range) < _NEARER * distances
  own = segments[frames, rows, columns] == queries.segments.reshape(1, -1, 1)
  return nearer | ~own.any(axis=0)


def _find_averted(
    record: MoviRecord,
    queries: _Queries,
    offsets: Float[np.ndarray, 'n t 3'],
) -> Bool[np.ndarray, 'n t']:
  """Returns a mask of object points whose surface faces away from the camera.

  Normals rotate with the object. Normals that face away on their query frame,
  or differ from the normals around them, are unreliable and ignored.
  """
  averted = np.zeros(offsets.shape[:2], bool)
  rows = np.flatnonzero(queries.segments > 0)
  if not rows.size:
    return averted
  pixels = queries.pixels[rows]
  frames = pixels[:, 0]
  own = decode_normals(record.normals[tuple(pixels.T)])
  rotations = compute_rotations(record.quaternions)[queries.segments[rows] - 1]
  each = np.arange(len(rows))
  local = np.einsum('ncd,nc->nd', rotations[each, frames], own)
  turned = np.einsum('ntcd,nd->ntc', rotations, local)
  away = np.einsum('ntc,ntc->nt', turned, offsets[rows]) > 0
  trusted = _find_smooth(record, pixels, own) & ~away[each, frames]
  averted[rows] = away & trusted[:, None]
  return averted


def _find_smooth(
    record: MoviRecord,
    pixels: Int[np.ndarray, 'n 3'],
    own: Float[np.ndarray, 'n 3'],
) -> Bool[np.ndarray, 'n']:
  """Returns a mask of pixels with normals similar to diagonal neighbors.

  Normals outside of the frame are zero.
  """
  size = np.asarray(record.depth.shape[1:])
  around = pixels[:, None, 1:] + np.asarray(_DIAGONALS)[None]
  inside = ((around >= 0) & (around < size)).all(axis=-1)
  y, x = np.moveaxis(np.clip(around, 0, size - 1), -1, 0)
  theirs = decode_normals(record.normals[pixels[:, :1], y, x])
  theirs = np.where(inside[..., None], theirs, 0)
  rough = np.sum((theirs - own[:, None]) ** 2, axis=-1) > _SMOOTH
  return rough.sum(axis=1) <= _MOST_ROUGH


def _swap_depths(
    depths: Float[np.ndarray, 'n'], queries: _Queries
) -> Float[np.ndarray, 'n']:
  """Sorts depths by frame within each object, as published."""
  return depths[np.lexsort((queries.pixels[:, 0], queries.segments))]


def _snap_queries(
    record: MoviRecord,
    queries: _Queries,
    query_depths: Float[np.ndarray, 'n'],
    config: MoviTrackConfig,
    choices: MoviChoices,
) -> tuple[_Queries, Float[np.ndarray, 'n']]:
  """Moves half of the queries whose shifted pixel is farther onto it."""
  assert choices.shifts is not None, 'shifts are drawn for snapping'
  assert choices.coins is not None, 'coins are drawn for snapping'
  count = len(queries.pixels)
  shape = record.depth.shape
  depth = decode_depth(record.depth, record.depth_range)
  moved = queries.pixels.copy()
  moved[:, 1:] += choices.shifts[:count]
  moved = np.clip(moved, 0, np.asarray(shape) - 1)
  own = query_depths
  if config.as_published:
    # PARITY: the depth of another pixel is read (test_movi_tracks).
    frames, rows, _ = queries.places
    own = depth.ravel()[rows + frames * shape[2] + frames * shape[1] * shape[2]]
  behind = depth[tuple(moved.T)]
  snapped = (own < OCCLUDER * behind) & (choices.coins[:count] < 0.5)
  pixels = np.where(snapped[:, None], moved, queries.pixels)
  return queries._replace(pixels=pixels), own


def _fill(tracks: MoviTracks, config: MoviTrackConfig) -> MoviTracks:
  """Pads tracks to `num_points` by repeating a point."""
  count = len(tracks.query_points)
  repeated = max(count - 2, 0) if config.as_published else count - 1
  rows = np.arange(config.num_points)
  rows = np.where(rows < count, rows, repeated)
  return MoviTracks(
      tracks.query_points[rows].astype(np.float32),
      tracks.target_points[rows].astype(np.float32),
      tracks.occluded[rows],
      tracks.relative_depths[rows].astype(np.float32),
  )
