"""Lucas-Kanade follows what it can, and says where it cannot."""

import sys

import numpy as np
import pytest

from tapjax.evaluation import classical


def make_video(num_frames=9):
  """A texture that moves by (2, 1) pixels a frame, (x, y)."""
  generator = np.random.default_rng(0)
  canvas = generator.uniform(0, 255, (160, 160, 3))
  for axis in (0, 1):
    canvas = sum(np.roll(canvas, i, axis) for i in range(5)) / 5
  canvas = (canvas - canvas.min()) / np.ptp(canvas) * 255
  frames = [
      canvas[40 - i : 136 - i, 40 - 2 * i : 136 - 2 * i]
      for i in range(num_frames)
  ]
  return np.stack(frames).astype(np.uint8)


POINTS = np.asarray([[0, 40.5, 30.5], [4, 50, 50], [8, 60.25, 70]], np.float32)


def test_follows_both_ways():
  tracks = classical.track_lucas_kanade(make_video(), POINTS)
  frames = np.arange(9)[None, :, None]
  expected = POINTS[:, None, :0:-1] + (frames - POINTS[:, None, :1]) * (2, 1)
  np.testing.assert_allclose(tracks.positions, expected, atol=0.15)
  assert tracks.visible.all()


def test_a_point_that_is_covered_is_lost():
  frames = make_video()
  frames[5:] = 255 - frames[5:, ::-1]
  tracks = classical.track_lucas_kanade(frames, POINTS[:2])
  assert tracks.visible[:, :5].all()
  assert not tracks.visible[:, 5:].any()


def test_a_point_that_leaves_is_hidden():
  points = np.asarray([[0, 50, 90]], np.float32)
  tracks = classical.track_lucas_kanade(make_video(), points)
  assert tracks.visible[0, 0]
  assert not tracks.visible[0, 4:].any()


def test_without_opencv(monkeypatch):
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(ImportError, match=r'tapjax\[benchmark\]'):
    classical.track_lucas_kanade(make_video(), POINTS)
