"""Reading of every checkpoint format, detected by content, not by name."""

from collections.abc import Mapping
import os
import pathlib
from typing import Literal, NamedTuple

import numpy as np

from tapjax.checkpoints import folders
from tapjax.checkpoints import haiku_npy
from tapjax.checkpoints import native
from tapjax.checkpoints import torch_zip

_Format = Literal['haiku', 'torch', 'tapjax']
# Prefix of all names in a data-parallel PyTorch model.
_WRAPPER = 'module.'


class Checkpoint(NamedTuple):
  """Arrays of a checkpoint by their published names, and its metadata.

  Only the 'tapjax' format has metadata. Arrays may be read-only and may share
  memory.
  """

  path: pathlib.Path
  format: _Format
  arrays: Mapping[str, np.ndarray]
  metadata: Mapping[str, str]


def read_checkpoint(
    path: str | os.PathLike[str], *, section: str | None = None
) -> Checkpoint:
  """Reads a published or native checkpoint without executing its content.

  Args:
    path: of a file; or of a folder, also packed as `.tar.gz`, of which the
      newest `model-<step>.pth` is read.
    section: name of a dict in a PyTorch file, as in `read_torch_checkpoint`.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file is not a readable checkpoint.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = folders.find_newest(path)
  file_format, is_packed = _detect_format(path)
  if section is not None and file_format != 'torch':
    raise ValueError(
        f'section must be None for a {file_format} checkpoint; got {section!r}'
        f' with {path} - only PyTorch files have sections'
    )
  if file_format == 'haiku':
    return Checkpoint(path, 'haiku', haiku_npy.read_haiku_npy(path), {})
  if file_format == 'torch':
    opened = folders.open_newest(path) if is_packed else path.open('rb')
    with opened as file:
      arrays = torch_zip.read_torch_file(file, path, section=section)
    return Checkpoint(path, 'torch', _unwrap(arrays), {})
  return Checkpoint(path, 'tapjax', *native.read_native(path))


def _unwrap(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Removes the prefix of a data-parallel model, if all names have it."""
  if not all(name.startswith(_WRAPPER) for name in arrays):
    return arrays
  return {name.removeprefix(_WRAPPER): arrays[name] for name in arrays}


def _detect_format(path: pathlib.Path) -> tuple[_Format, bool]:
  """Returns the format of a file, and whether it is a packed folder."""
  try:
    with path.open('rb') as file:
      start = file.read(16)
      size = file.seek(0, os.SEEK_END)
  except FileNotFoundError:
    raise FileNotFoundError(
        f'there is no checkpoint {path} (sought as {path.absolute()}) - check'
        ' the spelling and the working folder'
    ) from None
  except OSError as error:
    raise ValueError(
        f'checkpoint {path} cannot be opened: {error.strerror}'
    ) from None
  if not size:
    raise ValueError(f'checkpoint {path} is empty - download or save it again')
  if start.startswith(haiku_npy.MAGIC):
    return 'haiku', False
  if start.startswith((torch_zip.MAGIC, torch_zip.LEGACY_MAGIC)):
    return 'torch', False
  if start.startswith(folders.MAGIC):
    return 'torch', True
  if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= size - 8:
    return 'tapjax', False
  raise ValueError(
      f'checkpoint {path} is of an unknown format: it begins with'
      f' {start!r}; known are Haiku .npy, PyTorch .pt/.pth/.ckpt (zip), folders'
      ' of these as .tar.gz and tapjax .safetensors - is it truncated, or a web'
      ' page?'
  )
