"""Edits carried by points whose motion is known."""

import numpy as np
import pytest

import tapjax
from tapjax import editing

RESOLUTION = (90, 120)
HOMOGRAPHIES = [
    np.eye(3),
    np.asarray([[1.1, 0.08, 3.0], [-0.05, 0.95, 6.0], [4e-4, -3e-4, 1.0]]),
    np.asarray([[0.8, -0.2, 20.0], [0.15, 0.9, -5.0], [-6e-4, 5e-4, 1.0]]),
]


def transform(homography, points):
  moved = np.insert(points, 2, 1, axis=-1) @ homography.T
  return moved[..., :2] / moved[..., 2:]


def make_box(left, top, right, bottom):
  corners = np.asarray([[left, top], [right, bottom]], float)
  return editing.make_region(RESOLUTION, corners)


def make_tracks(query_points, visible=None, noise=0.0):
  generator = np.random.default_rng(0)
  positions = np.stack(
      [transform(h, query_points[:, :0:-1]) for h in HOMOGRAPHIES], axis=1
  )
  positions += noise * generator.normal(size=positions.shape)
  if visible is None:
    visible = np.ones(positions.shape[:2], bool)
  return tapjax.Tracks(positions.astype(np.float32), visible, None, None)


def edit_black(edit, query_points, tracks):
  frames = np.zeros((len(HOMOGRAPHIES), *RESOLUTION, 3), np.uint8)
  return list(editing.iterate_edit(frames, edit, query_points, tracks))


