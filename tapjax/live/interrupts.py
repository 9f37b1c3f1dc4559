"""Ctrl-C as the end of a stream."""

import signal
import threading
from typing import Any


class StopOnInterrupt:
  """Ends the stream at the first Ctrl-C; a second one interrupts as usual."""

  def __enter__(self) -> threading.Event:
    stopped = threading.Event()
    self._previous: Any = None
    if threading.current_thread() is threading.main_thread():
      self._previous = signal.getsignal(signal.SIGINT)

      def stop(*_: Any) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, self._previous)

      signal.signal(signal.SIGINT, stop)
    return stopped

  def __exit__(self, *_: object) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGINT, self._previous)
