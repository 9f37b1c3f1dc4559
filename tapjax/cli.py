"""The `tapjax` command: flags in, library calls out."""

import ast
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import sys
from typing import Any, NamedTuple, NoReturn
import warnings

from absl import flags
import jax
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np
import tqdm

from tapjax import editing
from tapjax import export
from tapjax import frame_sources
from tapjax import inputs
from tapjax import live
from tapjax import objects
from tapjax import pretrained
from tapjax import results
from tapjax import streaming
from tapjax import tables
from tapjax import tracking
from tapjax import video_io
from tapjax import windows
from tapjax.data import demo
from tapjax.geometry import Resolution
from tapjax.geometry import sample_grid_points
from tapjax.geometry import sample_random_points
from tapjax.models import registry
from tapjax.settings import freeze
from tapjax.settings import replace_settings

_DEFAULT_GRID = 16
_RESULTS = ('tracks.npz', 'tracks.csv', 'tracks.mp4')
_OBJECT_RESULTS = ('objects.csv', 'objects.txt', 'objects.mp4')
# Motion comes in pieces, and now and then from nothing.
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
# Boxes that are given count on their own frame.
_GIVEN_SETTINGS = {'detect_every': 1}
# Their first step takes long.
_COMPILED_STAGES = ('encode', 'track')


class _Command(NamedTuple):
  """A subcommand: its flags, what it does, and one line about it."""

  define_flags: Callable[[flags.FlagValues], None]
  run: Callable[[flags.FlagValues], None]
  summary: str


def main(argv: Sequence[str] | None = None) -> NoReturn:
  """Runs a subcommand and exits: 0 done, 1 bad input, 2 wrong flags."""
  sys.exit(_run(list(sys.argv if argv is None else argv)))


def _run(argv: list[str]) -> int:
  """Runs a subcommand and returns the exit status."""
  name = argv[1] if len(argv) > 1 else ''
  if name in ('', 'help', '-h', '--help'):
    _show(_describe_usage())
    return 0 if name else 2
  if name not in _COMMANDS:
    _complain(f'unknown command {name!r}; use {", ".join(_COMMANDS)}')
    return 2
  command = _COMMANDS[name]
  values = flags.FlagValues()
  command.define_flags(values)
  if {'-h', '--help'} & set(argv[2:]):
    _show(_describe_command(command, values))
    return 0
  try:
    rest = values([f'tapjax {name}', *argv[2:]])[1:]
    if rest:
      raise flags.Error(f'unexpected argument {rest[0]!r}; flags begin with --')
    with _show_warnings():
      command.run(values)
  except flags.Error as error:
    _complain(f'{error} - see tapjax {name} --help')
    return 2
  except (ValueError, OSError) as error:
    _complain(str(error))
    return 1
  except (MemoryError, jax.errors.JaxRuntimeError) as error:
    if not _is_out_of_memory(error):
      raise
    _complain(f'{error} - choose a smaller --resolution, or fewer points')
    return 1
  except KeyboardInterrupt:
    _complain('interrupted')
    return 130
  return 0


def _define_track_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
      'video', None, 'Video file; a demo clip without it.', flag_values=values
  )
  flags.DEFINE_string(
      'model',
      None,
      f'Preset; see `tapjax models`; {registry.DEFAULT} without it.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'checkpoint',
      None,
      "Weight file; the preset's own weights without it.",
      flag_values=values,
  )
  flags.DEFINE_string(
      'queries',
      None,
      'Points to track: .csv with columns t, y, x, or .npz with query_points.',
      flag_values=values,
  )
  flags.DEFINE_integer(
      'grid',
      None,
      'Track a grid of this many rows and columns of points of the first '
      f'frame; {_DEFAULT_GRID} if no points are chosen.',
      lower_bound=1,
      flag_values=values,
  )
  flags.DEFINE_integer(
      'num_points',
      None,
      'Track this many random points of random frames.',
      lower_bound=1,
      flag_values=values,
  )
  flags.DEFINE_integer(
      'seed', 0, 'Of random points.', lower_bound=0, flag_values=values
  )
  flags.DEFINE_list(
      'resolution',
      None,
      'HEIGHT,WIDTH at which the network sees the video.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'output',
      None,
      'Folder for the results; tracks_VIDEO without it.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'max_memory',
      None,
      'What tracking may take, such as 4GB; a longer video is seen through '
      'windows, and waits on disk.',
      flag_values=values,
  )
  flags.DEFINE_integer(
      'window',
      None,
      'Frames to see at once; all of them, or what fits, without it.',
      lower_bound=1,
      flag_values=values,
  )
  _define_threshold_flag(values)
  flags.DEFINE_bool(
      'agreement',
      False,
      'Take as confidence whether points lead back to where they began, by '
      'tracking them from several frames again.',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['queries', 'grid', 'num_points'],
      lambda chosen: sum(value is not None for value in chosen.values()) <= 1,
      'choose points by one of --queries, --grid and --num_points',
      flag_values=values,
  )


