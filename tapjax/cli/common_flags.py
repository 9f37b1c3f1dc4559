"""Flags shared by several commands, and the parsing of their values."""

from collections.abc import Sequence
from typing import Any

from absl import flags
from jaxtyping import Float
import numpy as np

from tapjax import pretrained
from tapjax.cli.progress import ProgressBars
from tapjax.geometry import Resolution
from tapjax.models import registry
from tapjax.settings import parse_value
from tapjax.tracking import checks

PRESET_HELP = f'Preset; see `tapjax models`; {registry.DEFAULT} without it.'
WEIGHTS_HELP = "Weight file; the preset's own weights without it."


def define_video(values: flags.FlagValues, text: str = 'Video file.') -> None:
  """Defines --video."""
  flags.DEFINE_string('video', None, text, flag_values=values)


def define_max_memory(values: flags.FlagValues) -> None:
  """Defines `--max_memory`."""
  flags.DEFINE_string(
      'max_memory',
      None,
      'Memory limit of the work, such as 4GB, besides the program itself (half '
      'a gigabyte on CPUs); longer videos are tracked in windows and stored on '
      'disk.',
      flag_values=values,
  )


def parse_max_memory(values: flags.FlagValues) -> int | None:
  """Returns the bytes of `--max_memory`; None without it."""
  if values.max_memory is None:
    return None
  return checks.check_memory(values.max_memory)


def define_output(values: flags.FlagValues, text: str) -> None:
  """Defines --output."""
  flags.DEFINE_string('output', None, text, flag_values=values)


def define_model(values: flags.FlagValues, text: str = PRESET_HELP) -> None:
  """Defines --model."""
  flags.DEFINE_string('model', None, text, flag_values=values)


def define_checkpoint(
    values: flags.FlagValues, text: str = WEIGHTS_HELP
) -> None:
  """Defines --checkpoint."""
  flags.DEFINE_string('checkpoint', None, text, flag_values=values)


def define_resolution(
    values: flags.FlagValues,
    text: str = 'HEIGHT,WIDTH at which the network sees the video.',
) -> None:
  """Defines --resolution; `parse_resolution` reads its value."""
  flags.DEFINE_list('resolution', None, text, flag_values=values)


def define_threshold(values: flags.FlagValues) -> None:
  """Defines --threshold."""
  flags.DEFINE_float(
      'threshold',
      None,
      'A point is visible where its confidence, 0 to 1, is above this; the '
      "preset's own without it.",
      lower_bound=0,
      upper_bound=0.999999,
      flag_values=values,
  )


def define_num_points(
    values: flags.FlagValues, default: int | None, text: str
) -> None:
  """Defines --num_points."""
  flags.DEFINE_integer(
      'num_points', default, text, lower_bound=1, flag_values=values
  )


def define_frame(values: flags.FlagValues, text: str) -> None:
  """Defines --frame; `check_frame` compares it with the end of the video."""
  flags.DEFINE_integer('frame', 0, text, lower_bound=0, flag_values=values)


def allow_one(
    values: flags.FlagValues, names: Sequence[str], message: str
) -> None:
  """Registers an error for more than one of the flags."""
  flags.register_multi_flags_validator(
      names,
      lambda chosen: sum(value is not None for value in chosen.values()) <= 1,
      message,
      flag_values=values,
  )


def load_tracker(
    values: flags.FlagValues,
    resolution: Resolution | None,
    progress: ProgressBars,
) -> pretrained.Tracker:
  """Loads the tracker named by --model and --checkpoint."""
  with progress.stage('load'):
    return pretrained.load(
        values.model, checkpoint=values.checkpoint, resolution=resolution
    )


def check_frame(frame: int, num_frames: int) -> None:
  """Raises ValueError if --frame lies after the end of the video."""
  if frame >= num_frames:
    raise ValueError(
        f'--frame must be one of the {num_frames} frames, 0 to '
        f'{num_frames - 1}; got {frame}'
    )


def parse_resolution(sides: list[str] | None) -> Resolution | None:
  """Returns (height, width), or None without --resolution."""
  if sides is None:
    return None
  try:
    return checks.check_resolution([int(side) for side in sides])
  except ValueError:
    raise flags.IllegalFlagValueError(
        '--resolution must be HEIGHT,WIDTH, two positive integers; got '
        f'{",".join(sides)!r}'
    ) from None


def parse_numbers(name: str, texts: list[str]) -> Float[np.ndarray, '_']:
  """Parses a list flag as finite numbers."""
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


def parse_settings(changes: list[str]) -> dict[str, Any]:
  """Parses NAME=VALUE settings; values are Python literals or strings."""
  settings = {}
  for change in changes:
    name, equals, text = change.partition('=')
    if not equals:
      raise flags.IllegalFlagValueError(
          f'--set must be NAME=VALUE; got {change!r}'
      )
    settings[name] = parse_value(text)
  return settings
