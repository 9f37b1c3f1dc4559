"""Edges between segments."""

import numpy as np
import pytest

from tapjax.data.point_odyssey import segment_edges


@pytest.mark.parametrize('block', [1, 7])
def test_edges_are_those_of_canny(block):
  cv2 = pytest.importorskip('cv2')
  generator = np.random.default_rng(block)
  image = generator.integers(0, 255, (8, 11), np.uint8)
  image = image.repeat(block, axis=0).repeat(block, axis=1)
  expected = cv2.Canny(image, 1, 1) > 0
  np.testing.assert_array_equal(segment_edges.find_thin_edges(image), expected)
  filled = image.copy()
  filled[:4] = 0
  filled[:, :5] = 0
  median = cv2.medianBlur(filled, 7)
  expected = np.where(filled == 0, median, filled)
  if np.sum(filled == 0) <= 128:
    expected = filled
  np.testing.assert_array_equal(segment_edges.fill_holes(filled), expected)
