"""`tapjax models`: lists the known models."""

from absl import flags

from tapjax import tables
from tapjax.cli.progress import show
from tapjax.models import registry


def define_flags(values: flags.FlagValues) -> None:
  """Defines no flags: the command has none."""
  del values


def run(values: flags.FlagValues) -> None:
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
  show(tables.format_table(columns, rows))
  show(
      'AJ: Average Jaccard on TAP-Vid-DAVIS, query first, as published.\n'
      'Weights are downloaded on first use, or read with --checkpoint=FILE.'
  )


def _format_score(score: float | None) -> str | None:
  return None if score is None else f'{score:.1f}'
