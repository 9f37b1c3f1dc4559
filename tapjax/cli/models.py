"""`tapjax models`: lists the known models."""

from absl import flags

from tapjax.cli.progress import show
from tapjax.models import registry


def define_flags(values: flags.FlagValues) -> None:
  """Defines no flags: the command has none."""
  del values


def run(values: flags.FlagValues) -> None:
  """Prints a table of all presets."""
  del values
  columns = ('model', 'parameters', 'size', 'streams', 'AJ DAVIS', 'licence')
  rows = [columns] + [
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
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for row in rows:
    cells = zip(row, widths, strict=True)
    show('  '.join(cell.ljust(width) for cell, width in cells).rstrip())
  show(
      'AJ: Average Jaccard on TAP-Vid-DAVIS, query first, as published.\n'
      'Weights are downloaded on first use, or read with --checkpoint=FILE.'
  )


def _format_score(score: float | None) -> str:
  return '-' if score is None else f'{score:.1f}'
