"""Window of the live program, and the events of its user."""

import os
import sys
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable
import warnings

from jaxtyping import UInt8
import numpy as np

HELP = 'click: add a point; d: remove the nearest; c: remove all; q: end'
_ESCAPE = 27
_TITLE = 'tapjax'


class Event(NamedTuple):
  """User action at (x, y), in raster pixels of the picture."""

  kind: Literal['add', 'remove', 'clear', 'quit']
  x: float = 0.0
  y: float = 0.0


@runtime_checkable
class Screen(Protocol):
  """Window that shows pictures and returns user events."""

  def show(
      self, image: UInt8[np.ndarray, 'h w 3'], caption: str
  ) -> list[Event]:
    """Shows an RGB picture; returns the events since the previous call."""
    ...

  def close(self) -> None:
    """Closes the window."""
    ...


class OpenCvScreen:
  """OpenCV window."""

  def __init__(self):
    import cv2

    self._opencv: Any = cv2
    self._events: list[Event] = []
    self._pointer = 0.0, 0.0
    cv2.namedWindow(_TITLE, cv2.WINDOW_AUTOSIZE)
    cv2.setMouseCallback(_TITLE, self._note_mouse)

  def show(
      self, image: UInt8[np.ndarray, 'h w 3'], caption: str
  ) -> list[Event]:
    """Shows an RGB picture with `caption` in the upper-left corner."""
    cv2 = self._opencv
    picture = np.ascontiguousarray(image[..., ::-1])
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
      cv2.putText(
          picture,
          caption,
          (8, 20),
          cv2.FONT_HERSHEY_SIMPLEX,
          0.5,
          color,
          width,
          cv2.LINE_AA,
      )
    cv2.imshow(_TITLE, picture)
    key = cv2.waitKey(1) & 0xFF
    if key == ord('d'):
      self._events.append(Event('remove', *self._pointer))
    elif key == ord('c'):
      self._events.append(Event('clear'))
    closed = cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
    if closed or key in (ord('q'), _ESCAPE):
      self._events.append(Event('quit'))
    events, self._events = self._events, []
    return events

  def close(self) -> None:
    """Closes the window."""
    self._opencv.destroyAllWindows()

  def _note_mouse(self, kind: int, x: int, y: int, *_: Any) -> None:
    # The center of the pixel under the pointer.
    self._pointer = x + 0.5, y + 0.5
    if kind == self._opencv.EVENT_LBUTTONDOWN:
      self._events.append(Event('add', *self._pointer))


def open_screen(choice: Literal['auto', 'on', 'off']) -> Screen | None:
  """Opens a window; None for 'off', or for 'auto' without a screen.

  With 'auto', a window that cannot be opened is a warning.

  Raises:
    ValueError: the choice is 'on' and no window can be opened.
  """
  if choice == 'off' or (choice == 'auto' and not _has_screen()):
    return None
  try:
    return OpenCvScreen()
  except Exception as error:  # noqa: BLE001 - cv2.error needs cv2.
    reason = (
        'there is no window: it needs a screen and an OpenCV with windows '
        f"(pip install 'tapjax[live]'); OpenCV says: {error!r}"
    )
  if choice == 'on':
    raise ValueError(reason)
  warnings.warn(reason, stacklevel=2)
  return None


def _has_screen() -> bool:
  if sys.platform in ('win32', 'darwin'):
    return True
  return bool(os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY'))
