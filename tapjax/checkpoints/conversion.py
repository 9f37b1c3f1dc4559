"""Strict conversion between published arrays and ours, in both directions."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import fnmatch
from typing import NamedTuple

import numpy as np

_LONGEST_LIST = 8


class CheckpointMismatchError(ValueError):
  """The arrays of a checkpoint do not match those of the model."""


class Source(NamedTuple):
  """Location and layout of one of our arrays in a published file.

  Attributes:
    name: of the published array.
    axes: transposition from the published order of axes to ours, as in
      `np.transpose`, without the leading axes; None keeps the order.
    leading: number of axes of size one that the published array has first.
  """

  name: str
  axes: tuple[int, ...] | None = None
  leading: int = 0


def convert_arrays(
    arrays: Mapping[str, np.ndarray],
    sources: Mapping[str, Source],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    ignored: Sequence[str] = (),
    origin: str,
) -> dict[str, np.ndarray]:
  """Returns our arrays, each from exactly one published array.

  Floating-point numbers of any width become float32; integers and booleans
  keep their type. Results are copies.

  Args:
    arrays: published arrays by name.
    sources: by the names of our arrays.
    shapes: of our arrays, with the names of `sources`.
    ignored: shell patterns of published arrays without a source.
    origin: name of the file for messages.

  Raises:
    CheckpointMismatchError: arrays are missing, unexpected or of another shape.
    ValueError: an array holds NaN or infinity, or no real numbers.
  """
  _check_sources(sources, shapes)
  wanted = {
      source.name: _get_published_shape(shapes[ours], source)
      for ours, source in sources.items()
  }
  missing = [name for name in wanted if name not in arrays]
  unexpected = [
      name
      for name in arrays
      if name not in wanted and not is_ignored(name, ignored)
  ]
  reshaped = [
      f'{name}: expected {shape}, got {arrays[name].shape}'
      for name, shape in wanted.items()
      if name in arrays and arrays[name].shape != shape
  ]
  if missing or unexpected or reshaped:
    raise CheckpointMismatchError(
        f'{origin} does not fit the model, which needs {len(wanted)} arrays;'
        f' the file has {len(arrays)}\n'
        + _list_names('missing', missing)
        + _list_names('unexpected', unexpected)
        + _list_names('of another shape', reshaped)
        + 'Is this the checkpoint of another model or preset?'
    )
  converted = {
      ours: _convert(arrays[source.name], source, origin)
      for ours, source in sources.items()
  }
  damaged = [
      sources[ours].name
      for ours, array in converted.items()
      if not np.isfinite(array).all()
  ]
  if damaged:
    raise ValueError(
        f'{origin} must hold finite numbers within float32; got NaN or'
        f' infinity in {len(damaged)} arrays\n'
        + _list_names('not finite', damaged)
        + 'Did the training run diverge, or is the file damaged?'
    )
  return converted


def is_ignored(name: str, patterns: Iterable[str]) -> bool:
  """Returns whether a name matches one of the shell patterns."""
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def invert_arrays(
    arrays: Mapping[str, np.ndarray], sources: Mapping[str, Source]
) -> dict[str, np.ndarray]:
  """Returns our arrays under their published names, in published axis order.

  The inverse of `convert_arrays` for float32 and integer files. Raises
  CheckpointMismatchError unless `arrays` and `sources` have the same names.
  """
  missing = [name for name in sources if name not in arrays]
  unexpected = [name for name in arrays if name not in sources]
  if missing or unexpected:
    raise CheckpointMismatchError(
        f'arrays do not fit the published layout of {len(sources)} arrays\n'
        + _list_names('missing', missing)
        + _list_names('unexpected', unexpected)
        + 'Are these the arrays of another model or preset?'
    )
  return {
      source.name: _invert(arrays[ours], source)
      for ours, source in sources.items()
  }


def _check_sources(
    sources: Mapping[str, Source], shapes: Mapping[str, tuple[int, ...]]
) -> None:
  """Raises ValueError for inconsistent tables of a model."""
  if sources.keys() != shapes.keys():
    odd = sorted(sources.keys() ^ shapes.keys())
    raise ValueError(
        'sources and shapes must name the same arrays; they differ in'
        f' {_join(odd)}'
    )
  names = [source.name for source in sources.values()]
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise ValueError(
        'sources must use each published array only once; repeated:'
        f' {_join(repeated)}'
    )
  for ours, (_, axes, _) in sources.items():
    if axes is not None and sorted(axes) != list(range(len(shapes[ours]))):
      raise ValueError(
          f'sources[{ours!r}].axes must permute the {len(shapes[ours])} axes of'
          f' shape {shapes[ours]}; got {axes}'
      )


def _get_published_shape(
    shape: tuple[int, ...], source: Source
) -> tuple[int, ...]:
  axes = source.axes or range(len(shape))
  published = [shape[axes.index(axis)] for axis in range(len(shape))]
  return (1,) * source.leading + tuple(published)


def _convert(array: np.ndarray, source: Source, origin: str) -> np.ndarray:
  is_float = array.dtype.kind == 'f' or array.dtype.name == 'bfloat16'
  if not is_float and array.dtype.kind not in 'biu':
    raise ValueError(
        f'{origin}: {source.name} must hold real numbers; got dtype'
        f' {array.dtype}'
    )
  dtype = np.dtype(np.float32) if is_float else array.dtype.newbyteorder('=')
  known = array.reshape(array.shape[source.leading :])
  if source.axes is not None:
    known = np.transpose(known, source.axes)
  with np.errstate(over='ignore'):  # Overflow is reported later, by name.
    return np.array(known, dtype, order='C')


def _invert(array: np.ndarray, source: Source) -> np.ndarray:
  if source.axes is not None:
    array = np.transpose(array, np.argsort(source.axes))
  shape = (1,) * source.leading + array.shape
  return np.array(array.reshape(shape), order='C')


def _list_names(title: str, names: Sequence[str]) -> str:
  """Returns a line of an error message; empty without names."""
  return f'  {len(names)} {title}: {_join(names)}\n' if names else ''


def _join(names: Iterable[str]) -> str:
  listed = list(names)
  more = len(listed) - _LONGEST_LIST
  text = ', '.join(listed[:_LONGEST_LIST])
  return f'{text} and {more} more' if more > 0 else text
