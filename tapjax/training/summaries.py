"""Scalars and pictures over steps, for TensorBoard and as a .csv table."""

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
  """Writer of scalars and pictures to a TensorBoard folder."""

  def __init__(self, directory: str | os.PathLike[str], first_step: int = 0):
    """Opens a folder; its entries after `first_step` are superseded."""
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
    """Writes scalars by name."""
    for name, value in scalars.items():
      self._writer.add_scalar(name, value, step)
    self._writer.flush()

  def write_picture(
      self, step: int, name: str, picture: UInt8[np.ndarray, 'h w 3']
  ) -> None:
    """Writes a picture by name."""
    self._writer.add_image(name, picture, step, dataformats='HWC')
    self._writer.flush()


class Curves:
  """Writer of scalars to a .csv table with columns `step,name,value`."""

  def __init__(self, path: pathlib.Path, first_step: int = 0):
    """Opens a file; removes its rows after `first_step`."""
    rows: list[list[str]] = []
    if first_step and path.is_file():
      with path.open(encoding='utf-8', newline='') as file:
        # The last row of a killed run may be incomplete.
        rows = [
            row
            for row in list(csv.reader(file))[1:]
            if len(row) == len(_COLUMNS) and int(row[0]) <= first_step
        ]
    write_csv(path, [_COLUMNS, *rows])
    self._path = path

  def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends scalars by name."""
    with self._path.open('a', encoding='utf-8', newline='') as file:
      csv.writer(file, lineterminator='\n').writerows(
          (step, name, f'{value:.6g}') for name, value in scalars.items()
      )


def read_curves(path: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """Reads a table of `Curves`: (step, value) pairs by name."""
  curves: dict[str, list[tuple[int, float]]] = {}
  with path.open(encoding='utf-8', newline='') as file:
    for row in csv.DictReader(file):
      curve = curves.setdefault(row['name'], [])
      curve.append((int(row['step']), float(row['value'])))
  return curves
