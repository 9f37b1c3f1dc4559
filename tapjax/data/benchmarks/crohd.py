"""CroHD, the head tracking of MOTChallenge, as point tracks.

`HT21/train/HT21-01` and so on have frames `img1/000001.jpg` and boxes of heads
in `gt/gt.txt`: frame, id, left, top, width, height, conf, class and visibility,
with frames and ids from 1. A head is the center of its box.

Positions are (x, y) in pixels of the frame as annotated.
"""

from collections.abc import Iterator
import pathlib
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from tapjax.data.benchmarks.point_tracks import find_inside
from tapjax.data.benchmarks.point_tracks import PointSequence
from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.geometry import Resolution

RESOLUTION: Resolution = (1080, 1920)
CLIP_LENGTH = 1000
# Shorter clips at the end of a sequence are left out.
SHORTEST_CLIP = 128

_COLUMNS = 9
# Heads nearer to the border, in pixels, are not used.
_MARGIN = 32.0
# Heads with a shorter path, in pixels, count as standing still.
_LEAST_PATH = 150.0


class HeadBoxes(NamedTuple):
  """Centers of the heads of a sequence; (0, 0) without a box."""

  positions: Float[np.ndarray, 'm t 2']
  visible: Float[np.ndarray, 'm t']
  valid: Float[np.ndarray, 'm t']


def list_sequences(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of annotated sequences; FileNotFoundError if none."""
  sequences = sorted(
      file.parents[1] for file in root.glob('HT21/train/*/gt/gt.txt')
  )
  if not sequences:
    raise FileNotFoundError(
        f'there is no HT21/train/*/gt/gt.txt in {root} - name the folder into '
        'which "Get all data" of motchallenge.net was unpacked'
    )
  return sequences


def read_clips(sequence: pathlib.Path) -> Iterator[PointSequence]:
  """Yields the clips of a sequence; their frames stay on disk."""
  path = sequence / 'gt' / 'gt.txt'
  try:
    rows = np.loadtxt(path, delimiter=',', ndmin=2)
  except ValueError as error:
    raise ValueError(f'{path} must be a table of numbers; {error}') from None
  boxes = place_heads(rows, str(path))
  for start, end in list_clips(boxes.positions.shape[1]):
    frames = tuple(
        sequence / 'img1' / f'{frame:06d}.jpg'
        for frame in range(start + 1, end + 1)
    )
    name = f'{sequence.name}_{start:06d}'
    yield PointSequence(name, frames, select_heads(boxes, start, end))


def place_heads(rows: Float[np.ndarray, 'k c'], origin: str) -> HeadBoxes:
  """Arranges the rows of a table by head and frame.

  The last row has the last frame. `origin` names the table in messages. Raises
  ValueError for a malformed table.
  """
  if rows.shape[1] != _COLUMNS or not len(rows):
    raise ValueError(
        f'{origin} must have {_COLUMNS} columns, frame to visibility, and at '
        f'least one row; got {rows.shape}'
    )
  frames, heads = rows[:, 0].astype(int) - 1, rows[:, 1].astype(int) - 1
  num_frames, num_heads = frames[-1] + 1, int(heads.max()) + 1
  if frames.min() < 0 or heads.min() < 0 or frames.max() >= num_frames:
    raise ValueError(
        f'{origin} must number frames and heads from 1 and end with the last '
        'frame - is it cut short?'
    )
  positions = np.zeros((num_heads, num_frames, 2))
  visible = np.zeros((num_heads, num_frames))
  valid = np.zeros((num_heads, num_frames))
  positions[heads, frames] = rows[:, 2:4] + rows[:, 4:6] / 2
  visible[heads, frames] = rows[:, 8]
  valid[heads, frames] = 1
  return HeadBoxes(positions, visible, valid)


def list_clips(
    num_frames: int,
    length: int = CLIP_LENGTH,
    shortest: int = SHORTEST_CLIP,
) -> list[tuple[int, int]]:
  """Returns (start, end) frames of clips that overlap by half; end is excluded.

  Clips shorter than `shortest` are left out.
  """
  clips = [
      (start, min(start + length, num_frames))
      for start in range(0, num_frames, length // 2)
  ]
  return [(start, end) for start, end in clips if end - start >= shortest]


def select_heads(boxes: HeadBoxes, start: int, end: int) -> PointTracks:
  """Returns tracks of moving heads visible on the first two frames of a clip.

  A hidden head has its last visible position, valid if the frame is annotated.
  """
  positions, visible, valid = (array[:, start:end] for array in boxes)
  height, width = RESOLUTION
  inside = find_inside(
      positions, (_MARGIN, _MARGIN), (width - _MARGIN, height - _MARGIN)
  )
  shown = (visible > 0) & inside
  known = (valid > 0) & inside
  # As published, a gap in the annotation counts as a path to (0, 0) and back.
  path = np.linalg.norm(np.diff(positions, axis=1), axis=-1).sum(axis=1)
  good = shown & known
  kept = good[:, 0] & good[:, 1] & (path > _LEAST_PATH)
  positions, shown, known = positions[kept], shown[kept], known[kept]
  frames = np.arange(end - start)[None]
  last = np.maximum.accumulate(np.where(shown, frames, 0), axis=1)
  held = np.take_along_axis(positions, last[..., None], axis=1)
  return PointTracks(held, shown, known)
