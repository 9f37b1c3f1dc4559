"""Classical baseline: pyramidal Lucas-Kanade.

Bouguet, "Pyramidal Implementation of the Affine Lucas Kanade Feature Tracker"
(2001), in the implementation of OpenCV, with the forward-backward check of
Kalal et al., "Forward-Backward Error" (2010): a point is lost after a step with
too large a forward-backward error. Each point is tracked from its query frame
to both ends of the video; lost points stay lost.
"""

from collections.abc import Iterable
from typing import Any

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.types import Tracks

NAME = 'lucas_kanade'
# Largest forward-backward error of one step, in pixels.
MAX_ERROR = 2.0
_WINDOW = 31
_LEVELS = 3


def track_lucas_kanade(
    frames: UInt8[np.ndarray, 't h w 3'],
    query_points: Float[np.ndarray, 'n 3'],
) -> Tracks:
  """Tracks query points (t, y, x) through a video.

  Lost points keep their last position and are not visible.

  Raises:
    ImportError: OpenCV is not installed.
  """
  cv2 = import_opencv()
  grays = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
  num_frames, num_queries = len(frames), len(query_points)
  starts = np.round(query_points[:, 0]).astype(int)
  positions = np.empty((num_queries, num_frames, 2), np.float32)
  positions[:] = query_points[:, None, :0:-1]
  visible = np.zeros((num_queries, num_frames), bool)
  visible[np.arange(num_queries), starts] = True

  def follow(steps: Iterable[tuple[int, int]], begun: Any) -> None:
    for old, new in steps:
      rows = np.flatnonzero(begun(starts, old))
      if not rows.size:
        continue
      moved, found = _step(cv2, grays[old], grays[new], positions[rows, old])
      found &= visible[rows, old]
      visible[rows, new] = found
      positions[rows, new] = np.where(
          found[:, None], moved, positions[rows, old]
      )

  forward = [(t, t + 1) for t in range(num_frames - 1)]
  follow(forward, lambda starts, old: starts <= old)
  backward = [(t + 1, t) for t in reversed(range(num_frames - 1))]
  follow(backward, lambda starts, old: starts >= old)
  return Tracks(positions, visible, None, None)


def import_opencv() -> Any:
  """Imports `cv2`.

  Raises:
    ImportError: OpenCV is not installed.
  """
  try:
    import cv2
  except ImportError:
    raise ImportError(
        f'{NAME} needs OpenCV - install it with '
        "pip install 'tapjax[benchmark]'"
    ) from None
  return cv2


def _step(
    cv2: Any,
    old: UInt8[np.ndarray, 'h w'],
    new: UInt8[np.ndarray, 'h w'],
    points: Float[np.ndarray, 'n 2'],
) -> tuple[Float[np.ndarray, 'n 2'], Bool[np.ndarray, 'n']]:
  """Tracks points through one step; returns positions and their validity."""

  def flow(first: Any, second: Any, points: Any) -> tuple[Any, Any]:
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        first,
        second,
        points[:, None],
        None,
        winSize=(_WINDOW, _WINDOW),
        maxLevel=_LEVELS,
    )
    return moved[:, 0], status[:, 0] > 0

  # In OpenCV, the center of the first pixel is (0, 0).
  begin = np.ascontiguousarray(points - 0.5, np.float32)
  moved, found = flow(old, new, begin)
  backward, found_backward = flow(new, old, moved)
  error = np.linalg.norm(backward - begin, axis=-1)
  moved = moved + 0.5
  inside = ((moved >= 0) & (moved < np.asarray([old.shape[::-1]]))).all(axis=-1)
  return moved, found & found_backward & (error <= MAX_ERROR) & inside
