"""Forward-backward errors, for evaluation without ground truth.

Points are tracked from the first frame to the last, and from their positions
there back to the first frame. Any video can be used; a point that drifts to
another object and back has no error.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.types import Tracks

Track = Callable[
    [UInt8[np.ndarray, 't h w 3'], Float[np.ndarray, 'n 3']], Tracks
]
THRESHOLD = 4.0


class ForwardBackwardErrors(NamedTuple):
  """Forward-backward errors in pixels, over points visible on the last frame.

  Attributes:
    num_points: number of query points.
    num_returned: number of points that are visible on the last frame.
    median: median error; NaN without such points.
    share_within: fraction of errors below `THRESHOLD`; NaN without such points.
  """

  num_points: int
  num_returned: int
  median: float
  share_within: float


def measure_forward_backward(
    track: Track,
    frames: UInt8[np.ndarray, 't h w 3'],
    points_yx: Float[np.ndarray, 'n 2'],
) -> ForwardBackwardErrors:
  """Tracks points of the first frame forward to the last and backward.

  Args:
    track: function from frames and queries (t, y, x) to tracks.
    frames: RGB video of at least two frames.
    points_yx: positions (y, x) in raster pixels of the first frame.

  Returns:
    Errors in pixels of `frames`.

  Raises:
    ValueError: there are fewer than two frames.
  """
  if len(frames) < 2:
    raise ValueError(f'frames must be at least two; got {len(frames)}')
  height, width = frames.shape[1:3]
  forward = track(frames, _make_queries(points_yx))
  ends = np.asarray(forward.positions)[:, -1, ::-1]
  inside = ((ends >= 0) & (ends <= (height, width))).all(axis=-1)
  arrived = np.flatnonzero(np.asarray(forward.visible)[:, -1] & inside)
  if not arrived.size:
    return ForwardBackwardErrors(len(points_yx), 0, float('nan'), float('nan'))
  backward = track(frames[::-1], _make_queries(ends[arrived]))
  offsets = np.asarray(backward.positions)[:, -1, ::-1] - points_yx[arrived]
  errors = np.linalg.norm(offsets, axis=-1)
  return ForwardBackwardErrors(
      len(points_yx),
      len(arrived),
      float(np.median(errors)),
      float(np.mean(errors < THRESHOLD)),
  )


def _make_queries(
    points_yx: Float[np.ndarray, 'n 2'],
) -> Float[np.ndarray, 'n 3']:
  times = np.zeros((len(points_yx), 1))
  return np.concatenate([times, points_yx], axis=1).astype(np.float32)
