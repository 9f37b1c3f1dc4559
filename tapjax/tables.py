"""Text tables with fitted column widths and right-aligned numbers."""

from collections.abc import Iterable
from collections.abc import Sequence
import re
import sys
from typing import Literal

import tabulate
import tqdm

# A dash, or digits with a unit: '-', '62.1', '3,500', '23%', '31.1 M'.
_NUMBER = re.compile(r'-|[-+]?\d[\d.,]*(e[-+]\d+)?( ?[%A-Za-z]+)?')
_FORMATS = {'text': 'plain', 'markdown': 'pipe'}


def format_table(
    columns: Sequence[str] | None,
    rows: Iterable[Sequence[str | int | None]],
    style: Literal['text', 'markdown'] = 'text',
) -> str:
  """Returns a table with a header line and one line for every row.

  Without `columns` there is no header. None is shown as a dash. Columns of
  numbers, with or without a unit, are right-aligned. Lines have no trailing
  spaces. Raises ValueError for a row with another number of cells than
  `columns`.
  """
  cells = [['-' if x is None else str(x) for x in row] for row in rows]
  for row in cells:
    if columns is not None and len(row) != len(columns):
      raise ValueError(
          f'rows must have {len(columns)} cells as columns has names; got {row}'
      )
  sides = [
      'right' if all(map(_NUMBER.fullmatch, column)) else 'left'
      for column in zip(*cells, strict=True)
  ]
  # As a tabulate header, plain-text names make columns two letters wider.
  named = columns is not None and style == 'text'
  text = tabulate.tabulate(
      [columns, *cells] if named else cells,
      () if named or columns is None else columns,
      tablefmt=_FORMATS[style],
      colalign=sides,
      disable_numparse=True,
      preserve_whitespace=True,
  )
  return '\n'.join(line.rstrip() for line in text.splitlines())


def write_table(
    columns: Sequence[str] | None,
    rows: Iterable[Sequence[str | int | None]],
    num_rows: int | None = None,
) -> None:
  """Writes a table to stdout after its last row is computed.

  If computing a row fails or is interrupted, the rows before it are written.
  With `num_rows`, a progress bar on stderr counts the rows.
  """
  made = []
  disable = num_rows is None
  bar = tqdm.tqdm(rows, total=num_rows, unit='row', disable=disable)
  try:
    for row in bar:
      made.append(row)  # noqa: PERF402 - finished rows survive an error.
  finally:
    if made:
      sys.stdout.write(format_table(columns, made) + '\n')
