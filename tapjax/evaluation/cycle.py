"""Forward-backward cycles: how far from home a point is when it comes back.

A point is tracked from the first frame to the last, and from where it is there
back to the first. No truth is needed, so any video will do; a point that stays
behind on another object and comes back from there goes unnoticed.
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


class CycleErrors(NamedTuple):
  """What came back: how many of how many, and how far from home, in pixels.

  Only points count that are visible on the last frame. Without any, errors are
  NaN.
  """

  num_points: int
  num_returned: int
  median: float
  share_within: float


def measure_cycle_errors(
    track: Track,
    frames: UInt8[np.ndarray, 't h w 3'],
    points_yx: Float[np.ndarray, 'n 2'],
) -> CycleErrors:
  """Tracks points of the first frame to the last one and back.

  Args:
    track: tracks queries (t, y, x) through frames.
    frames: RGB, at least two.
    points_yx: in raster pixels of the first frame.

  Returns:
    Errors in pixels of `frames`; `share_within` counts those below 4 pixels.
  """
  if len(frames) < 2:
    raise ValueError(f'frames must be at least two; got {len(frames)}')
  height, width = frames.shape[1:3]
  there = track(frames, _make_queries(points_yx))
  ends = np.asarray(there.positions)[:, -1, ::-1]
  inside = ((ends >= 0) & (ends <= (height, width))).all(axis=-1)
  arrived = np.flatnonzero(np.asarray(there.visible)[:, -1] & inside)
  if not arrived.size:
    return CycleErrors(len(points_yx), 0, float('nan'), float('nan'))
  back = track(frames[::-1], _make_queries(ends[arrived]))
  offsets = np.asarray(back.positions)[:, -1, ::-1] - points_yx[arrived]
  errors = np.linalg.norm(offsets, axis=-1)
  return CycleErrors(
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
