"""Tolerances of the comparison between exported and original tracks."""

import numpy as np
import pytest

from tapjax.export import verification


@pytest.mark.parametrize(
    ('name', 'change', 'is_small'),
    [
        ('positions', 9e-3, True),
        ('positions', 1.1e-2, False),
        ('positions', np.nan, False),
        ('occlusion_logits', 1.9e-3, True),  # In shares of the largest one, 2.
        ('occlusion_logits', 2.1e-3, False),
        ('memory_inputs', np.inf, False),
    ],
)
def test_largest_difference_decides(name, change, is_small):
  expected = np.full((3, 4, 2), -2.0, np.float32)
  found = expected.copy()
  found[1, 2, 0] += np.float32(change)
  found[0, 0, 1] += np.float32(1e-4)
  difference = verification.compare(name, found, expected)
  assert difference.is_small == is_small
  scale = 1 if name == 'positions' else 2
  np.testing.assert_allclose(difference.largest, change / scale, rtol=1e-2)
  assert name in str(difference)


def test_visibility_may_differ_near_the_threshold():
  expected = np.zeros((20, 100), bool)
  found = expected.copy()
  found[3, 4] = True
  difference = verification.compare('visible', found, expected)
  assert difference.is_small
  assert difference.largest == 1 / 2000
  found[:, 5] = True
  assert not verification.compare('visible', found, expected).is_small


def test_shapes_and_types_must_be_equal():
  expected = np.zeros((2, 3), np.float32)
  for found in (expected[:1], expected.astype(np.float64)):
    with pytest.raises(ValueError, match=r'positions must be float32\[2, 3\]'):
      verification.compare('positions', found, expected)
