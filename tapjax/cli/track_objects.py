"""`tapjax track-objects`: tracks objects through a video."""

import pathlib
from typing import Any

from absl import flags
from jaxtyping import Float
import numpy as np

from tapjax import objects
from tapjax.cli import common_flags
from tapjax.cli import sources
from tapjax.cli.progress import ProgressBars
from tapjax.cli.progress import show
from tapjax.geometry import Resolution
from tapjax.media import track_files
from tapjax.media import video as video_files
from tapjax.settings import replace_settings
from tapjax.tracker import Tracker
from tapjax.tracking import memory

_RESULTS = ('objects.csv', 'objects.txt', 'objects.mp4')
# Objects at once for which `--max_memory` must be enough.
_OBJECTS = 16
# For a motion detector, which finds parts of objects and false objects.
_MOTION_SETTINGS = {
    'detect_every': 4,
    'min_detections': 2,
    'correction': 0.7,
    'shrinking': 0.1,
    'joins_parts': True,
    'part_share': 0.4,
    'fill': 8,
    'tolerance': 0.3,
}
# For given boxes, which apply to exactly their own frame.
_GIVEN_SETTINGS = {'detect_every': 1}


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  common_flags.define_video(values, f'{sources.VIDEO_HELP}.')
  common_flags.define_model(values)
  common_flags.define_checkpoint(values)
  common_flags.define_resolution(values)
  common_flags.define_output(
      values, 'Folder for the results; objects_VIDEO without it.'
  )
  common_flags.define_max_memory(values)
  flags.DEFINE_string(
      'detections',
      None,
      'Boxes as MOT Challenge text; without it, moving objects are detected.',
      flag_values=values,
  )
  flags.DEFINE_multi_string(
      'box',
      None,
      'LEFT,TOP,RIGHT,BOTTOM of an object, in pixels of the video; may be '
      'repeated.',
      flag_values=values,
  )
  common_flags.define_frame(values, 'Index of the frame of --box.')
  flags.DEFINE_multi_string(
      'set',
      [],
      'NAME=VALUE of a setting of tapjax.objects.ObjectSettings; may be '
      'repeated.',
      flag_values=values,
  )
  common_flags.allow_one(
      values,
      ['detections', 'box'],
      'say where objects are by one of --detections and --box',
  )


def run(values: flags.FlagValues) -> None:
  """Tracks objects through a video; writes their boxes and an overlay."""
  if values.video is None:
    raise flags.Error('--video must name the video')
  resolution = common_flags.parse_resolution(values.resolution)
  changes = common_flags.parse_settings(values.set)
  max_memory = common_flags.parse_max_memory(values)
  source = sources.find_video(values.video)
  detector, settings = _plan_detector(values, source.info, changes)
  output = pathlib.Path(values.output or f'objects_{source.name}')
  with track_files.make_folder(
      output, _RESULTS, values.video
  ), ProgressBars() as progress:
    tracker = common_flags.load_tracker(values, resolution, progress)
    if max_memory is not None:
      size = source.info.height, source.info.width
      _check_budget(tracker, settings, size, max_memory)
    total = source.info.num_frames
    progress.update('track', 0, total)
    with source.open() as reader:
      found = objects.track_object_blocks(
          tracker,
          reader.read_blocks(source.block),
          detector,
          settings,
          lambda done: progress.update('track', done, total),
      )
      times = reader.times
    num_frames = found.boxes.shape[1]
    progress.update('track', num_frames, num_frames)
    if values.box is not None:
      common_flags.check_frame(values.frame, num_frames)
    table, text, overlay = (output / name for name in _RESULTS)
    with source.open() as reader:
      objects.write_overlay(
          overlay,
          progress.count_frames(
              'draw', reader.read_blocks(source.block), num_frames
          ),
          found,
          source.info.frame_rate,
          times,
      )
    objects.write_table(table, found)
    objects.write_mot(text, found)
  show(
      f'{tracker.name}: {len(found.ids)} objects in {num_frames} frames; wrote '
      f'{", ".join(_RESULTS)} to {output}'
  )


def _check_budget(
    tracker: Tracker,
    settings: objects.ObjectSettings,
    size: Resolution,
    max_memory: int,
) -> None:
  """Raises ValueError if a budget is not enough for a window of the video."""
  memory.check_frame_budget(tracker.functions, size, max_memory)
  num_frames = settings.window + settings.overlap
  num_points = _OBJECTS * settings.max_points
  needed = tracker.estimate_memory(num_frames, num_points, size)
  if needed > max_memory:
    raise ValueError(
        f'max_memory must be at least {needed / 1e6:.0f} MB for windows of '
        f'{settings.window} frames and {_OBJECTS} objects; got '
        f'{max_memory / 1e6:.0f} MB - set a smaller one, such as --set '
        f'window={settings.window // 2}'
    )


def _plan_detector(
    values: flags.FlagValues,
    info: video_files.VideoInfo,
    changes: dict[str, Any],
) -> tuple[objects.Detector, objects.ObjectSettings]:
  """Returns the detector described by the flags, and its settings.

  Errors in given boxes are raised here, before weights are loaded.
  """
  given = None
  if values.detections is not None:
    given = objects.read_mot(values.detections)
  elif values.box is not None:
    boxes = np.stack([_parse_box(text, info) for text in values.box])
    given = {values.frame: objects.Detections(boxes)}
  defaults = _MOTION_SETTINGS if given is None else _GIVEN_SETTINGS
  settings = replace_settings(objects.ObjectSettings(), defaults | changes)
  if given is None:
    return objects.MotionDetector(), settings
  return objects.ListedDetections(given, settings.detect_every), settings


def _parse_box(
    text: str, info: video_files.VideoInfo
) -> Float[np.ndarray, '4']:
  """Parses LEFT,TOP,RIGHT,BOTTOM in pixels inside of the video."""
  sides = common_flags.parse_numbers('box', text.split(','))
  limits = [info.width, info.height, info.width, info.height]
  if (
      len(sides) != 4
      or (sides < 0).any()
      or (sides > limits).any()
      or (sides[:2] >= sides[2:]).any()
  ):
    raise flags.IllegalFlagValueError(
        '--box must be LEFT,TOP,RIGHT,BOTTOM inside of the video, '
        f'{info.width}x{info.height}; got {text!r}'
    )
  return sides.astype(np.float32)
