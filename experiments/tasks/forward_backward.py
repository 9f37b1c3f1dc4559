"""Forward-backward errors of trackers on unlabeled videos."""

from collections.abc import Callable
from collections.abc import Iterator
import pathlib

from absl import flags
import numpy as np

from tapjax import pretrained
from tapjax import tables
from tapjax.evaluation.forward_backward import measure_forward_backward
from tapjax.geometry import sample_grid_points
from tapjax.media import video as video_files

VIDEOS = flags.DEFINE_list(
    'videos',
    None,
    'Video files, or folders of them, to go through or to learn from.',
)
_LENGTH = flags.DEFINE_integer('length', 48, 'Frames of each video to track.')
_GRID = 16
_ENDINGS = ('.mp4', '.mov', '.mkv', '.webm', '.avi')
_COLUMNS = ('preset', 'video', 'size', 'points', 'back', 'median px', '< 4 px')


def run(models: list[str], load: Callable[[str], pretrained.Tracker]) -> None:
  """Prints a row for each preset and video, in pixels of the video."""
  if not VIDEOS.value:
    raise ValueError('--task=cycle needs --videos=FILE or FOLDER, or several')
  paths = [path for name in VIDEOS.value for path in list_videos(name)]
  rows = _measure(models, load, paths)
  tables.write_table(_COLUMNS, rows, num_rows=len(models) * len(paths))


def _measure(
    models: list[str],
    load: Callable[[str], pretrained.Tracker],
    paths: list[pathlib.Path],
) -> Iterator[tuple[str | int, ...]]:
  for model in models:
    tracker = load(model)
    for path in paths:
      frames = video_files.read_video(path)[: _LENGTH.value]
      height, width = frames.shape[1:3]
      points = np.asarray(sample_grid_points((height, width), _GRID))[:, 1:]
      errors = measure_forward_backward(tracker.track, frames, points)
      yield (
          model,
          path.name,
          f'{height}x{width}',
          errors.num_points,
          errors.num_returned,
          f'{errors.median:.2f}',
          f'{errors.share_within:.0%}',
      )


def list_videos(name: str) -> list[pathlib.Path]:
  """Lists a file, or the videos of a folder sorted by name."""
  path = pathlib.Path(name)
  if path.is_file():
    return [path]
  if not path.is_dir():
    raise FileNotFoundError(f'--videos must name files or folders; got {name}')
  found = sorted(p for p in path.iterdir() if p.suffix.lower() in _ENDINGS)
  if not found:
    raise ValueError(f'--videos: there is no video in {name}')
  return found
