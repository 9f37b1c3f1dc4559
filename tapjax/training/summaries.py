"""TensorBoard files, written without TensorFlow."""

from collections.abc import Mapping
import os
from types import TracebackType

from jaxtyping import UInt8
import numpy as np
import tensorboardX


class Summaries:
  """Scalars and pictures over steps, in a folder that TensorBoard reads."""

  def __init__(self, directory: str | os.PathLike[str], first_step: int = 0):
    """Opens a folder; what it shows from `first_step` on is written anew."""
    self._writer = tensorboardX.SummaryWriter(
        os.fspath(directory), purge_step=first_step or None
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
