"""Points with tails, drawn over the frames of a stream."""

import collections

from jaxtyping import UInt8
import numpy as np

from tapjax import visualization
from tapjax.live import recording

# Number of earlier frames in the tail of a point.
_TAIL = 12
Image = UInt8[np.ndarray, 'h w 3']


class Painter:
  """Draws points with tails, from the rows of the last frames."""

  def __init__(self):
    self._past: collections.deque[recording.Rows] = collections.deque(
        maxlen=_TAIL + 1
    )
    self._colors = visualization.make_track_colors(256)

  def draw(self, frame: Image, rows: recording.Rows) -> Image:
    """Returns a copy of the frame with all points that are not lost."""
    self._past.append(rows)
    points = rows['point']
    if not len(points):
      return frame.copy()
    shape = len(points), len(self._past)
    positions = np.full((*shape, 2), np.nan, np.float32)
    visible = np.zeros(shape, bool)
    for step, past in enumerate(self._past):
      _, ours, theirs = np.intersect1d(
          points, past['point'], return_indices=True
      )
      kept = ~past['lost'][theirs]
      ours, theirs = ours[kept], theirs[kept]
      positions[ours, step] = np.stack(
          [past['x'][theirs], past['y'][theirs]], axis=-1
      )
      visible[ours, step] = past['visible'][theirs]
    if points.max() >= len(self._colors):
      self._colors = visualization.make_track_colors(2 * int(points.max()) + 1)
    return visualization.draw_frame(
        frame, positions, visible, _TAIL, self._colors[points]
    )
