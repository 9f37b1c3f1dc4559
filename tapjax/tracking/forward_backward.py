"""Forward-backward agreement: whether a track leads back to its query.

From where a point is believed to be on some frame, it is tracked anew, and on
the frame of its query compared with the query. The distance d, in pixels of the
video scaled to 256x256, becomes a confidence that is 1 at home and halves with
every `radius` pixels:

  agreement = 2 ** (-d / radius)

It needs no head of the tracker. A point that slipped onto something that looks
the same both ways goes unnoticed.
"""

from collections.abc import Callable

from jaxtyping import Float
import numpy as np

from tapjax.geometry import Resolution
from tapjax.types import Tracks

RADIUS = 4.0
NUM_CHECKS = 8
_SIDE = 256

Track = Callable[[Float[np.ndarray, 'm 3']], Tracks]


def measure_agreement(
    track: Track,
    query_points: Float[np.ndarray, 'n 3'],
    tracks: Tracks,
    resolution: Resolution,
    *,
    num_checks: int = NUM_CHECKS,
    radius: float = RADIUS,
    together: bool = True,
) -> Float[np.ndarray, 'n t']:
  """Returns how well tracks lead back to their queries, in [0, 1].

  Args:
    track: tracks other queries (t, y, x) through the same video.
    query_points: queries (t, y, x) of the tracks.
    tracks: tracks to compare with them.
    resolution: (height, width) of the video.
    num_checks: frames, evenly spaced, from which points are tracked back; what
      lies between them and the query's frame is interpolated.
    radius: pixels at 256x256 that halve the confidence.
    together: whether to track from all these frames in one call, for trackers
      whose queries do not depend on each other; else in one call each.

  Returns:
    1 on the query's frame, and 0 wherever a point is not visible or outside of
    the frame.
  """
  if num_checks < 1 or not radius > 0:
    raise ValueError(
        'num_checks must be at least 1 and radius above 0; got '
        f'{num_checks} and {radius}'
    )
  num_queries, num_frames = tracks.visible.shape
  if not num_queries:
    return np.zeros((0, num_frames), np.float32)
  limits = np.asarray([resolution[1], resolution[0]], np.float32)
  inside = (tracks.positions >= 0) & (tracks.positions <= limits)
  usable = np.asarray(tracks.visible) & inside.all(axis=-1)
  checks = np.unique(
      np.linspace(0, num_frames - 1, num_checks).astype(int)
  ).tolist()
  starts = [
      _make_queries(check, query_points, tracks, usable) for check in checks
  ]
  if together:
    back = track(np.concatenate(starts)).positions
    ends = back.reshape(len(checks), num_queries, num_frames, 2)
  else:
    ends = np.stack([track(points).positions for points in starts])
  homes = np.round(query_points[:, 0]).astype(int)
  arrived = ends[:, np.arange(num_queries), homes]
  away = (arrived - query_points[:, :0:-1]) * _SIDE / limits
  agreement = 2.0 ** (-np.linalg.norm(away, axis=-1) / radius)
  frames = np.arange(num_frames)
  rows = []
  for query, home in enumerate(homes):
    known = usable[query, checks] & (np.asarray(checks) != home)
    knots = np.append(np.asarray(checks)[known], home)
    values = np.append(agreement[known, query], 1.0)
    order = np.argsort(knots)
    rows.append(np.interp(frames, knots[order], values[order]))
  return np.where(usable, np.stack(rows), 0).astype(np.float32)


def _make_queries(
    check: int,
    query_points: Float[np.ndarray, 'n 3'],
    tracks: Tracks,
    usable: np.ndarray,
) -> Float[np.ndarray, 'n 3']:
  """Returns where points are on a frame; those that are not, as first asked."""
  places = np.asarray(tracks.positions)[:, check, ::-1]
  times = np.full((len(places), 1), check, np.float32)
  points = np.concatenate([times, places], axis=1)
  return np.where(usable[:, check, None], points, query_points)
