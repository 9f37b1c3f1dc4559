"""Comparison of tracks with stored arrays."""

import numpy as np


def assert_tracks(tracks, stored, prefix, suffix=''):
  """Compares with stored arrays, whose first axis is time."""
  positions, visible, valid = (
      stored[f'{prefix}_{name}{suffix}'].swapaxes(0, 1)
      for name in ('trajs', 'visibs', 'valids')
  )
  np.testing.assert_allclose(tracks.positions, positions, atol=1e-3)
  np.testing.assert_array_equal(tracks.visible, visible > 0)
  np.testing.assert_array_equal(tracks.valid, valid > 0)
