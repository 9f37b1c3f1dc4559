"""`tapjax convert`: rewrites a weight file."""

from absl import flags

from tapjax import pretrained
from tapjax.cli import common_flags
from tapjax.cli.progress import show


def define_flags(values: flags.FlagValues) -> None:
  """Defines the flags of the command."""
  common_flags.define_checkpoint(values, 'Weight file to read.')
  common_flags.define_output(
      values, 'File to write: .safetensors, or .npy as published.'
  )
  common_flags.define_model(values, 'Preset, if the arrays do not identify it.')


def run(values: flags.FlagValues) -> None:
  """Rewrites a weight file in another format."""
  if not (values.checkpoint and values.output):
    raise flags.Error(
        '--checkpoint must name the file to read and --output that to write'
    )
  tracker = pretrained.load(values.model, checkpoint=values.checkpoint)
  tracker.save(values.output)
  show(f'{tracker.name}: wrote {values.output}')
