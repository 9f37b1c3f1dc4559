"""Names that are close to a misspelled one."""

from collections.abc import Iterable
import difflib


def suggest_name(name: str, known: Iterable[str]) -> str:
  """Returns the end of a message with the closest name; empty without one."""
  close = difflib.get_close_matches(name, list(known), 1)
  return f' - did you mean {close[0]}?' if close else ''
