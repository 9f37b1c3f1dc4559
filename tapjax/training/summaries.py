"""Numbers and pictures over steps: for TensorBoard, and as a small table."""

from collections.abc import Mapping
import csv
import os
import pathlib
from types import TracebackType

from jaxtyping import UInt8
import numpy as np
import tensorboardX

from tapjax.files import write_csv

_COLUMNS = ('step', 'name', 'value')


class Summaries:
  """Scalars and pictures over steps, in a folder that TensorBoard reads."""

  def __init__(self, directory: str | os.PathLike[str], first_step: int = 0):
    """Opens a folder; what it shows behind `first_step` is written anew."""
    self._writer = tensorboardX.SummaryWriter(
        os.fspath(directory), purge_step=first_step + 1 if first_step else None
    )

  def __enter__(self) -> 'Summaries':
    return self

  def __exit__(
      self,
      kind: type[BaseException] | None,
      error: BaseException | None,
      traceback: TracebackType | None,
  ) -> None:
    self._writer.close()

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes numbers under their names."""
    for name, value in scalars.items():
      self._writer.add_scalar(name, value, step)
    self._writer.flush()

  def write_picture(
      self, step: int, name: str, picture: UInt8[np.ndarray, 'h w 3']
  ) -> None:
    """Writes a picture under its name."""
    self._writer.add_image(name, picture, step, dataformats='HWC')
    self._writer.flush()


class Curves:
  """Numbers over steps, as a table with the columns `step,name,value`."""

  def __init__(self, path: pathlib.Path, first_step: int = 0):
    """Opens a file; what it holds behind `first_step` is written anew."""
    rows: list[list[str]] = []
    if first_step and path.is_file():
      with path.open(encoding='utf-8', newline='') as file:
        # The last row of a run that was killed may be a part of one.
        rows = [
            row
            for row in list(csv.reader(file))[1:]
            if len(row) == len(_COLUMNS) and int(row[0]) <= first_step
        ]
    write_csv(path, [_COLUMNS, *rows])
    self._path = path

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Adds numbers under their names."""
    with self._path.open('a', encoding='utf-8', newline='') as file:
      csv.writer(file, lineterminator='\n').writerows(
          (step, name, f'{value:.6g}') for name, value in scalars.items()
      )


def read_curves(path: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """Returns what `Curves` wrote: steps and values under each name."""
  curves: dict[str, list[tuple[int, float]]] = {}
  with path.open(encoding='utf-8', newline='') as file:
    for row in csv.DictReader(file):
      curve = curves.setdefault(row['name'], [])
      curve.append((int(row['step']), float(row['value'])))
  return curves
