"""Tracks that all begin visible on the first frame, as PIPs++ evaluates them.

Positions are (x, y) in pixels of which (0, 0) is the center of the first one;
in raster coordinates they are half a pixel more.
"""

import pathlib
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Shaped
import numpy as np

from tapjax.geometry import Resolution


class PointTracks(NamedTuple):
  """Tracks that begin visible on the first frame, one row for each.

  Positions are finite everywhere; where a track is not valid they mean nothing.
  """

  positions: Float[np.ndarray, 'n t 2']
  visible: Bool[np.ndarray, 'n t']
  valid: Bool[np.ndarray, 'n t']

  def take(self, rows: Shaped[np.ndarray, 'k']) -> 'PointTracks':
    """Returns some of the tracks: by index, or those of a mask."""
    return PointTracks(*(array[rows] for array in self))


class PointSequence(NamedTuple):
  """A scene to evaluate on: where its frames are, and its tracks."""

  name: str
  frame_paths: tuple[pathlib.Path, ...]
  tracks: PointTracks


def find_inside(
    positions: Float[np.ndarray, '*n 2'],
    lowest: tuple[float, float],
    highest: tuple[float, float],
) -> Bool[np.ndarray, '*n']:
  """Returns which (x, y) lie between two corners, these included."""
  return np.all((positions >= lowest) & (positions <= highest), axis=-1)


def limit_positions(
    tracks: PointTracks, resolution: Resolution, margin: float
) -> PointTracks:
  """Moves positions no farther out than a margin around the frame."""
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
  """Returns tracks of TAP-Vid that the first frame shows, as PIPs++ reads them.

  Points (x, y) are fractions of the frame. They are multiplied by the distance
  between the centers of the outermost pixels, which differs from what TAP-Vid
  means by up to half a pixel: published scores were measured so. What is
  visible is valid.
  """
  height, width = resolution
  kept = ~occluded[:, 0]
  visible = ~occluded[kept]
  return PointTracks(
      points_unit[kept] * np.asarray([width - 1, height - 1], np.float32),
      visible,
      visible,
  )
