"""Painted dots against stored output of the published implementation."""

import json

import numpy as np
import pytest

from tapjax.visualization import paint_points


def test_paint_points_matches_the_published_implementation(reference):
  golden = np.load(reference / 'tapir' / 'golden_paint_point_track.npz')
  meta = json.loads(str(golden['meta']))
  y0, y1, x0, x1 = meta['crop_y0_y1_x0_x1']
  clip = np.load(reference / 'clips.npz')[meta['clip']]
  painted = paint_points(
      clip[meta['frames'], y0:y1, x0:x1],
      golden['tracks'],
      golden['visible'],
      golden['colormap'],
  )
  difference = np.abs(painted.astype(int) - golden['painted'])
  assert difference.max() <= 1  # The tolerance of the metadata.


def paint_one(x, y, *, visible=True, resolution=(80, 100)):
  frames = np.zeros((1, *resolution, 3), np.uint8)
  painted = paint_points(
      frames,
      np.array([[[x, y]]], np.float32),
      np.array([[visible]]),
      np.full((1, 3), 255, np.uint8),
  )
  assert not frames.any()
  return painted[0, ..., 0].astype(float)


@pytest.mark.parametrize('x', [40.0, 40.25, 40.9])
def test_dots_sit_one_pixel_low_and_right(x):
  painted = paint_one(x, 30.5, resolution=(300, 400))
  rows, columns = np.indices(painted.shape) + 0.5
  assert (painted * columns).sum() / painted.sum() == pytest.approx(
      x + 1, abs=0.02
  )
  assert (painted * rows).sum() / painted.sum() == pytest.approx(31.5, abs=0.02)


@pytest.mark.parametrize('x', [-50.0, 0.0, 99.9, 100.0, 1e9])
@pytest.mark.parametrize('y', [-3.0, 80.0])
def test_dots_at_and_beyond_the_border_stay_in_the_frame(x, y):
  assert paint_one(x, y).shape == (80, 100)


def test_hidden_points_are_not_painted():
  assert not paint_one(40.0, 30.0, visible=False).any()
  assert not paint_one(np.nan, 30.0, visible=False).any()


def test_tiny_frames_get_a_dot():
  assert paint_one(0.5, 0.5, resolution=(3, 3)).any()


def test_visible_points_must_be_finite():
  with pytest.raises(ValueError, match='point 0 is at'):
    paint_one(np.nan, 30.0)
