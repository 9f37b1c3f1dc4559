"""`tapjax live`: tracks points in a stream, frame by frame."""

import contextlib
import pathlib

from absl import flags
from jaxtyping import Float
import numpy as np

from tapjax import streaming
from tapjax.cli import common_flags
from tapjax.cli import points
from tapjax.cli.progress import ProgressBars
from tapjax.cli.progress import show
from tapjax.geometry import Resolution
from tapjax.live import run as live
from tapjax.live import screen as live_screen
from tapjax.media import sources
from tapjax.media import track_files
from tapjax.models import registry
from tapjax.streaming import slots
from tapjax.tracker import Tracker
from tapjax.tracking import checks
from tapjax.tracking import memory


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  common_flags.define_video(
      values,
      'Video file, address such as rtsp://host/path, number of a camera (0 is '
      'the first), or folder in which pictures appear, their names in the '
      'order of time.',
  )
  common_flags.define_model(
      values, f'Preset that streams; {registry.DEFAULT} without it.'
  )
  common_flags.define_checkpoint(values)
  points.define_points(
      values,
      queries='Points to track: .csv with t, y, x, or .npz.',
      grid=(
          'Rows and columns of points of the first frame; '
          f'{points.DEFAULT_GRID}.'
      ),
      num_points='Random points of the first frame.',
  )
  common_flags.define_resolution(values)
  common_flags.define_output(
      values, 'Folder for the results; live_VIDEO without it.'
  )
  common_flags.define_max_memory(values)
  common_flags.define_threshold(values)
  rule = streaming.DEFAULT_RULE
  for name, default, text in (
      (
          'save_every',
          None,
          'Number of frames between saved states for --resume.',
      ),
      ('max_frames', None, 'Frames of the stream to track; all without it.'),
      (
          'lost_after',
          rule.lost_after,
          'Frames in a row without a point after which it is lost.',
      ),
      (
          'found_after',
          rule.found_after,
          'Frames in a row with a lost point after which it is found.',
      ),
  ):
    flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
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
      'Whether to skip damaged frames or stop at the first.',
      flag_values=values,
  )
  for name, text in (
      ('reset_at_cuts', 'Forget the past where a new scene begins.'),
      ('resume', 'Go on where a run with --save_every was killed.'),
  ):
    flags.DEFINE_bool(name, False, text, flag_values=values)
  flags.DEFINE_enum(
      'window',
      'auto',
      ['auto', 'on', 'off'],
      'Show points in a window; auto: if there is a screen. '
      f'{live_screen.HELP}.',
      flag_values=values,
  )


def run(values: flags.FlagValues) -> None:
  """Tracks a stream until its end and writes what `tapjax track` writes."""
  if values.video is None:
    raise flags.Error('--video must name a video file, camera or folder')
  resolution = common_flags.parse_resolution(values.resolution)
  max_memory = common_flags.parse_max_memory(values)
  choose_points = _plan_points(values)
  source = sources.find_source(
      values.video, frame_rate=values.frame_rate, patience=values.patience
  )
  output = pathlib.Path(values.output or f'live_{source.name}')
  options = live.Options(
      threshold=values.threshold,
      lost_after=values.lost_after,
      found_after=values.found_after,
      damaged=values.damaged,
      reset_at_cuts=values.reset_at_cuts,
      save_every=values.save_every,
      max_frames=values.max_frames,
  )
  window = live_screen.open_screen(values.window)
  if window is not None:
    show(live_screen.HELP)
  with track_files.make_folder(
      output, live.RESULTS, values.video
  ), contextlib.ExitStack() as stack, ProgressBars() as progress:
    if window is not None:
      stack.callback(window.close)
    tracker = common_flags.load_tracker(values, resolution, progress)
    if max_memory is not None:
      choose_points = _limit(choose_points, tracker, max_memory)
    summary = live.run(
        tracker,
        source,
        output,
        choose_points,
        options,
        resume=values.resume,
        window=window,
        log=progress.log,
        progress=progress.update,
    )
  show(
      f'{tracker.name}: {summary.num_points} points through '
      f'{summary.num_frames} frames, {len(summary.damaged)} of them damaged; '
      f'wrote {", ".join(live.RESULTS)} to {output}'
  )
  if np.isfinite(summary.first_seconds):
    show(
        f'milliseconds a frame: {1000 * summary.first_seconds:.1f} in the '
        f'first hundred, {1000 * summary.last_seconds:.1f} in the last'
    )


def _plan_points(values: flags.FlagValues) -> live.ChoosePoints:
  """Returns a function `(size, first frame) -> query points`."""
  given = None
  if values.queries is not None:
    given = checks.read_query_points(values.queries)

  def choose_points(size: Resolution, first: int) -> Float[np.ndarray, 'n 3']:
    if given is not None:
      checks.check_queries_inside(given, None, size)
      return given
    chosen = points.sample_points(values, 1, size)
    return chosen + np.asarray([first, 0, 0], np.float32)

  return choose_points


def _limit(
    choose_points: live.ChoosePoints, tracker: Tracker, max_memory: int
) -> live.ChoosePoints:
  """Returns the function with a check that a budget is enough."""

  def choose(size: Resolution, first: int) -> Float[np.ndarray, 'n 3']:
    chosen = choose_points(size, first)
    tracking = slots.estimate_bytes(tracker.functions, size, len(chosen))
    memory.check_frame_budget(tracker.functions, size, max_memory, tracking)
    return chosen

  return choose
