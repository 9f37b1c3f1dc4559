"""Replacement of config fields by name, with checks of names and types."""

import ast
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any, cast, get_args, get_type_hints, TypeVar

from beartype.door import is_bearable
import numpy as np

from tapjax.spelling import suggest_name

Config = TypeVar('Config')


def replace_settings(config: Config, settings: Mapping[str, Any]) -> Config:
  """Returns a frozen dataclass with some fields replaced.

  Values must have the type of their field; an integer is accepted as a float.
  Raises ValueError for an unknown field, listing the known fields, or for a
  value of another type.
  """
  known = get_type_hints(type(config))
  replaced = {}
  for name, value in settings.items():
    if name not in known:
      raise ValueError(
          f'unknown setting {name!r}; {type(config).__name__} has '
          f'{", ".join(known)}{suggest_name(name, known)}'
      )
    expected = known[name]
    is_misplaced = isinstance(value, bool) and expected is not bool
    if isinstance(value, np.integer):
      value = int(value)
    if expected is float and isinstance(value, int) and not is_misplaced:
      value = float(value)
    if is_misplaced or not is_bearable(value, expected):
      described = str(expected)
      if isinstance(expected, type) and not get_args(expected):
        described = expected.__name__
      described = described.replace('typing.', '')
      raise ValueError(f'{name} must be {described}; got {value!r}')
    replaced[name] = value
  return cast(Config, dataclasses.replace(cast(Any, config), **replaced))


def check_at_least(least: int, config: Any, names: Iterable[str]) -> None:
  """Raises ValueError for the first field that is below the least value."""
  for name in names:
    if getattr(config, name) < least:
      raise ValueError(
          f'{name} must be at least {least}; got {getattr(config, name)}'
      )


def freeze(value: Any) -> Any:
  """Converts lists, nested ones too, to tuples, as configs hold them."""
  if isinstance(value, list):
    return tuple(freeze(item) for item in value)
  return value


def parse_value(text: str) -> Any:
  """Parses a Python literal, with tuples for lists; returns other texts."""
  try:
    return freeze(ast.literal_eval(text))
  # What `literal_eval` raises, also for keys of dictionaries and deep nesting.
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return text


def list_changes(old: Any, new: Any) -> str:
  """Returns `name=value, ...` of the fields of `new` that differ from `old`."""
  return ', '.join(
      f'{field.name}={getattr(new, field.name)}'
      for field in dataclasses.fields(new)
      if getattr(new, field.name) != getattr(old, field.name)
  )
