import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.ops.heatmap import soft_argmax
from tapjax.ops.heatmap import soft_argmax_near_peak


def make_heatmap(**cells):
  heatmap = np.zeros((1, 16, 20), np.float32)
  for place, value in cells.items():
    y, x = map(int, place[1:].split('_'))
    heatmap[0, y, x] = value
  return jnp.asarray(heatmap)


@pytest.mark.parametrize(
    ('heatmap', 'expected'),
    [
        pytest.param(make_heatmap(c3_7=1.0), (7.5, 3.5), id='one-cell'),
        pytest.param(
            make_heatmap(c3_7=0.6, c3_8=0.2), (7.75, 3.5), id='weighted'
        ),
        pytest.param(
            make_heatmap(c3_2=0.6, c3_7=0.4), (2.5, 3.5), id='at-radius-is-out'
        ),
        pytest.param(
            make_heatmap(c3_2=0.6, c3_6=0.6), (4.5, 3.5), id='within-radius'
        ),
        pytest.param(
            make_heatmap(c9_2=0.5, c2_15=0.5), (15.5, 2.5), id='first-of-a-tie'
        ),
    ],
)
def test_mean_around_the_peak(heatmap, expected):
  position = soft_argmax(heatmap, 5.0)
  np.testing.assert_allclose(position, [expected], atol=1e-5)


@pytest.mark.slow
def test_near_the_peak_is_the_same_for_logits():
  generator = np.random.default_rng(0)
  logits = generator.normal(size=(40, 12, 9)).astype(np.float32) * 3
  peaks = [(0, 0), (11, 8), (0, 8), (5, 4), (11, 0)]
  for row, (y, x) in enumerate(peaks):
    logits[row, y, x] = 20
  logits[5] = 0
  expected = soft_argmax(jax.nn.softmax(logits, axis=(1, 2)), 5.0)
  positions = jax.jit(soft_argmax_near_peak, static_argnums=1)(logits, 5.0)
  np.testing.assert_allclose(positions, expected, atol=2e-5)
