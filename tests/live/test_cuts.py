"""Scene cuts, found by the colors of frames."""

import numpy as np
import pytest

from tapjax.live import cuts


def test_cuts_are_told_from_motion():
  generator = np.random.default_rng(0)
  scene = generator.integers(0, 90, (60, 120, 3), np.uint8)
  other = 160 + generator.integers(0, 90, (60, 120, 3), np.uint8)
  before = cuts.count_colors(scene[:, :100])
  moved = cuts.count_colors(scene[:, 8:108])
  assert cuts.measure_change(before, before) == 0
  assert cuts.measure_change(before, moved) <= 0.08
  assert not cuts.is_cut(before, moved)
  changed = cuts.count_colors(other[:, :100])
  assert cuts.measure_change(before, changed) == pytest.approx(1)
  assert cuts.is_cut(before, changed)
