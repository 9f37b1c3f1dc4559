"""`tapjax track`: tracks points through a video."""

from collections.abc import Callable
import pathlib

from absl import flags
from jaxtyping import Float
import numpy as np

from tapjax.cli import common_flags
from tapjax.cli import points
from tapjax.cli import sources
from tapjax.cli.progress import ProgressBars
from tapjax.cli.progress import show
from tapjax.data.procedural import demo
from tapjax.media import track_files
from tapjax.tracking import checks
from tapjax.tracking import memory

_RESULTS = ('tracks.npz', 'tracks.csv', 'tracks.mp4')


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  common_flags.define_video(
      values, f'{sources.VIDEO_HELP}; a demo clip without it.'
  )
  common_flags.define_model(values)
  common_flags.define_checkpoint(values)
  points.define_points(
      values,
      queries=(
          'Points to track: .csv with columns t, y, x, or .npz with '
          'query_points.'
      ),
      grid=(
          'Track a grid of this many rows and columns of points of the first '
          f'frame; {points.DEFAULT_GRID} if no points are chosen.'
      ),
      num_points='Track this many random points of random frames.',
  )
  common_flags.define_resolution(values)
  common_flags.define_output(
      values, 'Folder for the results; tracks_VIDEO without it.'
  )
  common_flags.define_max_memory(values)
  flags.DEFINE_integer(
      'window',
      None,
      'Number of frames to track at once; without it, all, or as many as fit.',
      lower_bound=1,
      flag_values=values,
  )
  common_flags.define_threshold(values)
  flags.DEFINE_bool(
      'agreement',
      False,
      'Use forward-backward consistency as confidence: points are tracked back '
      'from several frames.',
      flag_values=values,
  )


def run(values: flags.FlagValues) -> None:
  """Tracks points through a video and writes arrays, a table and an overlay."""
  resolution = common_flags.parse_resolution(values.resolution)
  max_memory = common_flags.parse_max_memory(values)
  source = sources.find_video(values.video)
  choose_points = _plan_points(values, source)
  size = source.info.height, source.info.width
  output = pathlib.Path(values.output or f'tracks_{source.name}')
  with track_files.make_folder(
      output, _RESULTS, values.video
  ), ProgressBars() as progress:
    tracker = common_flags.load_tracker(values, resolution, progress)
    if max_memory is not None:
      memory.check_frame_budget(tracker.functions, size, max_memory)
    with source.open() as reader:
      video = tracker.prepare(
          progress.count_frames(
              'read', reader.read_blocks(source.block), source.info.num_frames
          ),
          on_disk=max_memory is not None or values.window is not None,
      )
      times = np.asarray(reader.times)
    num_frames = len(video.frames)
    query_points = choose_points(num_frames)
    window = values.window
    if window is None and max_memory is not None and len(query_points):
      with progress.stage('plan'):
        window = tracker.fit_window(
            num_frames, len(query_points), video.original, max_memory
        )
    tracks = tracker.track_video(
        video, query_points, window=window, report=progress.update
    )
    confidence = np.asarray(tracks.confidence)
    if values.agreement:
      with progress.stage('agree'):
        confidence = tracker.measure_agreement(video, query_points, tracks)
    if values.threshold is not None:
      tracks = tracks._replace(visible=confidence > values.threshold)
    arrays, table, overlay = (output / name for name in _RESULTS)
    frame_rate = source.info.frame_rate
    track_files.write_arrays(
        arrays,
        tracks,
        query_points,
        frame_rate,
        tracker.name,
        confidence,
        window=window,
        times=times,
    )
    track_files.write_table(table, tracks, times)
    del video
    memory.release_memory()
    with source.open() as reader:
      drawn = progress.count_frames(
          'draw', reader.read_blocks(source.block), num_frames
      )
      track_files.write_overlay(overlay, drawn, tracks, frame_rate, times)
  show(
      f'{tracker.name}: {len(query_points)} points through {num_frames} '
      f'frames; wrote {", ".join(_RESULTS)} to {output}'
  )
  if source.clip is not None and query_points is source.clip.query_points:
    show(demo.describe_error(source.clip, tracks))


def _plan_points(
    values: flags.FlagValues, source: sources.VideoSource
) -> Callable[[int], Float[np.ndarray, 'n 3']]:
  """Returns a function `num_frames -> query points`.

  Errors in the points are raised here, before the video is read; the exact
  number of frames is known only afterwards.
  """
  size = source.info.height, source.info.width
  if values.num_points is not None:
    return lambda num_frames: points.sample_points(values, num_frames, size)
  if values.queries is not None:
    query_points = checks.read_query_points(values.queries)
    checks.check_queries_inside(query_points, None, size)
  elif values.grid is None and source.clip is not None:
    query_points = source.clip.query_points
  else:
    query_points = points.sample_points(values, 1, size)
  return lambda _: query_points
