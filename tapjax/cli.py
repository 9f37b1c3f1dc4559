"""The `tapjax` command: flags in, library calls out."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import pathlib
import sys
from typing import Any, NamedTuple, NoReturn
import warnings

from absl import flags
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np
import tqdm

from tapjax import inputs
from tapjax import pretrained
from tapjax import results
from tapjax import tracking
from tapjax import video_io
from tapjax.data import demo
from tapjax.geometry import Resolution
from tapjax.geometry import sample_grid_points
from tapjax.geometry import sample_random_points
from tapjax.models import registry

_DEFAULT_GRID = 16


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
  flags.DEFINE_bool('help', False, 'Show this help.', flag_values=values)
  command.define_flags(values)
  try:
    rest = values([f'tapjax {name}', *argv[2:]])[1:]
  except flags.Error as error:
    _complain(str(error))
    return 2
  if values.help:
    _show(f'{command.summary}\n{values.main_module_help() or values}')
    return 0
  if rest:
    _complain(f'unexpected argument {rest[0]!r}; flags begin with --')
    return 2
  try:
    with _show_warnings():
      command.run(values)
  except flags.Error as error:
    _complain(str(error))
    return 2
  except (ValueError, OSError) as error:
    _complain(str(error))
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
      'model', None, 'Preset; see `tapjax models`.', flag_values=values
  )
  flags.DEFINE_string(
      'checkpoint',
      None,
      'Weight file; the published weights without it.',
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
  flags.DEFINE_integer('seed', 0, 'Of random points.', flag_values=values)
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
  flags.register_multi_flags_validator(
      ['queries', 'grid', 'num_points'],
      lambda chosen: sum(value is not None for value in chosen.values()) <= 1,
      'Choose points by one of --queries, --grid and --num_points.',
      flag_values=values,
  )


def _track(values: flags.FlagValues) -> None:
  """Tracks points through a video file and writes what came out."""
  resolution = _parse_resolution(values.resolution)
  if values.video is not None:
    with video_io.open_video(values.video) as reader:
      frame_rate = reader.info.frame_rate
  tracker = pretrained.load(
      values.model, checkpoint=values.checkpoint, resolution=resolution
  )
  clip = None
  if values.video is None:
    clip = demo.make_demo_clip()
    frame_rate = demo.FRAME_RATE
    output = pathlib.Path(values.output or 'tracks_demo')
  else:
    stem = pathlib.Path(values.video).stem
    output = pathlib.Path(values.output or f'tracks_{stem}')

  with results.make_folder(output), _Progress() as progress:
    with _open_frames(values.video, clip) as (blocks, about):
      video = tracker.prepare(progress.follow('read', blocks, about))
    if clip is not None and not _chooses_points(values):
      query_points = clip.query_points
    else:
      query_points = _choose_points(values, len(video.frames), video.original)
    tracks = tracker.track_video(video, query_points, report=progress.report)
    results.write_arrays(
        output / 'tracks.npz', tracks, query_points, frame_rate, tracker.name
    )
    results.write_table(output / 'tracks.csv', tracks)
    with _open_frames(values.video, clip) as (blocks, _):
      results.write_overlay(
          output / 'tracks.mp4',
          progress.follow('draw', blocks, len(video.frames)),
          tracks,
          frame_rate,
      )
  _show(
      f'{tracker.name}: {len(query_points)} points through '
      f'{len(video.frames)} frames; wrote tracks.npz, tracks.csv and '
      f'tracks.mp4 to {output}'
  )
  if clip is not None and query_points is clip.query_points:
    _show(demo.describe_error(clip, tracks))


def _define_models_flags(values: flags.FlagValues) -> None:
  del values  # None but help.


def _list_models(values: flags.FlagValues) -> None:
  """Prints a table of all presets."""
  del values
  columns = ('model', 'parameters', 'size', 'streams', 'AJ DAVIS', 'licence')
  rows = [columns] + [
      (
          model.name,
          f'{model.num_parameters / 1e6:.1f} M',
          '{}x{}'.format(*model.resolution),
          'yes' if model.streams else 'no',
          f'{model.scores["tapvid_davis"]:.1f}',
          model.licence,
      )
      for model in registry.list_models()
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = zip(row, widths, strict=True)
    _show('  '.join(cell.ljust(width) for cell, width in cells).rstrip())
  _show(
      'AJ: Average Jaccard on TAP-Vid-DAVIS, query first, as published.\n'
      'Weights are downloaded on first use, or read with --checkpoint=FILE.'
  )


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
  for name in ('checkpoint', 'output'):
    flags.mark_flag_as_required(name, flag_values=values)


def _convert(values: flags.FlagValues) -> None:
  """Rewrites a weight file in another format."""
  tracker = pretrained.load(values.model, checkpoint=values.checkpoint)
  tracker.save(values.output)
  _show(f'{tracker.name}: wrote {values.output}')


_COMMANDS = {
    'track': _Command(
        _define_track_flags, _track, 'Track points through a video.'
    ),
    'models': _Command(
        _define_models_flags, _list_models, 'List the known models.'
    ),
    'convert': _Command(
        _define_convert_flags, _convert, 'Rewrite a weight file.'
    ),
}


class _Progress(contextlib.ExitStack):
  """Progress bars on stderr, one for each stage of the work."""

  def __init__(self):
    super().__init__()
    self._bar: tqdm.tqdm | None = None
    self._stage = ''
    self.callback(self._close)

  def report(self, stage: str, done: int, total: int | None) -> None:
    """Shows how much of a stage is done."""
    if self._bar is None or stage != self._stage:
      self._close()
      self._stage = stage
      self._bar = tqdm.tqdm(desc=stage, total=total, file=sys.stderr)
    self._bar.update(done - self._bar.n)

  def follow(
      self,
      stage: str,
      blocks: Iterator[UInt8[np.ndarray, 't h w 3']],
      total: int | None,
  ) -> Iterator[UInt8[np.ndarray, 't h w 3']]:
    """Yields blocks of frames and shows how many went by."""
    done = 0
    self.report(stage, done, total)
    for block in blocks:
      yield block
      done += len(block)
      self.report(stage, done, total)

  def _close(self) -> None:
    if self._bar is not None:
      self._bar.close()
    self._bar = None


def _choose_points(
    values: flags.FlagValues, num_frames: int, resolution: Resolution
) -> Float[np.ndarray, 'n 3']:
  """Returns the query points that the flags ask for."""
  if values.queries is not None:
    return inputs.read_query_points(values.queries)
  if values.num_points is not None:
    return sample_random_points(
        np.random.default_rng(values.seed),
        num_frames,
        resolution,
        values.num_points,
    )
  return sample_grid_points(resolution, values.grid or _DEFAULT_GRID)


def _chooses_points(values: flags.FlagValues) -> bool:
  chosen = (values.queries, values.grid, values.num_points)
  return any(choice is not None for choice in chosen)


@contextlib.contextmanager
def _open_frames(
    path: str | None, clip: demo.DemoClip | None
) -> Iterator[tuple[Iterator[UInt8[np.ndarray, 't h w 3']], int | None]]:
  """Yields a video in blocks, and about how many frames it has."""
  if clip is not None:
    yield tracking.split_frames(clip.frames), len(clip.frames)
    return
  assert path is not None
  with video_io.open_video(path) as reader:
    yield reader.read_blocks(tracking.FRAME_CHUNK), reader.info.num_frames


def _parse_resolution(sides: list[str] | None) -> Resolution | None:
  if sides is None:
    return None
  try:
    return inputs.check_resolution([int(side) for side in sides])
  except ValueError:
    raise flags.IllegalFlagValueError(
        f'--resolution must be HEIGHT,WIDTH; got {",".join(sides)}'
    ) from None


def _describe_usage() -> str:
  lines = ['Tracks any point through a video.', '']
  lines += [
      f'  tapjax {name:8} {command.summary}'
      for name, command in _COMMANDS.items()
  ]
  lines += ['', 'tapjax COMMAND --help lists the flags of a command.']
  return '\n'.join(lines)


@contextlib.contextmanager
def _show_warnings() -> Iterator[None]:
  """Shows warnings as one line each."""
  with warnings.catch_warnings():

    def show(message: Warning | str, *args: Any, **kwargs: Any) -> None:
      del args, kwargs  # Where it was raised is no help to a user.
      sys.stderr.write(f'tapjax: warning: {_join_lines(str(message))}\n')

    warnings.showwarning = show
    yield


def _complain(message: str) -> None:
  sys.stderr.write(f'tapjax: error: {_join_lines(message)}\n')


def _join_lines(text: str) -> str:
  return '; '.join(line.strip() for line in text.splitlines() if line.strip())


def _show(text: str) -> None:
  sys.stdout.write(text + '\n')
