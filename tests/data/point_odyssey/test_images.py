"""Images of PointOdyssey, resized."""

import numpy as np

from tapjax.data.point_odyssey import images


def test_part_of_a_resized_frame():
  generator = np.random.default_rng(0)
  frame = generator.integers(0, 256, (9, 14, 3), np.uint8)
  whole = images.resize_values(frame, (23, 11))
  part = slice(4, 20), slice(3, 9)
  np.testing.assert_array_equal(
      images.resize_values(frame, (23, 11), part), whole[part]
  )
