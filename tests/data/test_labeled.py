"""Videos with true tracks."""

import numpy as np

from tapjax.data.labeled import make_annotated_video


def test_hidden_points_may_be_anywhere():
  points = np.full((1, 2, 2), np.nan)
  hidden = np.ones((1, 2), bool)
  frames = np.zeros((2, 4, 4, 3), np.uint8)
  assert make_annotated_video('a', frames, points, hidden).name == 'a'
