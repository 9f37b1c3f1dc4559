"""Query points of ground-truth tracks, by the protocols of benchmarks.

Queries are visible points only; positions of occluded points are arbitrary in
many files and never used.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

STRIDE = 5


class Queries(NamedTuple):
  """Query points and their ground-truth tracks.

  Queries are float64 (t, y, x), targets (x, y) of their original type, both in
  raster pixels. `track_group` is the index of the track of each query.
  """

  query_points: Float[np.ndarray, 'n 3']
  target_points: Float[np.ndarray, 'n t 2']
  occluded: Bool[np.ndarray, 'n t']
  track_group: Int[np.ndarray, 'n']


def sample_queries(
    target_points: Float[np.ndarray, 'm t 2'],
    occluded: Bool[np.ndarray, 'm t'],
    query_mode: str,
) -> Queries:
  """Returns the queries of a protocol, 'first' or 'strided' by 5 frames.

  Raises ValueError for another protocol, or if there is no query.
  """
  if query_mode == 'first':
    return sample_queries_first(target_points, occluded)
  if query_mode == 'strided':
    return sample_queries_strided(target_points, occluded)
  raise ValueError(
      f"query_mode must be 'first' or 'strided'; got {query_mode!r}"
  )


def sample_queries_first(
    target_points: Float[np.ndarray, 'm t 2'],
    occluded: Bool[np.ndarray, 'm t'],
) -> Queries:
  """Queries each track on its first visible frame, in order of tracks.

  Tracks that are never visible are dropped. Raises ValueError if all are.
  """
  tracks = np.flatnonzero(~occluded.all(axis=1))
  frames = np.argmin(occluded, axis=1)[tracks]
  return _take(target_points, occluded, tracks, frames)


def sample_queries_strided(
    target_points: Float[np.ndarray, 'm t 2'],
    occluded: Bool[np.ndarray, 'm t'],
    stride: int = STRIDE,
) -> Queries:
  """Queries all tracks visible on each `stride`-th frame.

  Queries are in order of frames and, within a frame, of tracks. Raises
  ValueError if there is none.
  """
  if stride < 1:
    raise ValueError(f'stride must be at least 1; got {stride}')
  order, tracks = np.nonzero(~occluded[:, ::stride].T)
  return _take(target_points, occluded, tracks, order * stride)


def sample_queries_random(
    target_points: Float[np.ndarray, 'm t 2'],
    occluded: Bool[np.ndarray, 'm t'],
    num_queries: int,
    generator: np.random.Generator,
) -> Queries:
  """Queries visible points, uniformly over all frames of all tracks.

  Points are drawn without replacement, or with it if there are fewer than
  `num_queries`. Raises ValueError if there is none.
  """
  tracks, frames = np.nonzero(~occluded)
  if not len(tracks):
    return _take(target_points, occluded, tracks, frames)
  chosen = generator.choice(
      len(tracks), num_queries, replace=len(tracks) < num_queries
  )
  return _take(target_points, occluded, tracks[chosen], frames[chosen])


def _take(
    target_points: np.ndarray,
    occluded: np.ndarray,
    tracks: Int[np.ndarray, 'n'],
    frames: Int[np.ndarray, 'n'],
) -> Queries:
  if not len(tracks):
    raise ValueError(
        f'none of the {len(occluded)} tracks is visible on a frame that is '
        'queried - is `occluded` inverted?'
    )
  positions = target_points[tracks, frames].astype(np.float64)
  query_points = np.stack([frames, positions[:, 1], positions[:, 0]], axis=-1)
  return Queries(query_points, target_points[tracks], occluded[tracks], tracks)