def _track(values: flags.FlagValues) -> None:
  """Tracks points through a video file and writes what came out."""
  resolution = _parse_resolution(values.resolution)
  max_memory = values.max_memory and inputs.check_memory(values.max_memory)
  source = _find_source(values.video)
  choose_points = _plan_points(values, source)
  name = pathlib.Path(values.video or 'demo').stem
  output = pathlib.Path(values.output or f'tracks_{name}')
  with results.make_folder(output, _RESULTS), _Progress() as progress:
    progress.report('load', 0, 1)
    tracker = pretrained.load(
        values.model, checkpoint=values.checkpoint, resolution=resolution
    )
    progress.report('load', 1, 1)
    with source.open_blocks() as blocks:
      video = tracker.prepare(
          progress.follow('read', blocks, source.info.num_frames),
          on_disk=max_memory is not None or values.window is not None,
      )
    num_frames = len(video.frames)
    query_points = choose_points(num_frames)
    window = values.window
    if window is None and max_memory is not None and len(query_points):
      progress.report('plan', 0, 1)
      window = tracker.fit_window(
          num_frames, len(query_points), video.original, max_memory
      )
      progress.report('plan', 1, 1)
    tracks = tracker.track_video(
        video, query_points, window=window, report=progress.report
    )
    confidence = np.asarray(tracks.confidence)
    if values.agreement:
      progress.report('agree', 0, 1)
      confidence = tracker.measure_agreement(video, query_points, tracks)
      progress.report('agree', 1, 1)
    if values.threshold is not None:
      tracks = tracks._replace(visible=confidence > values.threshold)
    arrays, table, overlay = (output / name for name in _RESULTS)
    frame_rate = source.info.frame_rate
    results.write_arrays(
        arrays,
        tracks,
        query_points,
        frame_rate,
        tracker.name,
        confidence,
        window=window,
    )
    results.write_table(table, tracks)
    with source.open_blocks() as blocks:
      drawn = progress.follow('draw', blocks, num_frames)
      results.write_overlay(overlay, drawn, tracks, frame_rate)
  _show(
      f'{tracker.name}: {len(query_points)} points through {num_frames} '
      f'frames; wrote {", ".join(_RESULTS)} to {output}'
  )
  if source.clip is not None and query_points is source.clip.query_points:
    _show(demo.describe_error(source.clip, tracks))


