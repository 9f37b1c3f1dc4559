"""Reading of pickles without execution.

A pickle is a program, and Python's own reader imports and calls any function
that it names. The reader here interprets the same instructions but imports
nothing: names outside of a short list become inert `Placeholder`s.

Memory is bounded by the file: lengths are checked against the remaining bytes,
arrays against their own bytes, the total of unpacked bytes against the size of
the file, and the number of instructions against a limit.
"""

from collections.abc import Callable
from collections.abc import Mapping
import io
import mmap
import os
import pathlib
import pickletools
from typing import Any, cast, IO
import warnings

import numpy as np

from tapjax.checkpoints import pickle_machine
from tapjax.checkpoints import pickled_arrays
from tapjax.checkpoints.placeholders import Placeholder

DEFAULT_MAX_BYTES = 8 << 30

# Least number of bytes for which a read of a mapped file is a view.
_LARGE = 1 << 16


def load_pickle(
    file: str | os.PathLike[str] | io.BufferedIOBase,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    origin: str | None = None,
    constructors: Mapping[str, Callable[..., Any]] | None = None,
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Returns the value of a pickle: plain values, arrays and placeholders.

  Arrays are read-only. Objects of classes that are not allowed become
  `Placeholder`s; call `refuse_placeholders` on the parts you read.

  Args:
    file: a path, or an open file, read from its current position.
    max_bytes: limit of the size of the file.
    origin: name of the file in messages; by default its path.
    constructors: additional allowed functions by dotted names.
    load_persistent: from a persistent id of the file to its value.

  Raises ValueError for a larger, truncated or malformed file.
  """
  if isinstance(file, str | os.PathLike):
    path = pathlib.Path(file)
    with path.open('rb') as stream:
      return load_pickle(
          stream,
          max_bytes=max_bytes,
          origin=origin or str(path),
          constructors=constructors,
          load_persistent=load_persistent,
      )
  origin = origin or str(getattr(file, 'name', 'the pickle'))
  bounded = _BoundedStream(file)
  if bounded.size > max_bytes:
    raise ValueError(
        f'{origin} has {bounded.size} bytes, more than the {max_bytes} that'
        ' are allowed - raise max_bytes if you trust it'
    )
  machine = pickle_machine.Machine(
      {**pickled_arrays.CONSTRUCTORS, **(constructors or {})},
      load_persistent,
      allowance=2 * bounded.size,
  )
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # Invalid escapes in damaged text.
      return machine.run(pickletools.genops(cast(IO[bytes], bounded)))
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(
        f'{origin} cannot be read as a pickle: {error} - is it truncated,'
        ' damaged or of another format?'
    ) from None


def refuse_placeholders(value: Any, origin: str, place: str) -> None:
  """Raises ValueError if `value` contains an unknown object at any depth.

  `origin`, the file, and `place`, the part of the file with `value`, are for
  the message. Containers that hold themselves are visited once.
  """
  waiting = [value]
  seen: set[int] = set()
  while waiting:
    item = waiting.pop()
    if isinstance(item, Placeholder):
      raise ValueError(
          f'{origin}: {place} holds an object of {item.name}, where only'
          ' arrays, numbers, text and containers of them were expected - was'
          ' it written by another program?'
      )
    if id(item) in seen:
      continue
    if isinstance(item, dict):
      waiting.extend(item.keys())
      waiting.extend(item.values())
    elif isinstance(item, list | tuple):
      waiting.extend(item)
    elif isinstance(item, np.ndarray) and item.dtype.hasobject:
      waiting.extend(item.flat)
    else:
      continue
    seen.add(id(item))


def map_pickle(path: str | os.PathLike[str], *, max_bytes: int) -> Any:
  """As `load_pickle`, but large arrays are mapped from the file.

  Memory is needed only for the arrays that are read. The file must not change
  while its arrays are in use.
  """
  path = pathlib.Path(path)
  if not path.stat().st_size:
    raise ValueError(f'{path} must be a pickle; it is empty - copy it again?')
  with path.open('rb') as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  return load_pickle(_MappedFile(mapped), max_bytes=max_bytes, origin=str(path))


class _MappedFile(io.BufferedIOBase):
  """A mapped file whose large reads are views without a copy."""

  def __init__(self, mapped: mmap.mmap):
    self._mapped = mapped
    self._view = memoryview(mapped)

  def read(self, count: int | None = -1, /) -> Any:
    """Reads `count` bytes; a large read returns a view of the file."""
    if count is None or count < _LARGE:
      return self._mapped.read(count)
    start = self._mapped.tell()
    self._mapped.seek(start + count)
    return self._view[start : start + count]

  def readline(self, size: int | None = -1, /) -> bytes:
    """Reads to the next line break or the end."""
    del size
    return self._mapped.readline()

  def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
    """Moves to a position and returns it."""
    self._mapped.seek(offset, cast(Any, whence))
    return self._mapped.tell()

  def tell(self) -> int:
    """Returns the position of the next byte."""
    return self._mapped.tell()


class _BoundedStream:
  """A file that raises ValueError for reads past its end."""

  def __init__(self, file: io.BufferedIOBase):
    start = file.tell()
    self._file = file
    self._position = 0
    self.size = file.seek(0, os.SEEK_END) - start
    file.seek(start)

  def read(self, count: int) -> bytes | memoryview:
    """Reads `count` bytes; ValueError if fewer remain."""
    excess = self._position + count - self.size
    if count < 0 or excess > 0:
      raise ValueError(f'it ends {excess} bytes too early')
    self._position += count
    return self._file.read(count)

  def readline(self) -> bytes:
    """Reads to the next line break or the end."""
    line = self._file.readline()
    self._position += len(line)
    return line

  def tell(self) -> int:
    """Returns the number of bytes read since the first instruction."""
    return self._position
