"""Boxes drawn over frames."""

import numpy as np

from tapjax import objects
from tests.support.object_tracks import make_tracks


def test_drawing_shows_what_is_there():
  found = make_tracks()
  frame = np.full((40, 60, 3), 90, np.uint8)
  drawn = [objects.draw_objects(frame, found, t) for t in range(3)]
  assert (frame == 90).all()
  changed = [np.any(picture != 90, axis=-1) for picture in drawn]
  # Sides of the first box, and none where it is hidden.
  assert changed[0][21:23, 3:10].all()
  assert not changed[0][:, 25:].any()
  assert not changed[2][12:, :25].any()
  assert changed[2][5:10, 31:36].any()
