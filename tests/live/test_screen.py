"""The screen of the live program, with a stand-in for OpenCV."""

import sys

import numpy as np
import pytest

from tapjax.live import screen as live_screen
from tests.live.test_run import make_frames
from tests.live.test_run import make_opencv


def test_windows(monkeypatch):
  cv2 = make_opencv([])
  monkeypatch.setitem(sys.modules, 'cv2', cv2)
  monkeypatch.setenv('DISPLAY', ':0')
  window = live_screen.open_screen('auto')
  image = make_frames(1)[0]
  assert window.show(image, 'text') == []
  np.testing.assert_array_equal(cv2.shown[0], image[..., ::-1])
  cv2.callback(0, 4, 6)
  cv2.callback(cv2.EVENT_LBUTTONDOWN, 10, 20)
  cv2.keys += [ord('d'), ord('c'), ord('q')]
  assert window.show(image, '') == [('add', 10.5, 20.5), ('remove', 10.5, 20.5)]
  assert window.show(image, '') == [('clear', 0, 0)]
  assert window.show(image, '') == [('quit', 0, 0)]
  cv2.visible = 0.0
  assert window.show(image, '') == [('quit', 0, 0)]
  window.close()


def test_no_screen_is_no_window(monkeypatch):
  monkeypatch.setattr(sys, 'platform', 'linux')
  monkeypatch.delenv('DISPLAY', raising=False)
  monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
  assert live_screen.open_screen('auto') is None
  assert live_screen.open_screen('off') is None
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(ValueError, match=r"pip install 'tapjax\[live\]'"):
    live_screen.open_screen('on')
  monkeypatch.setenv('DISPLAY', ':0')
  with pytest.warns(UserWarning, match='there is no window'):
    assert live_screen.open_screen('auto') is None
