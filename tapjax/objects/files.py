"""Object files: a .csv table, MOT Challenge text, and an overlay video."""

from collections.abc import Iterable
import itertools
import pathlib

from jaxtyping import UInt8
import numpy as np

from tapjax import visualization
from tapjax.files import Times
from tapjax.files import write_atomically
from tapjax.files import write_csv
from tapjax.media import video as video_files
from tapjax.objects.tracker import ObjectTracks

_COLUMNS = (
    'frame',
    'object',
    'label',
    'left',
    'top',
    'right',
    'bottom',
    'detected',
    'visible_share',
)


def write_table(path: pathlib.Path, objects: ObjectTracks) -> None:
  """Writes a .csv table with one line per visible object and frame."""
  write_csv(
      path,
      itertools.chain(
          [_COLUMNS],
          (
              (
                  frame,
                  int(objects.ids[row]),
                  objects.labels[row],
                  *(f'{side:.2f}' for side in objects.boxes[row, frame]),
                  int(objects.detected[row, frame]),
                  f'{objects.visible_share[row, frame]:.3f}',
              )
              for frame, row in np.argwhere(objects.visible.T).tolist()
          ),
      ),
  )


def write_mot(path: pathlib.Path, objects: ObjectTracks) -> None:
  """Writes `frame,id,left,top,width,height,score,-1,-1,-1` lines.

  Frames and pixels count from 1, as in the MOT Challenge; the score is the
  fraction of visible points.
  """
  lines = []
  for frame, row in np.argwhere(objects.visible.T).tolist():
    left, top, right, bottom = objects.boxes[row, frame].tolist()
    lines.append(
        f'{frame + 1},{objects.ids[row]},{left + 1:.2f},{top + 1:.2f},'
        f'{right - left:.2f},{bottom - top:.2f},'
        f'{objects.visible_share[row, frame]:.3f},-1,-1,-1\n'
    )
  with write_atomically(path) as file:
    file.write(''.join(lines).encode())


def write_overlay(
    path: pathlib.Path,
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    objects: ObjectTracks,
    frame_rate: float,
    times: Times | None = None,
) -> None:
  """Writes the video with boxes, ids and points drawn over it."""
  frames = (frame for block in blocks for frame in block)
  drawn = (
      draw_objects(frame, objects, index) for index, frame in enumerate(frames)
  )
  video_files.write_video(path, drawn, frame_rate, times=times)


def draw_objects(
    frame: UInt8[np.ndarray, 'h w 3'], objects: ObjectTracks, index: int
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws the objects of frame `index`: boxes with ids, and points."""
  shown = objects.visible[:, index]
  return visualization.draw_boxes(
      frame,
      objects.boxes[shown, index],
      objects.ids[shown],
      objects.points[index],
      objects.point_owners[index],
  )
