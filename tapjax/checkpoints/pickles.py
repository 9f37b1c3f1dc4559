"""Reads pickles without running them.

A pickle is a program, and Python's own reader imports and calls whatever the
program names. The reader here follows the same instructions but imports
nothing: names that are not on a short list become inert `Placeholder`s.

Memory is bounded by the file: lengths are checked against the bytes that are
left, arrays against the bytes they were given, the total of what is unpacked
against the size of the file, and the program may not run for ever.
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

# From here on bytes of a mapped file stay in the file until they are looked at.
_LARGE = 1 << 16


def load_pickle(
    file: str | os.PathLike[str] | io.BufferedIOBase,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    origin: str | None = None,
    constructors: Mapping[str, Callable[..., Any]] | None = None,
    load_persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Returns what a pickle holds: plain values, NumPy arrays and placeholders.

  An open file is read from where it stands. Arrays are read-only. Objects of
  classes that are not allowed become `Placeholder`s; call `refuse_placeholders`
  on the parts you read. `constructors` adds dotted names to the allowed ones,
  and `load_persistent` answers the file's persistent ids.

  Raises ValueError, naming `origin` (default: the path), for a file of more
  than `max_bytes` and for one that is truncated, malformed or out of bounds.
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
      warnings.simplefilter('ignore')  # Of odd escapes in damaged text.
      return machine.run(pickletools.genops(cast(IO[bytes], bounded)))
  except (ValueError, TypeError, OverflowError) as error:
    raise ValueError(
        f'{origin} cannot be read as a pickle: {error} - is it truncated,'
        ' damaged or of another format?'
    ) from None


def refuse_placeholders(value: Any, origin: str, place: str) -> None:
  """Raises a ValueError if an unknown object is anywhere inside `value`.

  `origin` is the file and `place` the part of it that `value` is; both are for
  the message. Containers that hold themselves are walked once.
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
  """As `load_pickle`, but large arrays stay on the disk until they are read.

  A data set of many videos needs the memory of those that are looked at. The
  file must not change while its arrays are in use.
  """
  path = pathlib.Path(path)
  if not path.stat().st_size:
    raise ValueError(f'{path} must be a pickle; it is empty - copy it again?')
  with path.open('rb') as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  return load_pickle(_MappedFile(mapped), max_bytes=max_bytes, origin=str(path))


class _MappedFile(io.BufferedIOBase):
  """A mapped file whose large reads are views and not copies."""

  def __init__(self, mapped: mmap.mmap):
    self._mapped = mapped
    self._view = memoryview(mapped)

  def read(self, count: int | None = -1, /) -> Any:
    """Reads `count` bytes; many of them stay where they are."""
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
    """Moves to a place and returns it."""
    self._mapped.seek(offset, cast(Any, whence))
    return self._mapped.tell()

  def tell(self) -> int:
    """Returns the place of the next byte."""
    return self._mapped.tell()


class _BoundedStream:
  """A file that refuses to read past its end, whatever length is asked for."""

  def __init__(self, file: io.BufferedIOBase):
    start = file.tell()
    self._file = file
    self._position = 0
    self.size = file.seek(0, os.SEEK_END) - start
    file.seek(start)

  def read(self, count: int) -> bytes | memoryview:
    """Reads `count` bytes, fewer only if the file shrank meanwhile."""
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
    """Bytes from the first instruction to here."""
    return self._position
