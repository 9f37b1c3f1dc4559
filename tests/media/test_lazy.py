import numpy as np
import pytest

from tapjax.media.lazy import LazyFrames


def test_only_what_is_wanted_is_read():
  frames = np.random.default_rng(0).integers(0, 256, (9, 4, 6, 3), np.uint8)
  asked = []

  def read(row):
    asked.append(row)
    return frames[row]

  lazy = LazyFrames(9, (4, 6), read)
  assert lazy.shape == frames.shape
  assert len(lazy) == 9
  for rows in ([2, 3], [5, 1, 4], [7, 8, 8, 8], [6, 6]):
    asked.clear()
    np.testing.assert_array_equal(lazy[np.asarray(rows)], frames[rows])
    assert sorted(asked) == sorted(set(rows))
  np.testing.assert_array_equal(lazy[7:12], frames[7:])
  np.testing.assert_array_equal(np.asarray(lazy), frames)
  assert np.asarray(lazy, np.float32).dtype == np.float32


def test_frames_of_another_size_are_told():
  lazy = LazyFrames(2, (4, 6), lambda _: np.zeros((4, 5, 3), np.uint8))
  with pytest.raises(ValueError, match='must be uint8'):
    lazy[np.arange(2)]
