"""Inert stand-ins for objects that a pickle names."""

from typing import Any

_LONGEST_NAME = 200


class Placeholder:
  """Stand-in for a class or function named by a pickle, or for an instance.

  It keeps the dotted name, for messages, and drops arguments, state and items.
  """

  __slots__ = ('name',)

  def __init__(self, name: str):
    self.name = repr(name[:_LONGEST_NAME])[1:-1]  # No control characters.

  def __repr__(self) -> str:
    return f'<placeholder of {self.name}>'


class Unfinished(Placeholder):
  """An object that is constructed once its state has been read.

  `memo_keys` are the keys of the pickle's memo that refer to the object.
  """

  __slots__ = ('memo_keys',)

  def __init__(self, name: str):
    super().__init__(name)
    self.memo_keys: list[int] = []

  def finish(self, state: Any) -> Any:
    """Returns the constructed object; ValueError for an invalid state."""
    raise NotImplementedError
