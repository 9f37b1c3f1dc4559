"""Detections, checked as they arrive."""

import numpy as np
import pytest

from tapjax import objects
from tapjax.objects.detections import check_detections


@pytest.mark.parametrize(
    ('detections', 'message'),
    [
        (objects.Detections(np.zeros((2, 3))), r'boxes must be \[n, 4\]'),
        (objects.Detections(np.asarray([[5, 5, 2, 9.0]])), 'left < right'),
        (objects.Detections(np.full((1, 4), np.nan)), 'in row 0'),
        (
            objects.Detections(np.asarray([[1, 1, 2, 2.0]]), labels=[]),
            'labels must be as many as the boxes, 1; got 0',
        ),
        (
            objects.Detections(
                np.asarray([[1, 1, 2, 2.0]]), masks=np.zeros((1, 4, 4), bool)
            ),
            'masks must have the size',
        ),
    ],
)
def test_what_is_no_detection(detections, message):
  with pytest.raises(ValueError, match=message):
    check_detections(detections, (20, 30))


def test_detections_are_cut_at_the_border():
  given = objects.Detections(
      np.asarray([[-5, 2, 8, 9], [40, 2, 50, 9], [20, 15, 99, 99.0]]),
      labels=['a', 'b', 'c'],
      ids=np.asarray([4, 5, 6]),
  )
  kept = check_detections(given, (20, 30))
  np.testing.assert_array_equal(kept.boxes, [[0, 2, 8, 9], [20, 15, 30, 20]])
  assert kept.labels == ['a', 'c']
  assert kept.ids.tolist() == [4, 6]
