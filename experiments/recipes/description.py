"""Header of a training log: model, data, devices and parameters."""

from collections.abc import Mapping
import math

from tapjax.models.contract import Params
from tapjax.tables import format_table

# Modules with fewer parameters are counted together.
_FEWEST = 100_000


def describe_run(name: str, params: Params, data: str, hardware: str) -> str:
  """Returns the header of a training log.

  Args:
    name: name of the model.
    params: trained parameters.
    data: description of the training data.
    hardware: description of the devices.
  """
  counts = count_parameters(params)
  total = sum(counts.values())
  return '\n'.join(
      [
          f'model: {name}',
          f'data: {data}',
          f'devices: {hardware}',
          _tabulate_modules(counts, total),
          f'total: {total:,} parameters ({total / 1e6:.2f} M)\n',
      ]
  )


def count_parameters(params: Params) -> dict[str, int]:
  """Returns numbers of trained parameters by module."""
  return {
      module: sum(math.prod(array.shape) for array in arrays.values())
      for module, arrays in params.params.items()
  }


def _tabulate_modules(counts: Mapping[str, int], total: int) -> str:
  """Returns a table of the large modules and the sum of the others."""
  large = {name: n for name, n in counts.items() if n > _FEWEST}
  rows: list[tuple[str, str]] = [
      (name, f'{number:,}') for name, number in large.items()
  ]
  if others := len(counts) - len(large):
    rest = total - sum(large.values())
    rows.append((f'{others} modules of up to {_FEWEST:,}', f'{rest:,}'))
  return format_table(('module', 'parameters'), rows)
