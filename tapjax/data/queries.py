"""Where a benchmark starts its tracks: the query points of known tracks.

A query may only be where its point is visible; positions of hidden points are
arbitrary numbers in many files and are never read.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

STRIDE = 5


class Queries(NamedTuple):
  """Query points, and for each of them its true track.

  Queries are float64 (t, y, x), targets (x, y) of the type they came in, both
  in raster pixels. `track_group` is the index of the track that a query is on.
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
  """Returns the queries of a protocol, 'first' or 'strided' by 5 frames."""
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
  """Queries every track on its first visible frame, in order of the tracks.

  Tracks that are never visible are dropped; ValueError if all are.
  """
  tracks = np.flatnonzero(~occluded.all(axis=1))
  frames = np.argmin(occluded, axis=1)[tracks]
  return _take(target_points, occluded, tracks, frames)


def sample_queries_strided(
    target_points: Float[np.ndarray, 'm t 2'],
    occluded: Bool[np.ndarray, 'm t'],
    stride: int = STRIDE,
) -> Queries:
  """Queries every track that is visible on every `stride`-th frame.

  Frame after frame, in order of the tracks, which repeat. ValueError if there
  is none.
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
  """Queries visible points at random, each frame of each track alike.

  None is drawn twice unless there are fewer than `num_queries`.
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