def _define_live_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
      'video',
      None,
      'Video file, number of a camera (0 is the first), or folder in which '
      'pictures appear, their names in the order of time.',
      flag_values=values,
  )
  for name, text in (
      ('model', f'Preset that streams; {registry.DEFAULT} without it.'),
      ('checkpoint', "Weight file; the preset's own weights without it."),
      ('queries', 'Points to track: .csv with t, y, x, or .npz.'),
      ('output', 'Folder for the results; live_VIDEO without it.'),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  for name, default, text in (
      (
          'grid',
          None,
          f'Rows and columns of points of the first frame; {_DEFAULT_GRID}.',
      ),
      ('num_points', None, 'Random points of the first frame.'),
      ('save_every', None, 'Frames after which to save what --resume needs.'),
      ('max_frames', None, 'Frames of the stream to track; all without it.'),
      (
          'lost_after',
          streaming.DEFAULT_RULE.lost_after,
          'Frames in a row without a point after which it is lost.',
      ),
      (
          'found_after',
          streaming.DEFAULT_RULE.found_after,
          'Frames in a row with a lost point after which it is found.',
      ),
  ):
    flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
  flags.DEFINE_integer(
      'seed', 0, 'Of random points.', lower_bound=0, flag_values=values
  )
  flags.DEFINE_list(
      'resolution',
      None,
      'HEIGHT,WIDTH at which the network sees the video.',
      flag_values=values,
  )
  _define_threshold_flag(values)
  flags.DEFINE_float(
      'frame_rate',
      None,
      'Frames per second, of pictures and of a camera that states none.',
      lower_bound=0.001,
      flag_values=values,
  )
  flags.DEFINE_float(
      'patience',
      5.0,
      'Seconds without a new picture after which a folder has ended.',
      lower_bound=0,
      flag_values=values,
  )
  flags.DEFINE_enum(
      'damaged',
      'skip',
      ['skip', 'stop'],
      'What to do at a damaged frame.',
      flag_values=values,
  )
  flags.DEFINE_bool(
      'reset_at_cuts',
      False,
      'Forget the past where a new scene begins.',
      flag_values=values,
  )
  flags.DEFINE_bool(
      'resume',
      False,
      'Go on where a run with --save_every was killed.',
      flag_values=values,
  )
  flags.DEFINE_enum(
      'window',
      'auto',
      ['auto', 'on', 'off'],
      f'Show points in a window; auto: if there is a screen. {windows.HELP}.',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['queries', 'grid', 'num_points'],
      lambda chosen: sum(value is not None for value in chosen.values()) <= 1,
      'choose points by one of --queries, --grid and --num_points',
      flag_values=values,
  )


def _define_threshold_flag(values: flags.FlagValues) -> None:
  flags.DEFINE_float(
      'threshold',
      None,
      'A point is visible where its confidence, 0 to 1, is above this; the '
      "preset's own without it.",
      lower_bound=0,
      upper_bound=0.999999,
      flag_values=values,
  )


def _live(values: flags.FlagValues) -> None:
  """Tracks a stream while it comes."""
  if values.video is None:
    raise flags.Error('--video must name a video file, camera or folder')
  resolution = _parse_resolution(values.resolution)
  chosen = None
  if values.queries is not None:
    chosen = inputs.read_query_points(values.queries)
  source = frame_sources.find_source(
      values.video, frame_rate=values.frame_rate, patience=values.patience
  )
  output = pathlib.Path(values.output or f'live_{source.name}')

  def choose_points(size: Resolution, first: int) -> np.ndarray:
    if chosen is not None:
      inputs.check_queries_inside(chosen, None, size)
      return chosen
    if values.num_points is not None:
      generator = np.random.default_rng(values.seed)
      points = sample_random_points(generator, 1, size, values.num_points)
    else:
      points = sample_grid_points(size, values.grid or _DEFAULT_GRID)
    return points + np.asarray([first, 0, 0], np.float32)

  options = live.Options(
      threshold=values.threshold,
      lost_after=values.lost_after,
      found_after=values.found_after,
      damaged=values.damaged,
      reset_at_cuts=values.reset_at_cuts,
      save_every=values.save_every,
      max_frames=values.max_frames,
  )
  window = windows.open_window(values.window)
  if window is not None:
    _show(windows.HELP)
  with results.make_folder(
      output, live.RESULTS
  ), contextlib.ExitStack() as stack, _Progress() as progress:
    if window is not None:
      stack.callback(window.close)
    progress.report('load', 0, 1)
    tracker = pretrained.load(
        values.model, checkpoint=values.checkpoint, resolution=resolution
    )
    progress.report('load', 1, 1)
    summary = live.run(
        tracker,
        source,
        output,
        choose_points,
        options,
        resume=values.resume,
        window=window,
        tell=progress.tell,
        report=progress.report,
    )
  _show(
      f'{tracker.name}: {summary.num_points} points through '
      f'{summary.num_frames} frames, {len(summary.damaged)} of them damaged; '
      f'wrote {", ".join(live.RESULTS)} to {output}'
  )
  if np.isfinite(summary.first_seconds):
    _show(
        f'milliseconds a frame: {1000 * summary.first_seconds:.1f} in the '
        f'first hundred, {1000 * summary.last_seconds:.1f} in the last'
    )


def _define_edit_flags(values: flags.FlagValues) -> None:
  for name, text in (
      ('video', 'Video file.'),
      ('model', 'Preset; see `tapjax models`.'),
      ('checkpoint', 'Weight file; the published weights without it.'),
      ('image', 'Picture to stretch over the region.'),
      ('draw', 'Picture of the size of the frame; what is opaque is laid on.'),
      ('output', 'Video to write; edit_VIDEO.mp4 without it.'),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  flags.DEFINE_list(
      'region',
      None,
      'Corners X,Y,X,Y,... in pixels of the video: two opposite ones of a '
      'rectangle, or all of a polygon.',
      flag_values=values,
  )
  flags.DEFINE_list(
      'color', None, 'RED,GREEN,BLUE to fill the region.', flag_values=values
  )
  flags.DEFINE_integer(
      'frame',
      0,
      'Index of the frame that the edit is made on.',
      lower_bound=0,
      flag_values=values,
  )
  flags.DEFINE_integer(
      'num_points',
      256,
      'About this many points of the region are tracked.',
      lower_bound=1,
      flag_values=values,
  )
  flags.DEFINE_list(
      'resolution',
      None,
      'HEIGHT,WIDTH at which the network sees the video.',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['image', 'draw', 'color'],
      lambda chosen: sum(value is not None for value in chosen.values()) == 1,
      'choose the edit by one of --image, --draw and --color',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['draw', 'region'],
      lambda chosen: (chosen['draw'] is None) != (chosen['region'] is None),
      '--region must say where --image and --color go, and --draw needs none',
      flag_values=values,
  )


def _edit(values: flags.FlagValues) -> None:
  """Carries an edit of one frame through a video."""
  if values.video is None:
    raise flags.Error('--video must name the video to edit')
  resolution = _parse_resolution(values.resolution)
  source = _find_source(values.video)
  edit, query_points = _plan_edit(values, source.info)
  output = pathlib.Path(
      values.output or f'edit_{pathlib.Path(values.video).stem}.mp4'
  )
  if output.suffix.lower() != '.mp4':
    raise ValueError(f'--output must end in .mp4; got {str(output)!r}')
  with results.make_folder(
      output.parent, [output.name]
  ), _Progress() as progress:
    progress.report('load', 0, 1)
    tracker = pretrained.load(
        values.model, checkpoint=values.checkpoint, resolution=resolution
    )
    progress.report('load', 1, 1)
    with source.open_blocks() as blocks:
      video = tracker.prepare(
          progress.follow('read', blocks, source.info.num_frames)
      )
    num_frames = len(video.frames)
    if values.frame >= num_frames:
      raise ValueError(
          f'--frame must be one of the {num_frames} frames, 0 to '
          f'{num_frames - 1}; got {values.frame}'
      )
    tracks = tracker.track_video(video, query_points, report=progress.report)
    with source.open_blocks() as blocks:
      followed = progress.follow('draw', blocks, num_frames)
      frames = (frame for block in followed for frame in block)
      video_io.write_video(
          output,
          editing.iterate_edit(frames, edit, query_points, tracks),
          source.info.frame_rate,
      )
  _show(
      f'{tracker.name}: carried the edit by {len(query_points)} points through '
      f'{num_frames} frames; wrote {output}'
  )


def _plan_edit(
    values: flags.FlagValues, info: video_io.VideoInfo
) -> tuple[editing.Edit, Float[np.ndarray, 'n 3']]:
  """Returns the edit that the flags describe, and points to track."""
  size = info.height, info.width
  if values.draw is not None:
    picture = video_io.read_picture(values.draw)
    if picture.shape[:2] != size:
      raise ValueError(
          f'--draw must be {info.width}x{info.height} pixels as the video is; '
          f'got {picture.shape[1]}x{picture.shape[0]} - draw on one of its '
          'frames, and save the drawing alone'
      )
    region = picture[..., 3] > 0
    edit = editing.Edit(
        picture[..., :3], picture[..., 3].astype(np.float32) / 255
    )
  else:
    corners = _parse_numbers('region', values.region)
    if len(corners) < 4 or len(corners) % 2:
      raise flags.IllegalFlagValueError(
          '--region must be X,Y of two corners or more; got '
          f'{",".join(values.region)!r}'
      )
    region = editing.make_region(size, corners.reshape(-1, 2))
    if values.color is not None:
      edit = editing.fill_region(region, _parse_color(values.color))
    else:
      edit = editing.fit_picture(video_io.read_picture(values.image), region)
  points = editing.sample_region(region, values.frame, values.num_points)
  return edit, points


def _parse_numbers(name: str, texts: list[str]) -> Float[np.ndarray, '_']:
  try:
    numbers = np.asarray([float(text) for text in texts])
  except ValueError:
    numbers = np.asarray([np.nan])
  if not np.isfinite(numbers).all():
    raise flags.IllegalFlagValueError(
        f'--{name} must be numbers, separated by commas; got '
        f'{",".join(texts)!r}'
    )
  return numbers


def _parse_color(texts: list[str]) -> tuple[int, int, int]:
  numbers = _parse_numbers('color', texts)
  if len(numbers) != 3 or ((numbers < 0) | (numbers > 255)).any():
    raise flags.IllegalFlagValueError(
        '--color must be RED,GREEN,BLUE of 0 to 255; got '
        f'{",".join(texts)!r}'
    )
  red, green, blue = (round(number) for number in numbers.tolist())
  return red, green, blue


def _define_objects_flags(values: flags.FlagValues) -> None:
  for name, text in (
      ('video', 'Video file.'),
      ('model', f'Preset; see `tapjax models`; {registry.DEFAULT} without it.'),
      ('checkpoint', "Weight file; the preset's own weights without it."),
      (
          'detections',
          'Boxes as text of the MOT Challenge; else what moves is found.',
      ),
      ('output', 'Folder for the results; objects_VIDEO without it.'),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  flags.DEFINE_multi_string(
      'box',
      None,
      'LEFT,TOP,RIGHT,BOTTOM of an object, in pixels of the video; may be '
      'repeated.',
      flag_values=values,
  )
  flags.DEFINE_integer(
      'frame',
      0,
      'Index of the frame that --box is of.',
      lower_bound=0,
      flag_values=values,
  )
  flags.DEFINE_list(
      'resolution',
      None,
      'HEIGHT,WIDTH at which the network sees the video.',
      flag_values=values,
  )
  flags.DEFINE_multi_string(
      'set',
      [],
      'NAME=VALUE of a setting of tapjax.objects.ObjectSettings; may be '
      'repeated.',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['detections', 'box'],
      lambda chosen: sum(value is not None for value in chosen.values()) <= 1,
      'say where objects are by one of --detections and --box',
      flag_values=values,
  )


def _track_objects(values: flags.FlagValues) -> None:
  """Follows objects through a video file and writes where they are."""
  if values.video is None:
    raise flags.Error('--video must name the video')
  resolution = _parse_resolution(values.resolution)
  changes = _parse_settings(values.set)
  source = _find_source(values.video)
  detector, settings = _plan_detector(values, source.info, changes)
  output = pathlib.Path(
      values.output or f'objects_{pathlib.Path(values.video).stem}'
  )
  with results.make_folder(output, _OBJECT_RESULTS), _Progress() as progress:
    progress.report('load', 0, 1)
    tracker = pretrained.load(
        values.model, checkpoint=values.checkpoint, resolution=resolution
    )
    progress.report('load', 1, 1)
    total = source.info.num_frames
    progress.report('track', 0, total)
    with source.open_blocks() as blocks:
      found = objects.track_object_blocks(
          tracker,
          blocks,
          detector,
          settings,
          lambda done: progress.report('track', done, total),
      )
    num_frames = found.boxes.shape[1]
    progress.report('track', num_frames, num_frames)
    if values.box is not None and values.frame >= num_frames:
      raise ValueError(
          f'--frame must be one of the {num_frames} frames, 0 to '
          f'{num_frames - 1}; got {values.frame}'
      )
    table, text, overlay = (output / name for name in _OBJECT_RESULTS)
    with source.open_blocks() as blocks:
      objects.write_overlay(
          overlay,
          progress.follow('draw', blocks, num_frames),
          found,
          source.info.frame_rate,
      )
    objects.write_table(table, found)
    objects.write_mot(text, found)
  _show(
      f'{tracker.name}: {len(found.ids)} objects in {num_frames} frames; wrote '
      f'{", ".join(_OBJECT_RESULTS)} to {output}'
  )


def _plan_detector(
    values: flags.FlagValues,
    info: video_io.VideoInfo,
    changes: dict[str, Any],
) -> tuple[objects.Detector, objects.ObjectSettings]:
  """Returns the detector that the flags describe, and settings to go with it.

  What can be wrong with given boxes is found before any work is done.
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


def _parse_box(text: str, info: video_io.VideoInfo) -> np.ndarray:
  sides = _parse_numbers('box', text.split(','))
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


def _parse_settings(changes: list[str]) -> dict[str, Any]:
  """Returns the settings that `--set` names, with literals as values."""
  settings = {}
  for change in changes:
    name, equals, text = change.partition('=')
    if not equals:
      raise flags.IllegalFlagValueError(
          f'--set must be NAME=VALUE; got {change!r}'
      )
    try:
      settings[name] = freeze(ast.literal_eval(text))
    except (ValueError, SyntaxError):
      settings[name] = text
  return settings


def _define_models_flags(values: flags.FlagValues) -> None:
  del values  # None but help.


def _list_models(values: flags.FlagValues) -> None:
  """Prints a table of all presets."""
  del values
  rows = [
      (
          model.name,
          f'{model.num_parameters / 1e6:.1f} M',
          '{}x{}'.format(*model.resolution),
          'yes' if model.streams else 'no',
          _format_score(model.scores.get('tapvid_davis')),
          model.licence,
      )
      for model in registry.list_models()
  ]
  columns = ('model', 'parameters', 'size', 'streams', 'AJ DAVIS', 'licence')
  _show(tables.format_table(columns, rows))
  _show(
      'AJ: Average Jaccard on TAP-Vid-DAVIS, query first, as published.\n'
      'Weights are downloaded on first use, or read with --checkpoint=FILE.'
  )


def _format_score(score: float | None) -> str | None:
  return None if score is None else f'{score:.1f}'


def _define_convert_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_string(
      'checkpoint', None, 'Weight file to read.', flag_values=values
  )
  flags.DEFINE_string(
      'output',
      None,
      'File to write: .safetensors, or .npy as published.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'model',
      None,
      'Preset, where the arrays do not tell it.',
      flag_values=values,
  )


def _convert(values: flags.FlagValues) -> None:
  """Rewrites a weight file in another format."""
  if not (values.checkpoint and values.output):
    raise flags.Error(
        '--checkpoint must name the file to read and --output that to write'
    )
  tracker = pretrained.load(values.model, checkpoint=values.checkpoint)
  tracker.save(values.output)
  _show(f'{tracker.name}: wrote {values.output}')


def _define_export_flags(values: flags.FlagValues) -> None:
  for name, text in (
      ('model', f'Preset; see `tapjax models`; {registry.DEFAULT} without it.'),
      ('checkpoint', "Weight file; the preset's own weights without it."),
      ('output', 'Folder for the files; export_NAME without it.'),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  flags.DEFINE_enum(
      'format',
      'onnx',
      ['onnx', 'stablehlo'],
      "ONNX, or StableHLO in the container of JAX's export.",
      flag_values=values,
  )
  flags.DEFINE_integer(
      'frames',
      None,
      'Frames of the videos that the file tracks points through.',
      lower_bound=1,
      flag_values=values,
  )
  flags.DEFINE_bool(
      'step',
      False,
      'Export what takes one frame after the other, of a model that streams.',
      flag_values=values,
  )
  flags.DEFINE_string(
      'queries',
      '64',
      'Points that are tracked; `any` leaves it open, in StableHLO, for models '
      'whose points are tracked each by itself.',
      flag_values=values,
  )
  flags.DEFINE_list(
      'resolution',
      None,
      "HEIGHT,WIDTH of the frames; the preset's own without it.",
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['frames', 'step'],
      lambda chosen: (chosen['frames'] is None) == chosen['step'],
      'say either --frames, for whole videos, or --step, for frame by frame',
      flag_values=values,
  )


def _export(values: flags.FlagValues) -> None:
  """Writes a tracker as files that run without tapjax."""
  resolution = _parse_resolution(values.resolution)
  num_queries = _parse_count('queries', values.queries)
  if values.model is not None or values.checkpoint is None:
    # What cannot be exported is told before a long download.
    preset = registry.get_preset(values.model or registry.DEFAULT)
    settings = {} if resolution is None else {'resolution': resolution}
    functions = preset.architecture.make_functions(
        replace_settings(preset.config, settings)
    )
    export.check_request(
        preset.name, functions, values.format, num_queries, values.frames
    )
  export.check_installed(values.format)
  name = (
      values.model or pathlib.Path(values.checkpoint or registry.DEFAULT).stem
  )
  output = pathlib.Path(values.output or f'export_{name}')
  with results.make_folder(output), _Progress() as progress:
    progress.report('load', 0, 1)
    tracker = pretrained.load(
        values.model, checkpoint=values.checkpoint, resolution=resolution
    )
    progress.report('load', 1, 1)
    exported = export.export_tracker(
        tracker,
        output,
        format=values.format,
        num_queries=num_queries,
        num_frames=values.frames,
        weights=pathlib.Path(values.checkpoint or 'published').name,
        report=progress.report,
    )
  names = ' and '.join(path.name for path in exported.paths)
  _show(f'{tracker.name}: wrote {names} to {output}')
  _show(
      'largest differences from JAX: '
      + ', '.join(map(str, exported.differences))
  )


def _parse_count(name: str, text: str) -> int | None:
  """Returns a number above 0, or None for any."""
  if text == 'any':
    return None
  if not text.isdecimal() or int(text) < 1:
    raise flags.IllegalFlagValueError(
        f'--{name} must be a number of at least 1, or any; got {text!r}'
    )
  return int(text)


_COMMANDS = {
    'track': _Command(
        _define_track_flags, _track, 'Track points through a video.'
    ),
    'live': _Command(
        _define_live_flags, _live, 'Track points in a stream as it comes.'
    ),
    'edit': _Command(
        _define_edit_flags, _edit, 'Carry an edit of a frame through a video.'
    ),
    'track-objects': _Command(
        _define_objects_flags,
        _track_objects,
        'Follow objects through a video.',
    ),
    'models': _Command(
        _define_models_flags, _list_models, 'List the known models.'
    ),
    'convert': _Command(
        _define_convert_flags, _convert, 'Rewrite a weight file.'
    ),
    'export': _Command(
        _define_export_flags, _export, 'Write files that run without tapjax.'
    ),
}


class _Progress(contextlib.ExitStack):
  """Progress bars on stderr, one for each stage of the work.

  Errors wipe the bar that they interrupt, so that their line stands alone.
  """

  def __init__(self):
    super().__init__()
    self._bar: tqdm.tqdm | None = None
    self._stage = ''
    self.push(self._finish)

  def report(self, stage: str, done: int, total: int | None) -> None:
    """Shows how much of a stage is done."""
    if self._bar is None or stage != self._stage:
      if self._bar is not None:
        self._bar.close()
      self._stage = stage
      self._bar = tqdm.tqdm(
          desc=stage,
          total=total,
          file=sys.stderr,
          postfix='compiling' if stage in _COMPILED_STAGES else '',
      )
    if done:
      self._bar.total = total
      self._bar.set_postfix_str('', refresh=False)
      self._bar.update(done - self._bar.n)

  def tell(self, text: str) -> None:
    """Shows a line above the bar."""
    tqdm.tqdm.write(f'tapjax: {_join_lines(text)}', file=sys.stderr)

  def follow(
      self,
      stage: str,
      blocks: Iterator[UInt8[np.ndarray, '_ h w 3']],
      total: int | None,
  ) -> Iterator[UInt8[np.ndarray, '_ h w 3']]:
    """Yields blocks of frames and shows how many went by."""
    done = 0
    self.report(stage, done, total)
    for block in blocks:
      yield block
      done += len(block)
      self.report(stage, done, total)
    # What a file says of its length can be wrong.
    self.report(stage, done, done)

  def _finish(self, error_type: type | None, *_: object) -> None:
    if self._bar is not None:
      self._bar.leave = error_type is None
      self._bar.close()


class _Source(NamedTuple):
  """A video file or the demo clip, and what it says about itself."""

  path: str | None
  clip: demo.DemoClip | None
  info: video_io.VideoInfo

  @contextlib.contextmanager
  def open_blocks(self) -> Iterator[Iterator[UInt8[np.ndarray, '_ h w 3']]]:
    """Yields the frames, a few at a time."""
    if self.clip is not None:
      yield tracking.split_frames(self.clip.frames)
      return
    assert self.path is not None
    with video_io.open_video(self.path) as reader:
      yield reader.read_blocks(tracking.FRAME_CHUNK)


def _find_source(path: str | None) -> _Source:
  """Returns the video to track; raises for files that are none."""
  if path is None:
    clip = demo.make_demo_clip()
    num_frames, height, width, _ = clip.frames.shape
    info = video_io.VideoInfo(height, width, demo.FRAME_RATE, num_frames)
    return _Source(None, clip, info)
  with video_io.open_video(path) as reader:
    return _Source(path, None, reader.info)


def _plan_points(
    values: flags.FlagValues, source: _Source
) -> Callable[[int], Float[np.ndarray, 'n 3']]:
  """Returns what chooses query points once the number of frames is certain.

  What can be wrong with the points is found before that.
  """
  resolution = source.info.height, source.info.width
  if values.queries is not None:
    query_points = inputs.read_query_points(values.queries)
    inputs.check_queries_inside(query_points, None, resolution)
  elif values.num_points is not None:
    return lambda num_frames: sample_random_points(
        np.random.default_rng(values.seed),
        num_frames,
        resolution,
        values.num_points,
    )
  elif values.grid is None and source.clip is not None:
    query_points = source.clip.query_points
  else:
    query_points = sample_grid_points(resolution, values.grid or _DEFAULT_GRID)
  return lambda _: query_points


def _parse_resolution(sides: list[str] | None) -> Resolution | None:
  if sides is None:
    return None
  try:
    return inputs.check_resolution([int(side) for side in sides])
  except ValueError:
    raise flags.IllegalFlagValueError(
        '--resolution must be HEIGHT,WIDTH, two positive integers; got '
        f'{",".join(sides)!r}'
    ) from None


def _describe_usage() -> str:
  lines = ['Tracks any point through a video.', '']
  lines += [
      f'  tapjax {name:14} {command.summary}'
      for name, command in _COMMANDS.items()
  ]
  lines += ['', 'tapjax COMMAND --help lists the flags of a command.']
  return '\n'.join(lines)


def _describe_command(command: _Command, values: flags.FlagValues) -> str:
  # The first lines say in which module the flags are defined.
  described = values.module_help(__name__).partition(f'{__name__}:')[2]
  return f'{command.summary}\n{described.rstrip()}'


def _is_out_of_memory(error: Exception) -> bool:
  if isinstance(error, MemoryError):
    return True
  # Older versions of JAX give only the second.
  return any(
      words in str(error) for words in ('RESOURCE_EXHAUSTED', 'Out of memory')
  )


@contextlib.contextmanager
def _show_warnings() -> Iterator[None]:
  """Shows warnings as one line each."""
  with warnings.catch_warnings():

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
      del args, kwargs  # Where it was raised is no help to a user.
      sys.stderr.write(f'tapjax: warning: {_join_lines(str(message))}\n')

    warnings.simplefilter('default', UserWarning)
    warnings.showwarning = show
    yield


def _complain(message: str) -> None:
  sys.stderr.write(f'tapjax: error: {_join_lines(message)}\n')


def _join_lines(text: str) -> str:
  return '; '.join(line.strip() for line in text.splitlines() if line.strip())


def _show(text: str) -> None:
  sys.stdout.write(text + '\n')
