"""What a live program shows on a screen, and what its user does there."""

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
  """What a user asked for, and where: (x, y) in pixels of the picture."""

  kind: Literal['add', 'remove', 'clear', 'quit']
  x: float = 0.0
  y: float = 0.0


@runtime_checkable
class Window(Protocol):
  """A place to show pictures at."""

  def show(
      self, image: UInt8[np.ndarray, 'h w 3'], caption: str
  ) -> list[Event]:
    """Shows an RGB picture, and returns what was done since the last one."""
    ...

  def close(self) -> None:
    """Takes the window from the screen."""
    ...


class OpenCvWindow:
  """A window of OpenCV's."""

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
    """Shows a picture with a line of text in its corner."""
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
    """Takes the window from the screen."""
    self._opencv.destroyAllWindows()

  def _note_mouse(self, kind: int, x: int, y: int, *_: Any) -> None:
    # The center of the pixel under the pointer.
    self._pointer = x + 0.5, y + 0.5
    if kind == self._opencv.EVENT_LBUTTONDOWN:
      self._events.append(Event('add', *self._pointer))


def open_window(choice: Literal['auto', 'on', 'off']) -> Window | None:
  """Opens a window; None if it is not wanted, or 'auto' and there is no screen.

  Raises ValueError if one is wanted for certain and cannot be.
  """
  if choice == 'off' or (choice == 'auto' and not _has_screen()):
    return None
  try:
    return OpenCvWindow()
  except Exception as error:  # noqa: BLE001 - OpenCV's is no public class.
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
