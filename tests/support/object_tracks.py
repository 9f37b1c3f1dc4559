"""Tracks of two objects on three frames."""

import numpy as np

from tapjax import objects


def make_tracks():
  found = np.full((2, 3, 4), np.nan, np.float32)
  visible = np.zeros((2, 3), bool)
  found[0, :2] = [[1, 2, 11, 22], [2, 3, 12, 23]]
  found[1, 1:] = [[30, 5, 35.5, 10], [31, 5, 36.5, 10]]
  visible[0, :2] = visible[1, 1:] = True
  return objects.ObjectTracks(
      np.asarray([1, 12]),
      ['cat', ''],
      found,
      visible,
      visible & (np.arange(3) == 1),
      visible.astype(np.float32) * 0.5,
      [np.asarray([[5, 5.0]], np.float32)] * 3,
      [np.asarray([1])] * 3,
  )
