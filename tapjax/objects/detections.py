"""Detections of a frame, and detectors that replay given boxes.

A detector is any function from a frame, uint8 RGB [h, w, 3], to `Detections`.
Boxes are (left, top, right, bottom) in raster pixels: (0, 0) is the outer
corner of the upper-left pixel, and right and bottom are not part of the box.
"""

from collections.abc import Callable
from collections.abc import Sequence
import csv
import os
import pathlib
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

Frame = UInt8[np.ndarray, 'h w 3']


class Detections(NamedTuple):
  """Detected objects of one frame; every field except `boxes` may be None.

  Attributes:
    boxes: (left, top, right, bottom) of each object.
    labels: class names; the label of an object never changes.
    scores: confidence of the detector; higher is better.
    masks: pixels of each object.
    ids: identities, for detectors that re-identify objects; without them,
      detections are matched with objects by points and boxes.
  """

  boxes: Float[np.ndarray, 'n 4']
  labels: Sequence[str] | None = None
  scores: Float[np.ndarray, 'n'] | None = None
  masks: Bool[np.ndarray, 'n h w'] | None = None
  ids: Int[np.ndarray, 'n'] | None = None


Detector = Callable[[Frame], Detections]


def make_no_detections() -> Detections:
  """Returns detections of a frame without objects."""
  return Detections(np.zeros((0, 4), np.float32))


def check_detections(
    detections: Detections, resolution: tuple[int, int]
) -> Detections:
  """Validates detections and clips their boxes to the frame.

  Boxes outside of the frame are removed, together with their other fields.

  Raises:
    ValueError: a field has the wrong shape, or a box is not finite or empty.
  """
  boxes = np.asarray(detections.boxes, np.float64)
  if boxes.size == 0:
    return make_no_detections()
  if boxes.ndim != 2 or boxes.shape[1] != 4:
    raise ValueError(
        'boxes must be [n, 4], each (left, top, right, bottom); got '
        f'{list(boxes.shape)}'
    )
  count = len(boxes)
  for name in ('labels', 'scores', 'masks', 'ids'):
    values = getattr(detections, name)
    if values is not None and len(values) != count:
      raise ValueError(
          f'{name} must be as many as the boxes, {count}; got {len(values)}'
      )
  masks = detections.masks
  if masks is not None and masks.shape[1:] != resolution:
    raise ValueError(
        f'masks must have the size of the frame, {resolution}; got '
        f'{masks.shape[1:]}'
    )
  wrong = ~(np.isfinite(boxes).all(-1) & (boxes[:, 2:] > boxes[:, :2]).all(-1))
  if wrong.any():
    row = int(np.argmax(wrong))
    raise ValueError(
        'boxes must be (left, top, right, bottom) with left < right and top < '
        f'bottom; got {boxes[row].tolist()} in row {row} - are they (left, '
        'top, width, height)?'
    )
  height, width = resolution
  boxes = np.clip(boxes, 0, [width, height, width, height])
  kept = (boxes[:, 2:] > boxes[:, :2]).all(-1)
  labels, scores, ids = detections.labels, detections.scores, detections.ids
  return Detections(
      boxes[kept].astype(np.float32),
      None
      if labels is None
      else [labels[i] for i in np.flatnonzero(kept).tolist()],
      None if scores is None else np.asarray(scores)[kept],
      None if masks is None else masks[kept],
      None if ids is None else np.asarray(ids)[kept],
  )


class ListedDetections:
  """Detector that replays given detections.

  It must be called in order on frames 0, `every`, 2 * `every` and so on.
  """

  def __init__(self, by_frame: dict[int, Detections], every: int = 1):
    self._by_frame = by_frame
    self._every = every
    self._next = 0

  def __call__(self, frame: Frame) -> Detections:
    """Returns the detections of the next frame."""
    del frame
    index, self._next = self._next, self._next + self._every
    return self._by_frame.get(index, make_no_detections())


def read_mot(path: str | os.PathLike[str]) -> dict[int, Detections]:
  """Reads boxes in the text format of the MOT Challenge, by frame.

  A line is `frame,id,left,top,width,height,score,...`; frames and pixels count
  from 1, and a negative id means no identity.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: a line is malformed; the message names it.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
        f'there is no file {path} with detections; is the path right?'
    )
  rows: dict[int, list[list[float]]] = {}
  try:
    with path.open(newline='', encoding='utf-8-sig') as file:
      reader = csv.reader(file)
      for cells in reader:
        if cells:
          frame, row = _parse_line(path, reader.line_num, cells)
          rows.setdefault(frame, []).append(row)
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f'{path} must be a text file; {error}') from None
  return {
      frame: _gather(np.asarray(lines, np.float64))
      for frame, lines in rows.items()
  }


def _parse_line(
    path: pathlib.Path, number: int, cells: list[str]
) -> tuple[int, list[float]]:
  try:
    values = [float(cell) for cell in cells[:7]]
  except ValueError:
    values = []
  if (
      len(values) < 6
      or not np.isfinite(values).all()
      or values[0] < 1
      or min(values[4:6]) <= 0
  ):
    raise ValueError(
        f'{path} must have frame,id,left,top,width,height a line, as the MOT '
        f'Challenge; line {number} is {",".join(cells)!r}'
    )
  return int(values[0]) - 1, [*values[1:], 1.0][:6]


def _gather(rows: Float[np.ndarray, 'n 6']) -> Detections:
  corners = rows[:, 1:3] - 1
  ids = rows[:, 0].astype(np.int64)
  return Detections(
      np.concatenate([corners, corners + rows[:, 3:5]], 1).astype(np.float32),
      scores=rows[:, 5].astype(np.float32),
      ids=None if (ids < 0).any() else ids,
  )
