"""Our own checkpoint format: `.safetensors` with settings as metadata."""

from collections.abc import Mapping
import os
import pathlib
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from tapjax import files


class NativeContents(NamedTuple):
  """Arrays and metadata of a native checkpoint."""

  arrays: dict[str, np.ndarray]
  metadata: dict[str, str]


def write_checkpoint(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> None:
  """Writes arrays with their dtypes, and metadata, atomically.

  Raises ValueError for an array that does not hold numbers.
  """
  plain = {}
  for name, array in arrays.items():
    if array.dtype.kind not in 'biuf' and array.dtype.name != 'bfloat16':
      raise ValueError(
          f'arrays[{name!r}] must hold numbers; got dtype {array.dtype}'
      )
    # The library writes memory as it is, whatever its order.
    plain[name] = np.asarray(array, array.dtype.newbyteorder('<'), order='C')
  content = safetensors.numpy.save(plain, dict(metadata))
  with files.write_atomically(pathlib.Path(path)) as file:
    file.write(content)


def read_native(path: str | os.PathLike[str]) -> NativeContents:
  """Returns the arrays and the metadata of a `.safetensors` file.

  Raises ValueError for a file that is truncated, damaged or of another format.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'there is no checkpoint {path}')
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      metadata = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except (
      safetensors.SafetensorError,
      AttributeError,  # A dtype without a counterpart in NumPy.
      OSError,
      TypeError,
      ValueError,
  ) as error:
    raise ValueError(
        f'{path} cannot be read as a safetensors file: {error} - is it'
        ' truncated, or of another format?'
    ) from None
  return NativeContents(arrays, metadata)
