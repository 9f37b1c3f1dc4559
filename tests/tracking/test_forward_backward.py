"""Agreement: 1 for tracks that lead home, less the further they end away."""

import numpy as np
import pytest

from tapjax.tracking.forward_backward import measure_agreement
from tapjax.types import Tracks

SIZE = 128, 256
FRAMES = 9


def follow(points, drift):
  """Tracks points that move right, and slip off downwards by `drift`."""
  t, y, x = points.T[..., None]
  away = np.arange(FRAMES) - t
  positions = np.stack([x + 2 * away, y + drift * np.abs(away)], axis=-1)
  return Tracks(
      positions.astype(np.float32),
      np.ones(positions.shape[:2], bool),
      None,
      None,
  )


QUERIES = np.float32([[0, 30, 40], [4, 50, 60]])


@pytest.mark.parametrize('together', [True, False])
def test_perfect_tracks_agree(together):
  calls = []

  def track(points):
    calls.append(len(points))
    return follow(points, 0.0)

  agreement = measure_agreement(
      track,
      QUERIES,
      follow(QUERIES, 0.0),
      SIZE,
      num_checks=3,
      together=together,
  )
  np.testing.assert_array_equal(agreement, np.ones((2, FRAMES)))
  assert calls == ([6] if together else [2, 2, 2])


def test_agreement_halves_with_the_radius():
  # There it slips down by 1 a frame, and back too: 2 pixels of 128, 4 of 256.
  agreement = measure_agreement(
      lambda points: follow(points, 1.0),
      QUERIES,
      follow(QUERIES, 1.0),
      SIZE,
      num_checks=FRAMES,
      radius=8.0,
  )
  expected = 2.0 ** -(np.abs(np.arange(FRAMES) - QUERIES[:, :1]) * 4 / 8)
  np.testing.assert_allclose(agreement, expected, rtol=1e-5)


def test_what_is_between_checks_is_interpolated_and_hidden_is_none():
  tracks = follow(QUERIES[:1], 1.0)
  tracks.visible[0, 5] = False
  tracks.positions[0, 6, 0] = 300.0  # Outside.
  agreement = measure_agreement(
      lambda points: follow(points, 1.0),
      QUERIES[:1],
      tracks,
      SIZE,
      num_checks=2,
  )
  last = 2.0**-8
  expected = 1 + (last - 1) * np.arange(FRAMES) / 8
  expected[[5, 6]] = 0
  np.testing.assert_allclose(agreement[0], expected, rtol=1e-5)


def test_no_queries_and_bad_settings():
  none = follow(np.zeros((0, 3), np.float32), 0.0)
  assert measure_agreement(follow, QUERIES[:0], none, SIZE).shape == (0, FRAMES)
  tracks = follow(QUERIES, 0.0)
  with pytest.raises(ValueError, match='num_checks must be at least 1'):
    measure_agreement(follow, QUERIES, tracks, SIZE, num_checks=0)
