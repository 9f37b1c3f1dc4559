"""Drawing of boxes with ids over a frame."""

from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Num
from jaxtyping import UInt8
import numpy as np

from tapjax.visualization import strokes
from tapjax.visualization.overlay import make_track_colors

# Bitmaps of the digits 0 to 9: five rows of three bits, leftmost bit first.
_DIGITS = (
    (7, 5, 5, 5, 7),
    (2, 6, 2, 2, 7),
    (7, 1, 7, 4, 7),
    (7, 1, 3, 1, 7),
    (5, 5, 7, 1, 1),
    (7, 4, 7, 1, 7),
    (7, 4, 7, 5, 7),
    (7, 1, 2, 2, 2),
    (7, 5, 7, 5, 7),
    (7, 5, 7, 1, 7),
)


def draw_boxes(
    frame: UInt8[np.ndarray, 'h w 3'],
    boxes: Num[np.ndarray, 'n 4'],
    ids: Int[np.ndarray, 'n'],
    points: Num[np.ndarray, 'm 2'] | None = None,
    owners: Int[np.ndarray, 'm'] | None = None,
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws boxes (left, top, right, bottom) and points over a copy of a frame.

  Each id has one color for its box and for the points (x, y) it owns, and is
  written at the upper left of its box. Sizes scale with the frame.
  """
  drawn = frame.copy(order='C')
  colors = make_track_colors(int(max(np.max(ids, initial=0), 0)) + 1)
  resolution = frame.shape[:2]
  scale = np.sqrt(frame.shape[0] * frame.shape[1])
  outline = 0.6 + 0.0009 * scale
  if points is not None and owners is not None:
    kept = np.isin(owners, ids) & np.isfinite(points).all(axis=-1)
    covered = strokes.cover_points(
        np.asarray(points[kept], np.float64),
        np.zeros(int(kept.sum()), bool),
        owners[kept],
        radius=0.8 + 0.0025 * scale,
        outline=outline / 2,
        resolution=resolution,
    )
    strokes.blend_into(drawn, [covered], colors)
  if len(boxes):
    lines = _cover_boxes(boxes, ids, scale, outline, resolution)
    strokes.blend_into(drawn, [lines], colors)
  for box, number in zip(boxes, ids.tolist(), strict=True):
    _write_number(drawn, box, number, colors[number], scale)
  return drawn


def _cover_boxes(
    boxes: Num[np.ndarray, 'n 4'],
    ids: Int[np.ndarray, 'n'],
    scale: float,
    outline: float,
    resolution: tuple[int, int],
) -> strokes.Strokes:
  left, top, right, bottom = np.asarray(boxes, np.float64).T
  corners = np.stack(
      [
          np.stack([left, top], -1),
          np.stack([right, top], -1),
          np.stack([right, bottom], -1),
          np.stack([left, bottom], -1),
      ]
  )
  start = corners.reshape(-1, 2)
  stop = np.roll(corners, -1, axis=0).reshape(-1, 2)
  ends: Float[np.ndarray, '_ 2'] = np.ones((len(start), 2))
  return strokes.cover_segments(
      start,
      stop,
      np.tile(ids, 4),
      radius=ends * (0.6 + 0.0018 * scale),
      opacity=ends,
      outline=outline,
      resolution=resolution,
  )


def _write_number(
    frame: UInt8[np.ndarray, 'h w 3'],
    box: Num[np.ndarray, '4'],
    number: int,
    color: UInt8[np.ndarray, '3'],
    scale: float,
) -> None:
  """Writes the digits of an id on a colored plate inside of the frame."""
  cell = max(1, round(0.005 * scale))
  columns = []
  for digit in str(number):
    rows = _DIGITS[int(digit)]
    glyph = np.asarray(
        [[(row >> (2 - i)) & 1 for i in range(3)] for row in rows]
    )
    columns += [np.zeros((5, 1), int), glyph]
  text = np.pad(np.concatenate(columns, axis=1), ((1, 1), (0, 1)))
  text = np.repeat(np.repeat(text, cell, axis=0), cell, axis=1)
  height, width = frame.shape[:2]
  top = int(np.clip(np.round(box[1]), 0, max(height - text.shape[0], 0)))
  left = int(np.clip(np.round(box[0]), 0, max(width - text.shape[1], 0)))
  plate = frame[top : top + text.shape[0], left : left + text.shape[1]]
  text = text[: plate.shape[0], : plate.shape[1], None]
  plate[:] = np.where(text > 0, 0, color)
