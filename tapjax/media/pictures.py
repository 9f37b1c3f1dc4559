"""Pillow, for those who have it: the library itself does without."""

from typing import Any


def import_pillow() -> Any:
  """Returns `PIL.Image`, or raises ImportError that says how to get it."""
  try:
    from PIL import Image
  except ImportError:
    raise ImportError(
        "reading, resizing and drawing pictures needs Pillow - install with "
        "pip install 'tapjax[evaluate]'"
    ) from None
  return Image
