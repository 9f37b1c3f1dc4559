"""Figures of training: what they show is where it belongs."""

import numpy as np
import pytest

from tapjax.visualization import figures

GRAY = np.full((3, 32, 48, 3), 90, np.uint8)


def find_colored(picture):
  """Pixels of a color, as none of frames, letters and the paper has."""
  spread = picture.max(axis=-1).astype(int) - picture.min(axis=-1)
  return np.argwhere(spread > 60)


def test_predictions_are_drawn_where_they_are():
  """Frames of two columns; a step right and down, and one off the frame."""
  positions = np.asarray([[0.25, 0.5], [0.5, 0.5], [0.75, 0.5]])[:, None]
  picture = figures.draw_predictions(GRAY, positions, positions)
  assert picture.dtype == np.uint8
  tall = round(256 * 32 / 48)
  left, top = 8 + 256 + 8, 22
  tile = picture[top : top + tall, left : left + 256]
  y, x = find_colored(tile).mean(axis=0)
  # Halfway between where the path begins and where it has come to.
  assert x == pytest.approx(256 * 0.46, abs=16)
  assert y == pytest.approx(tall / 2, abs=2)
  away = figures.draw_predictions(GRAY, positions + 9, positions + 9)
  assert len(find_colored(away)) == 0


def test_attention_has_rows_and_columns():
  weights = np.zeros((3, 3))
  weights[0, 2] = 1.0  # The first frame looks at the last one.
  picture = figures.draw_attention(GRAY, weights)
  top = 22 + round(132 * 32 / 48) + 2 * 8 + 22
  box = picture[top : top + 300, 66 : 66 + 300]
  cells = box[np.ix_([50, 150, 250], [50, 150, 250])]
  expected = np.zeros((3, 3, 3))
  expected[0, 2] = 255
  np.testing.assert_array_equal(cells, expected)
  heads = figures.draw_heads(np.stack([weights] * 5))
  assert heads.shape == (2 * 388, 4 * 460, 3)


def test_curves_rise_and_fall():
  picture = figures.draw_curves(
      {'up': [0.0, 1.0, 2.0], 'one': [1.0]}, 'A', 'epoch'
  )
  blue = (picture[..., 2].astype(int) - picture[..., 0] > 100).nonzero()
  # Below the names of the curves; from the left below to the right above.
  kept = blue[1] < 500
  slope = np.polyfit(blue[1][kept], blue[0][kept], 1)[0]
  assert slope == pytest.approx(-(460 - 98) / (760 - 102), rel=0.05)
  for curves in ({}, {'nothing': ()}, {'odd': [np.nan, -1.0, np.inf]}):
    assert figures.draw_curves(curves, 'A', 'b').shape == picture.shape


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 0.03, [0, 0.01, 0.02, 0.03]),
        (0, 1.7, [0, 0.5, 1, 1.5, 2]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
    ids=str,
)
def test_ticks_are_round_and_around(low, high, expected):
  np.testing.assert_allclose(
      figures.choose_ticks(low, high), expected, atol=1e-9
  )


def test_dashes_are_as_long_as_gaps():
  corner = np.asarray([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
  dashes = figures.cut_dashes(corner, 2.0)
  lengths = [
      np.linalg.norm(np.diff(dash, axis=0), axis=-1).sum() for dash in dashes
  ]
  np.testing.assert_allclose(lengths, [2, 2])
  np.testing.assert_allclose(dashes[1], [[3, 1], [3, 3]])
  assert figures.cut_dashes(corner[:1], 2.0) == []


def test_heat_is_from_black_to_white():
  colors = figures.color_heat(np.asarray([0, 1 / 3, 2 / 3, 1.0]))
  expected = [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255]]
  np.testing.assert_array_equal(colors, expected)
