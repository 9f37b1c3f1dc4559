"""Tracks visible on the first frame, as in the evaluation of PIPs++.

Positions are (x, y) in pixels, with (0, 0) at the center of the upper-left
pixel; raster coordinates are half a pixel larger.
"""

import pathlib
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Shaped
import numpy as np

from tapjax.geometry import Resolution


class PointTracks(NamedTuple):
  """Tracks that are visible on the first frame.

  All positions are finite, and arbitrary if not valid.
  """

  positions: Float[np.ndarray, 'n t 2']
  visible: Bool[np.ndarray, 'n t']
  valid: Bool[np.ndarray, 'n t']

  def take(self, rows: Shaped[np.ndarray, 'k']) -> 'PointTracks':
    """Returns a subset of the tracks, by index or mask."""
    return PointTracks(*(array[rows] for array in self))


class PointSequence(NamedTuple):
  """A scene for evaluation: paths of its frames, and its tracks."""

  name: str
  frame_paths: tuple[pathlib.Path, ...]
  tracks: PointTracks


def find_inside(
    positions: Float[np.ndarray, '*n 2'],
    lowest: tuple[float, float],
    highest: tuple[float, float],
) -> Bool[np.ndarray, '*n']:
  """Returns a mask of (x, y) between two corners, inclusive."""
  return np.all((positions >= lowest) & (positions <= highest), axis=-1)


def limit_positions(
    tracks: PointTracks, resolution: Resolution, margin: float
) -> PointTracks:
  """Clips positions to the frame and a margin around it, in pixels."""
  height, width = resolution
  return tracks._replace(
      positions=np.clip(
          tracks.positions, -margin, [width + margin, height + margin]
      )
  )


def take_first_frame_tracks(
    points_unit: Float[np.ndarray, 'm t 2'],
    occluded: Bool[np.ndarray, 'm t'],
    resolution: Resolution,
) -> PointTracks:
  """Returns TAP-Vid tracks visible on the first frame, as PIPs++ reads them.

  Points (x, y) are in normalized coordinates. They are multiplied by the
  distance between the centers of the outermost pixels, which differs from the
  convention of TAP-Vid by up to half a pixel: published scores were measured
  so. Visible points are valid.
  """
  height, width = resolution
  kept = ~occluded[:, 0]
  visible = ~occluded[kept]
  return PointTracks(
      points_unit[kept] * np.asarray([width - 1, height - 1], np.float32),
      visible,
      visible,
  )
