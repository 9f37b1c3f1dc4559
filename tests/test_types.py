"""Confidence of tracks, for trackers with and without heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.types import Tracks

LOGITS = np.float32([[-200, -2, 0, 1.5, 200]])


def make_tracks(occlusion, uncertainty):
  visible = np.array([[True, False, True, False, True]])
  return Tracks(
      np.zeros((1, 5, 2), np.float32), visible, occlusion, uncertainty
  )


def sigmoid(x):
  return 1 / (1 + np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize(
    ('occlusion', 'uncertainty', 'expected'),
    [
        (LOGITS, None, sigmoid(-LOGITS)),
        (LOGITS, LOGITS[:, ::-1], sigmoid(-LOGITS) * sigmoid(-LOGITS[:, ::-1])),
        (None, LOGITS, sigmoid(-LOGITS)),
        (None, None, np.float32([[1, 0, 1, 0, 1]])),
    ],
    ids=['occlusion', 'both', 'uncertainty', 'neither'],
)
def test_confidence(occlusion, uncertainty, expected):
  tracks = make_tracks(occlusion, uncertainty)
  assert isinstance(tracks.confidence, np.ndarray)
  assert tracks.confidence.dtype == np.float32
  np.testing.assert_allclose(tracks.confidence, expected, atol=1e-6)
  traced = jax.jit(lambda tracks: tracks.confidence)(
      jax.tree.map(jnp.asarray, tracks)
  )
  np.testing.assert_allclose(traced, expected, atol=1e-6)
  for threshold in (0.01, 0.3, 0.9):
    np.testing.assert_array_equal(
        tracks.apply_threshold(threshold).visible, expected > threshold
    )
  with pytest.raises(ValueError, match='less than 1; got 1'):
    tracks.apply_threshold(1.0)
