"""`tapjax export`: writes files that run without tapjax."""

import pathlib

from absl import flags

from tapjax import export
from tapjax.cli import common_flags
from tapjax.cli.progress import ProgressBars
from tapjax.cli.progress import show
from tapjax.geometry import Resolution
from tapjax.media import track_files
from tapjax.models import registry
from tapjax.settings import replace_settings


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  common_flags.define_model(values)
  common_flags.define_checkpoint(values)
  common_flags.define_resolution(
      values, "HEIGHT,WIDTH of the frames; the preset's own without it."
  )
  common_flags.define_output(
      values, 'Folder for the files; export_NAME without it.'
  )
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
      'Number of frames of the videos that the file takes.',
      lower_bound=1,
      flag_values=values,
  )
  flags.DEFINE_bool(
      'step',
      False,
      'Export frame-by-frame tracking, for models that stream.',
      flag_values=values,
  )
  # A number of points; in other commands, --queries is a file of points.
  flags.DEFINE_string(
      'queries',
      '64',
      'Number of points; `any` for a free number, in StableHLO, for models '
      'that '
      'track each point independently.',
      flag_values=values,
  )
  flags.register_multi_flags_validator(
      ['frames', 'step'],
      lambda chosen: (chosen['frames'] is None) == chosen['step'],
      'say either --frames, for whole videos, or --step, for frame by frame',
      flag_values=values,
  )


def run(values: flags.FlagValues) -> None:
  """Writes a tracker as files that run without tapjax."""
  resolution = common_flags.parse_resolution(values.resolution)
  num_queries = _parse_count('queries', values.queries)
  if values.model is not None or values.checkpoint is None:
    _check_preset(values, resolution, num_queries)
  export.check_installed(values.format)
  name = (
      values.model or pathlib.Path(values.checkpoint or registry.DEFAULT).stem
  )
  output = pathlib.Path(values.output or f'export_{name}')
  with track_files.make_folder(output), ProgressBars() as progress:
    tracker = common_flags.load_tracker(values, resolution, progress)
    exported = export.export_tracker(
        tracker,
        output,
        format=values.format,
        num_queries=num_queries,
        num_frames=values.frames,
        weights=pathlib.Path(values.checkpoint or 'published').name,
        report=progress.update,
    )
  names = ' and '.join(path.name for path in exported.paths)
  show(f'{tracker.name}: wrote {names} to {output}')
  show(
      'largest differences from JAX: '
      + ', '.join(map(str, exported.differences))
  )


def _check_preset(
    values: flags.FlagValues,
    resolution: Resolution | None,
    num_queries: int | None,
) -> None:
  """Raises ValueError for an impossible export, before a long download."""
  preset = registry.get_preset(values.model or registry.DEFAULT)
  settings = {} if resolution is None else {'resolution': resolution}
  functions = preset.architecture.make_functions(
      replace_settings(preset.config, settings)
  )
  export.check_request(
      preset.name, functions, values.format, num_queries, values.frames
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
