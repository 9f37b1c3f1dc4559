"""Recordings of streams on disk."""

import numpy as np

from tapjax.live import recording
from tapjax.types import Tracks


def test_heads_that_are_not_there_are_left_out(tmp_path):
  record = recording.Recording(tmp_path, resume=False)
  tracks = Tracks(
      np.ones((2, 1, 2), np.float32), np.array([[True], [False]]), None, None
  )
  lost = np.zeros(2, bool)
  record.append(recording.make_rows(1, np.array([1, 0]), tracks, lost))
  points = np.zeros((2, 3), np.float32)
  record.write_arrays(tmp_path / 'a.npz', 2, query_points=points)
  record.close(keep=False)
  with np.load(tmp_path / 'a.npz') as arrays:
    assert 'occlusion_logits' not in arrays
    np.testing.assert_array_equal(arrays['confidence'], [[0, 0], [0, 1]])
    np.testing.assert_array_equal(arrays['visible'], [[0, 0], [0, 1]])
  assert not (tmp_path / recording.FOLDER).exists()