@pytest.mark.parametrize('noise', [0.0, 0.3])
def test_a_drawing_follows_a_homography(noise):
  """The centers of four discs land within a pixel of where they should."""
  centers = np.asarray([[40.0, 30], [70, 32], [42, 60], [68, 58.0]])
  y, x = np.mgrid[: RESOLUTION[0], : RESOLUTION[1]] + 0.5
  distance = np.hypot(
      x[..., None] - centers[:, 0], y[..., None] - centers[:, 1]
  )
  opacity = np.clip(4.5 - distance.min(-1), 0, 1).astype(np.float32)
  colors = np.zeros((*RESOLUTION, 3), np.uint8)
  # Each disc has bits of its own.
  shades = np.asarray([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
  colors[:] = shades[distance.argmin(-1)]
  region = make_box(32, 22, 78, 68)
  points = editing.sample_region(region, 0, 150)
  tracks = make_tracks(points, noise=noise)
  frames = edit_black(editing.Edit(colors, opacity), points, tracks)
  for frame, homography in zip(frames, HOMOGRAPHIES, strict=True):
    red, green, blue = np.moveaxis(frame.astype(float), -1, 0)
    white = np.minimum(np.minimum(red, green), blue)
    parts = [red - white, green - white, blue - white, white]
    for part, center in zip(parts, centers, strict=True):
      found = np.asarray([(part * x).sum(), (part * y).sum()]) / part.sum()
      expected = transform(homography, center[None])[0]
      assert np.abs(found - expected).max() < (1.0 if noise else 0.3)


def test_the_frame_of_the_edit_is_edited_as_drawn():
  region = make_box(32, 22, 78, 68)
  points = editing.sample_region(region, 0, 100)
  edit = editing.fill_region(region, (200, 100, 50))
  first = edit_black(edit, points, make_tracks(points))[0]
  np.testing.assert_array_equal(
      first, np.where(region[..., None], [200, 100, 50], 0)
  )


def test_what_is_hidden_is_not_drawn():
  region = make_box(20, 20, 100, 70)
  points = editing.sample_region(region, 0, 200)
  visible = np.ones((len(points), 3), bool)
  visible[:, 1] = points[:, 2] < 60
  visible[:, 2] = False
  edit = editing.fill_region(region, (255, 255, 255))
  frames = edit_black(edit, points, make_tracks(points, visible))
  left, right = transform(HOMOGRAPHIES[1], np.asarray([[40, 45], [80, 45.0]]))
  assert frames[1][int(left[1]), int(left[0])].min() > 250
  assert frames[1][int(right[1]), int(right[0])].max() == 0
  assert frames[2].max() == 0


def test_wrong_points_are_left_out():
  region = make_box(32, 22, 78, 68)
  points = editing.sample_region(region, 0, 150)
  edit = editing.fill_region(region, (255, 255, 255))
  tracks = make_tracks(points)
  clean = edit_black(edit, points, tracks)
  tracks.positions[::10] += 25
  assert (
      np.count_nonzero(
          np.abs(
              np.subtract(edit_black(edit, points, tracks), clean, dtype=float)
          )
          > 64
      )
      < 60
  )


@pytest.mark.parametrize('num_points', [1, 2, 4])
def test_few_points_shift_or_shear(num_points):
  sources = np.asarray([[10, 10], [30, 12], [12, 40], [35, 38.0]])[:num_points]
  shift = np.asarray([3.0, -2])
  motion = editing.fit_motion(sources, sources + shift)
  np.testing.assert_allclose(
      transform(motion, sources), sources + shift, atol=1e-6
  )


def test_regions():
  square = editing.make_region((4, 6), np.asarray([[1.0, 1], [3, 4]]))
  expected = np.zeros((4, 6), bool)
  expected[1:4, 1:3] = True
  np.testing.assert_array_equal(square, expected)
  triangle = np.asarray([[0, 0], [6, 0], [0, 4.0]])
  inside = editing.make_region((4, 6), triangle)
  assert inside[0, 0]
  assert not inside[3, 5]
  with pytest.raises(ValueError, match='region must hold pixels'):
    editing.sample_region(np.zeros((4, 6), bool), 0, 5)


def test_points_are_spread_over_the_region():
  region = make_box(10, 10, 90, 50)
  points = editing.sample_region(region, 7, 128)
  assert 100 <= len(points) <= 160
  assert (points[:, 0] == 7).all()
  np.testing.assert_allclose(points[:, 1:].mean(0), [30, 50], atol=0.1)
  tiny = np.zeros(RESOLUTION, bool)
  tiny[3, 4] = True
  np.testing.assert_array_equal(
      editing.sample_region(tiny, 2, 50), [[2, 3.5, 4.5]]
  )


def test_a_picture_fills_the_box():
  picture = np.zeros((2, 2, 4), np.uint8)
  picture[..., 3] = [[255, 255], [255, 0]]
  picture[0, 0, 0] = 255
  region = make_box(20, 10, 60, 50)
  edit = editing.fit_picture(picture, region)
  assert edit.colors[12, 22, 0] == 255
  assert edit.opacity[12, 22] == 1
  assert edit.opacity[48, 58] == 0
  assert edit.opacity[~region].max() == 0


def test_points_that_know_nothing_draw_nothing():
  """As where an edit is hidden, and some points are seen where they are not."""
  generator = np.random.default_rng(1)
  region = make_box(32, 22, 78, 68)
  points = editing.sample_region(region, 0, 150)
  tracks = make_tracks(points)
  edit = editing.fill_region(region, (255, 255, 255))
  clean = edit_black(edit, points, tracks)
  tracks.positions[:, 1] = generator.uniform(0, 90, (len(points), 2))
  tracks.visible[:, 1] = np.arange(len(points)) % 8 == 0
  # A part goes astray as one, and none of it is drawn.
  is_astray = points[:, 2] < 45
  tracks.positions[is_astray, 2] += [60, 15]
  frames = edit_black(edit, points, tracks)
  np.testing.assert_array_equal(frames[0], clean[0])
  assert frames[1].max() == 0
  beyond = clean[2].max(-1) == 0
  assert frames[2][beyond].max() < 64
  middle = transform(HOMOGRAPHIES[2], np.asarray([[65, 45.0]]))[0].astype(int)
  assert frames[2][middle[1], middle[0]].min() > 250
