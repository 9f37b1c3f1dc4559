"""Optional import of Pillow, which the core library does not need."""

from typing import Any


def import_pillow() -> Any:
  """Returns `PIL.Image`; raises ImportError with how to install it."""
  try:
    from PIL import Image
  except ImportError:
    raise ImportError(
        "reading, resizing and drawing pictures needs Pillow - install with "
        "pip install 'tapjax[evaluate]'"
    ) from None
  return Image
