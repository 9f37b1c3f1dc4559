import haiku as hk
import jax
import numpy as np
import pytest

from tapjax.nn.temporal_transformer import DirectedAttention
from tapjax.nn.temporal_transformer import make_directed_bias


@pytest.mark.parametrize(
    ('num_heads', 'slopes'),
    [
        (2, [0.0416667]),
        (4, [0.204124, 0.0416667]),
        (6, [0.346681, 0.120187, 0.0416667]),
    ],
)
def test_bias_of_either_direction(num_heads, slopes):
  bias = np.asarray(make_directed_bias(num_heads, 4))
  for head, slope in enumerate(slopes * 2):
    looks_back = head < num_heads // 2
    for i in range(4):
      for j in range(4):
        seen = j <= i if looks_back else j >= i
        expected = -slope * abs(i - j) if seen else -1e9
        np.testing.assert_allclose(bias[head, i, j], expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(('half', 'seen'), [(0, [0, 1, 2, 3]), (1, [3, 4, 5])])
def test_heads_see_one_side(half, seen):
  """Frames that frame 3 attends to, by half of the heads."""
  attend = hk.transform(
      lambda x: DirectedAttention(8, 4, name='a')(x, np.asarray(6))
  )
  x = jax.random.normal(jax.random.key(0), (1, 6, 8))
  params = attend.init(jax.random.key(1), x)
  other = slice(4, None) if half == 0 else slice(None, 4)
  params['a/~/output']['w'] = params['a/~/output']['w'].at[other].set(0)
  slopes = jax.jit(jax.jacobian(lambda x: attend.apply(params, None, x)[0, 3]))(
      x
  )
  depends = np.abs(slopes).max(axis=(0, 1, 3)) > 1e-6
  assert np.flatnonzero(depends).tolist() == seen
