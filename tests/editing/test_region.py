"""Regions of frames, and the edits that cover them."""

import numpy as np
import pytest

from tapjax.editing import region as regions


def test_two_corners_are_a_rectangle():
  region = regions.make_region((4, 6), np.asarray([[1.0, 0.0], [4.0, 2.0]]))
  expected = np.zeros((4, 6), bool)
  expected[:2, 1:4] = True
  np.testing.assert_array_equal(region, expected)


def test_a_polygon_has_its_area_and_may_be_listed_either_way():
  corners = np.asarray([[5.0, 2.0], [45.0, 10.0], [20.0, 38.0]])
  region = regions.make_region((48, 50), corners)
  (ax, ay), (bx, by) = corners[1:] - corners[0]
  assert region.sum() == pytest.approx(abs(ax * by - ay * bx) / 2, rel=0.02)
  np.testing.assert_array_equal(
      region, regions.make_region((48, 50), corners[::-1])
  )


def test_a_picture_of_the_size_of_the_region_is_unchanged():
  picture = np.random.default_rng(0).integers(0, 256, (3, 4, 4), np.uint8)
  region = np.zeros((6, 8), bool)
  region[2:5, 3:7] = True
  edit = regions.fit_picture(picture, region)
  np.testing.assert_array_equal(edit.colors[2:5, 3:7], picture[..., :3])
  np.testing.assert_allclose(edit.opacity[2:5, 3:7], picture[..., 3] / 255)
  assert not edit.opacity[~region].any()


def test_points_lie_in_the_region_and_are_as_many_as_wanted():
  region = regions.make_region((40, 60), np.asarray([[8.0, 5], [50, 35]]))
  points = regions.sample_region(region, 3, 100)
  assert len(points) == pytest.approx(100, rel=0.1)
  assert (points[:, 0] == 3).all()
  assert region[tuple(points[:, 1:].astype(int).T)].all()
  dot = np.zeros((9, 9), bool)
  dot[4, 7] = True
  np.testing.assert_array_equal(
      regions.sample_region(dot, 0, 50), [[0, 4.5, 7.5]]
  )


def test_empty_regions_are_refused():
  empty = np.zeros((4, 4), bool)
  with pytest.raises(ValueError, match='holds none'):
    regions.sample_region(empty, 0, 1)
  with pytest.raises(ValueError, match='holds none'):
    regions.fit_picture(np.zeros((2, 2, 4), np.uint8), empty)


def test_bilinear_reading_is_exact_on_a_ramp_and_zero_outside():
  y, x = np.mgrid[:5, :6] + 0.5
  ramp = np.stack([x, y], axis=-1).astype(np.float32)
  points = np.asarray([[0.5, 0.5], [3.2, 4.1], [5.5, 2.0]])
  np.testing.assert_allclose(
      regions.sample_bilinear(ramp, points), points, rtol=1e-6
  )
  outside = np.asarray([[-3.0, 2.0], [3.0, 40.0]])
  np.testing.assert_allclose(
      regions.sample_bilinear(ramp, outside), 0, atol=1e-4
  )
