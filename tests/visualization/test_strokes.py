"""Strokes: dots, rings and lines as covered pixels."""

import numpy as np

from tapjax.visualization import strokes

SIZE = 40, 60


def cover(centers, *, hidden=False, radius=5.0):
  centers = np.asarray(centers, np.float32).reshape(-1, 2)
  return strokes.cover_points(
      centers,
      np.full(len(centers), hidden),
      np.arange(len(centers)),
      radius=radius,
      outline=1.0,
      resolution=SIZE,
  )


def cover_line(start, stop, radius=1.5):
  return strokes.cover_segments(
      np.float32([start]),
      np.float32([stop]),
      np.zeros(1, int),
      radius=np.full((1, 2), radius, np.float32),
      opacity=np.ones((1, 2), np.float32),
      outline=0.5,
      resolution=SIZE,
  )


def test_a_dot_has_the_area_of_its_disc():
  for center in ([30, 20], [30.3, 20.8]):
    area = cover([center]).fill.sum()
    np.testing.assert_allclose(area, np.pi * 25, rtol=0.02)


def test_a_ring_is_hollow_and_fainter():
  ring = cover([[30.5, 20.5]], hidden=True)
  picture = np.zeros(SIZE)
  picture.flat[ring.pixels] = ring.fill
  assert picture[20, 30] == 0
  assert 0.5 < picture.max() < 1


def test_dots_end_at_the_border():
  stroke = cover([[0, 0], [-50, 10]])
  assert set(stroke.rows) == {0}
  np.testing.assert_allclose(stroke.fill.sum(), np.pi * 25 / 4, rtol=0.05)


def test_a_line_has_the_area_of_a_capsule_in_any_direction():
  length = np.hypot(20, 12)
  expected = 3 * length + np.pi * 1.5**2
  for stop in ([40, 26], [20, 26], [32, 34]):
    start = [20, 14] if stop != [20, 26] else [40, 14]
    area = cover_line(start, stop).fill.sum()
    np.testing.assert_allclose(area, expected, rtol=0.03)


def test_the_most_opaque_stroke_is_seen_in_any_order():
  pixels = np.asarray([7])
  zero = np.zeros(1, np.float32)
  faint, strong = (
      strokes.Strokes(
          pixels, np.asarray([row]), zero + np.float32(fill), zero + 0.5
      )
      for row, fill in ((0, 0.25), (1, 1.0))
  )
  colors = np.uint8([[255, 0, 0], [0, 0, 255]])
  for order in ([faint, strong], [strong, faint]):
    frame = np.full((2, 8, 3), 100, np.uint8)
    strokes.blend_into(frame, order, colors)
    assert frame[0, 7].tolist() == [0, 0, 255]
    assert (np.delete(frame.reshape(-1, 3), 7, axis=0) == 100).all()
