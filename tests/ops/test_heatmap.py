import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.ops.heatmap import soft_argmax


def make_logits(**cells):
  heatmap = np.full((1, 16, 20), 1e-30, np.float32)
  for place, value in cells.items():
    y, x = map(int, place[1:].split('_'))
    heatmap[0, y, x] = value
  return jnp.log(heatmap)


@pytest.mark.parametrize(
    ('logits', 'expected'),
    [
        pytest.param(make_logits(c3_7=1.0), (7.5, 3.5), id='one-cell'),
        pytest.param(
            make_logits(c3_7=0.6, c3_8=0.2), (7.75, 3.5), id='weighted'
        ),
        pytest.param(
            make_logits(c3_2=0.6, c3_7=0.4), (2.5, 3.5), id='at-radius-is-out'
        ),
        pytest.param(
            make_logits(c3_2=0.6, c3_6=0.6), (4.5, 3.5), id='within-radius'
        ),
        pytest.param(
            make_logits(c9_2=0.5, c2_15=0.5), (15.5, 2.5), id='first-of-a-tie'
        ),
        pytest.param(
            make_logits(c0_0=0.5, c2_0=0.5), (0.5, 1.5), id='in-a-corner'
        ),
    ],
)
def test_mean_around_the_peak(logits, expected):
  position = jax.jit(soft_argmax, static_argnums=1)(logits, 5.0)
  np.testing.assert_allclose(position, [expected], atol=1e-5)


@pytest.mark.slow
def test_it_is_that_over_all_cells():
  """Reference over all cells, with zero weight for distant ones."""
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(40, 12, 9)).astype(np.float32) * 3
  peaks = [(0, 0), (11, 8), (0, 8), (5, 4), (11, 0)]
  for row, (y, x) in enumerate(peaks):
    logits[row, y, x] = 20
  logits[5] = 0
  expected = []
  rows, columns = np.mgrid[:12, :9]
  for cells in logits:
    y, x = np.unravel_index(np.argmax(cells), cells.shape)
    weights = np.exp(cells - cells[y, x])
    weights[(rows - y) ** 2 + (columns - x) ** 2 >= 25] = 0
    weights /= weights.sum()
    middle = [np.sum(weights * columns), np.sum(weights * rows)]
    expected.append(np.add(middle, 0.5))
  positions = jax.jit(soft_argmax, static_argnums=1)(logits, 5.0)
  np.testing.assert_allclose(positions, expected, atol=2e-5)
