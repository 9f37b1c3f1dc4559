"""Published Haiku checkpoints: a pickled dict inside a NumPy `.npy` file.

The dict holds `params` and `state`, each `{module path: {parameter: array}}`,
and may hold other entries. Arrays are addressed here by flat keys,
`'<params|state>|<module path>|<parameter>'`.
"""

from collections.abc import Mapping
import io
import os
import pathlib
import re
from typing import Any

import ml_dtypes
import numpy as np

from tapjax import files
from tapjax.checkpoints import pickles
from tapjax.checkpoints.pickled_arrays import describe

MAGIC = b'\x93NUMPY'
COLLECTIONS = ('params', 'state')
_LONGEST_HEADER = 1024
_OBJECT_HEADER = re.compile(
    rb"\{'descr': '\|O', 'fortran_order': (True|False), 'shape': \(\), \}\s*"
)


def read_haiku_npy(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns all arrays of `params` and `state`; other entries are ignored.

  No content of the file is executed. Raises ValueError if the file is damaged,
  or if an entry of a module is not an array.
  """
  path = pathlib.Path(path)
  root = read_npy_object(path)
  if not isinstance(root, dict):
    raise ValueError(
        f'{path} must hold a dict with params and state; it holds a value'
        f' {describe(root)} - is it the checkpoint of another program?'
    )
  arrays: dict[str, np.ndarray] = {}
  for collection in COLLECTIONS:
    if collection not in root:
      raise ValueError(
          f'{path} must have the entries params and state; it has no'
          f' {collection} among its {len(root)} - is it a Haiku checkpoint?'
      )
    modules = _check_mapping(root[collection], path, collection)
    for module, parameters in modules.items():
      place = f'{collection}|{module}'
      for name, value in _check_mapping(parameters, path, place).items():
        arrays[f'{place}|{name}'] = _check_array(value, path, f'{place}|{name}')
  return arrays


def read_npy_object(
    path: str | os.PathLike[str], *, max_bytes: int = pickles.DEFAULT_MAX_BYTES
) -> Any:
  """Returns the pickled object of a `.npy` file.

  No content of the file is executed; unknown objects become placeholders.
  """
  path = pathlib.Path(path)
  with path.open('rb') as file:
    _read_header(file, path)
    root = pickles.load_pickle(file, max_bytes=max_bytes, origin=str(path))
  if isinstance(root, np.ndarray) and root.shape == ():
    return root.item()
  return root


def write_haiku_npy(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]
) -> None:
  """Writes arrays with flat keys in the published layout, atomically.

  The official programs read the file with `np.load(path, allow_pickle=True)`.
  Raises ValueError for keys of another form.
  """
  root: dict[str, dict[str, dict[str, np.ndarray]]] = {
      collection: {} for collection in COLLECTIONS
  }
  for key, array in arrays.items():
    parts = key.split('|')
    if len(parts) != 3 or parts[0] not in COLLECTIONS:
      raise ValueError(
          'arrays must have keys "<params|state>|<module path>|<parameter>";'
          f' got {key!r} - invert them to the published names first?'
      )
    collection, module, name = parts
    root[collection].setdefault(module, {})[name] = np.asarray(array)
  holder = np.empty((), object)
  holder[()] = root
  with files.write_atomically(pathlib.Path(path)) as file:
    np.save(file, holder, allow_pickle=True)


def _read_header(file: io.BufferedIOBase, path: pathlib.Path) -> None:
  start = file.read(8)
  if len(start) < 8 or not start.startswith(MAGIC) or start[6] not in (1, 2, 3):
    raise ValueError(
        f'{path} must be a NumPy .npy file; its first bytes are {start!r}'
    )
  length = int.from_bytes(file.read(2 if start[6] == 1 else 4), 'little')
  header = file.read(min(length, _LONGEST_HEADER))
  if len(header) < length or not _OBJECT_HEADER.fullmatch(header):
    raise ValueError(
        f'{path} must be a .npy file that holds one pickled object; its header'
        f' is {header[:80]!r} - is it a plain array, or truncated?'
    )


def _check_mapping(
    value: Any, path: pathlib.Path, place: str
) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise ValueError(
        f'{path}: {place} must be a dict; got a value {describe(value)}'
    )
  for key in value:
    if not isinstance(key, str) or '|' in key:
      raise ValueError(
          f'{path}: names in {place} must be text without "|"; got one'
          f' {describe(key)}'
      )
  return value


def _check_array(value: Any, path: pathlib.Path, place: str) -> np.ndarray:
  if isinstance(value, np.ndarray | np.generic):
    array = np.asarray(value)
    if array.dtype.kind in 'biufc' or array.dtype == ml_dtypes.bfloat16:
      return array
  raise ValueError(
      f'{path}: {place} must be an array of numbers; got a value'
      f' {describe(value)}'
  )
