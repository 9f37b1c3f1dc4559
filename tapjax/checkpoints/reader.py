"""One door to every checkpoint format: the content decides, not the name."""

from collections.abc import Mapping
import os
import pathlib
from typing import Literal, NamedTuple

import numpy as np

from tapjax.checkpoints import haiku_npy
from tapjax.checkpoints import native
from tapjax.checkpoints import torch_zip

_Format = Literal['haiku', 'torch', 'tapjax']


class Checkpoint(NamedTuple):
  """The arrays of a file by the names they have there, and its metadata.

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
  """Reads a published or own checkpoint without executing what it holds.

  `section` chooses among the dicts of a PyTorch file, as in
  `read_torch_checkpoint`. Raises FileNotFoundError if there is no such file and
  ValueError if it is not a readable checkpoint.
  """
  path = pathlib.Path(path)
  file_format = _detect_format(path)
  if section is not None and file_format != 'torch':
    raise ValueError(
        f'section must be None for a {file_format} checkpoint; got {section!r}'
        f' with {path} - only PyTorch files have sections'
    )
  if file_format == 'haiku':
    return Checkpoint(path, 'haiku', haiku_npy.read_haiku_npy(path), {})
  if file_format == 'torch':
    arrays = torch_zip.read_torch_checkpoint(path, section=section)
    return Checkpoint(path, 'torch', arrays, {})
  return Checkpoint(path, 'tapjax', *native.read_native(path))


def _detect_format(path: pathlib.Path) -> _Format:
  if path.is_dir():
    raise ValueError(
        f'checkpoint must be a file; {path} is a folder - name a file in it?'
    )
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
    return 'haiku'
  if start.startswith((torch_zip.MAGIC, torch_zip.LEGACY_MAGIC)):
    return 'torch'
  if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') <= size - 8:
    return 'tapjax'
  raise ValueError(
      f'checkpoint {path} is of an unknown format: it begins with'
      f' {start!r}; known are Haiku .npy, PyTorch .pt/.pth/.ckpt (zip) and'
      ' tapjax .safetensors - is it truncated, or a web page?'
  )
