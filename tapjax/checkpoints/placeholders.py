"""What a pickle is made of before, and instead of, live objects."""

from typing import Any

_LONGEST_NAME = 200


class Placeholder:
  """Stands where a pickle names a class or function, or an instance of one.

  It keeps the dotted name, for messages, and drops whatever arguments, state
  and items the file gives it.
  """

  __slots__ = ('name',)

  def __init__(self, name: str):
    self.name = repr(name[:_LONGEST_NAME])[1:-1]  # No control characters.

  def __repr__(self) -> str:
    return f'<placeholder of {self.name}>'


class Unfinished(Placeholder):
  """An object that a pickle has announced and whose state follows.

  `memo_keys` are the places from which the pickle may fetch it again.
  """

  __slots__ = ('memo_keys',)

  def __init__(self, name: str):
    super().__init__(name)
    self.memo_keys: list[int] = []

  def finish(self, state: Any) -> Any:
    """Returns the object that `state` completes; ValueError if it does not."""
    raise NotImplementedError
