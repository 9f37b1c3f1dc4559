"""Labels of points: positions on one frame, or on several frames."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.tracking import checks

# One picture of points, or several pictures of the same points.
Frames = UInt8[np.ndarray, '*k h w 3'] | Sequence[UInt8[np.ndarray, '_ _ 3']]


class View(NamedTuple):
  """Points on one of the frames that show them.

  Attributes:
    frame: RGB.
    points: (t, y, x), with t = 0; zeros for points that are not given.
    given: whether the frame shows the point.
  """

  frame: UInt8[np.ndarray, 'h w 3']
  points: Float[np.ndarray, 'n 3']
  given: Bool[np.ndarray, 'n']


def check_points(frame: object, points_yx: object) -> Float[np.ndarray, 'n 3']:
  """Returns points (y, x) of a frame as queries (t, y, x), or ValueError."""
  size = checks.check_frame(np.asarray(frame)).shape[:2]
  points = checks.check_points_yx(points_yx)
  checks.check_points_inside(points, size)
  return np.pad(points, ((0, 0), (1, 0)))


def check_views(frame: object, points_yx: object) -> list[View]:
  """Returns points on one frame or on several; raises ValueError for others."""
  if not isinstance(frame, (list, tuple, np.ndarray, jax.Array)):
    checks.check_frame(frame)
  is_one = isinstance(frame, (np.ndarray, jax.Array)) and frame.ndim < 4
  if is_one:
    points = check_points(frame, points_yx)
    return [View(np.asarray(frame), points, np.ones(len(points), bool))]
  frames = list(frame)  # type: ignore[call-overload]
  labels = np.asarray(points_yx)
  if labels.ndim != 3 or labels.shape[::2] != (len(frames), 2) or not frames:
    raise ValueError(
        'points_yx must be [k, n, 2] for k frames, at least one, each (y, x); '
        f'got {list(labels.shape)} for {len(frames)} frames'
    )
  given = ~np.isnan(labels).any(axis=-1)
  if not given.any(axis=0).all():
    row = int(np.argmin(given.any(axis=0)))
    raise ValueError(
        f'points_yx must give every point on some frame; point {row} is NaN on '
        'all of them'
    )
  labels = np.where(given[..., None], labels, 0)
  return [
      View(np.asarray(one), check_points(one, label), known)
      for one, label, known in zip(frames, labels, given, strict=True)
  ]


def warn_of_shares(views: list[View], stacklevel: int) -> None:
  """Warns of points that look like shares of a frame, not like pixels."""
  for view in views:
    points = view.points[view.given, 1:]
    size = view.frame.shape[:2]
    checks.warn_of_shares(points, size, 'points_yx', stacklevel + 1)
