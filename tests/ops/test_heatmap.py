import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.ops.heatmap import soft_argmax


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
