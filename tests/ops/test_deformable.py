import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.ops import deformable

SIZES = ((4, 6), (2, 3))
NUM_TOKENS = deformable.count_tokens(SIZES)
_read = jax.jit(deformable.read_samples, static_argnums=1)


def read_slowly(tokens, points):
  """Reference by plain loops over samples, levels and cells."""
  tokens, points = np.asarray(tokens), np.asarray(points)
  values = np.zeros((*points.shape[:-1], tokens.shape[-1]))
  inside = np.zeros(points.shape[:-1])
  for place in np.ndindex(points.shape[:-1]):
    height, width = SIZES[place[2]]
    first = sum(h * w for h, w in SIZES[: place[2]])
    x, y = points[place] * (width, height) - 0.5
    for row in range(height):
      for column in range(width):
        weight = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
        values[place] += weight * tokens[first + row * width + column]
        inside[place] += weight
  return values, inside


def make_inputs(seed=0, num=5, heads=2, num_points=3):
  generator = np.random.default_rng(seed)
  tokens = generator.normal(size=(NUM_TOKENS, 4)).astype(np.float32)
  shape = (num, heads, len(SIZES), num_points)
  points = generator.uniform(-0.3, 1.3, (*shape, 2)).astype(np.float32)
  weights = generator.normal(size=shape).astype(np.float32)
  return tuple(map(jnp.asarray, (tokens, points, weights)))


def test_reading_is_bilinear_and_zero_outside():
  tokens, points, _ = make_inputs()
  samples = _read(tokens, SIZES, points, jnp.zeros(len(points), int))
  values, inside = read_slowly(tokens, points)
  np.testing.assert_allclose(samples.values, values, atol=1e-5)
  np.testing.assert_allclose(samples.inside, inside, atol=1e-5)
  assert inside.min() == 0
  assert inside.max() > 0.99


@pytest.mark.parametrize(
    ('point', 'expected', 'inside'),
    [
        ((0.5 / 6, 0.5 / 4), 0.0, 1.0),
        ((5.5 / 6, 3.5 / 4), 23.0, 1.0),
        ((1 / 6, 0.5 / 4), 0.5, 1.0),
        ((5.5 / 6, 1.0), 11.5, 0.5),
        ((1.0, 1.0), 5.75, 0.25),
        ((-1e9, 0.5), 0.0, 0.0),
        ((0.5, math.inf), 0.0, 0.0),
    ],
    ids=str,
)
def test_reading_where_the_answer_is_known(point, expected, inside):
  """Cells of the first level hold their index."""
  tokens = jnp.arange(NUM_TOKENS, dtype=jnp.float32)[:, None]
  points = np.broadcast_to(np.float32(point), (1, 1, 2, 1, 2))
  samples = _read(tokens, SIZES, points, jnp.zeros(1, jnp.int32))
  np.testing.assert_allclose(samples.values[0, 0, 0, 0, 0], expected, atol=1e-5)
  np.testing.assert_allclose(samples.inside[0, 0, 0, 0], inside, atol=1e-6)


def test_reading_one_of_several_pyramids():
  tokens, points, _ = make_inputs()
  others = jnp.concatenate([tokens + 1, tokens, tokens - 1])
  first = jnp.full(len(points), NUM_TOKENS)
  ours = _read(others, SIZES, points, first)
  theirs = _read(tokens, SIZES, points, 0 * first)
  np.testing.assert_array_equal(ours.values, theirs.values)


def test_sum_is_that_of_the_readings():
  tokens, points, weights = make_inputs()
  by_head = tokens.reshape(NUM_TOKENS, 2, 2)
  total = jax.jit(deformable.sum_samples, static_argnums=1)(
      by_head, SIZES, points, weights
  )
  values, _ = read_slowly(tokens, points)
  values = values.reshape(*values.shape[:-1], 2, 2)
  expected = np.einsum('nklpkc,nklp->nkc', values, weights)
  np.testing.assert_allclose(total, expected, atol=1e-5)


def test_sampling_a_ramp_returns_the_coordinate():
  columns = [
      np.tile((np.arange(width) + 0.5) / width, height)
      for height, width in SIZES
  ]
  tokens = jnp.asarray(np.concatenate(columns), jnp.float32)[:, None]
  points = np.random.default_rng(0).uniform(0.25, 0.75, (9, 1, 2, 1, 2))
  samples = _read(
      tokens, SIZES, jnp.asarray(points, jnp.float32), jnp.zeros(9, jnp.int32)
  )
  np.testing.assert_allclose(samples.values[..., 0], points[..., 0], atol=1e-6)


def _sum_of_reading(tokens, points, weights):
  samples = deformable.read_samples(
      tokens, SIZES, points, jnp.zeros(len(points), jnp.int32)
  )
  scores = jnp.sum(jnp.sin(samples.values), axis=-1) + samples.inside
  return jnp.sum(scores * weights)


def _sum_of_sum(tokens, points, weights):
  by_head = tokens.reshape(NUM_TOKENS, 2, 2)
  total = deformable.sum_samples(by_head, SIZES, points, weights)
  return jnp.sum(jnp.sin(total))


@pytest.mark.slow
@pytest.mark.parametrize('function', [_sum_of_reading, _sum_of_sum])
def test_gradients_are_those_of_finite_differences(function):
  """Along random directions that leave no sample's cell."""
  tokens, _, weights = make_inputs()
  generator = np.random.default_rng(1)
  # Positions of samples in cells, away from the centers, where slopes jump;
  # some of them are outside of the level.
  shape = weights.shape
  sizes_xy = np.asarray(SIZES)[None, None, :, None, ::-1]
  cells = generator.integers(-2, sizes_xy + 1, (*shape, 2))
  fractions = generator.uniform(0.2, 0.8, (*shape, 2))
  points = ((cells + 0.5 + fractions) / sizes_xy).astype(np.float32)
  arguments = tokens, jnp.asarray(points), weights
  gradients = jax.jit(jax.grad(function, argnums=(0, 1, 2)))(*arguments)
  evaluate = jax.jit(function)
  for place, scale in enumerate((0.02, 0.005, 0.02)):
    for _ in range(3):
      direction = generator.uniform(-1, 1, arguments[place].shape)
      step = jnp.asarray(scale * direction, jnp.float32)
      ends = [
          evaluate(
              *arguments[:place],
              arguments[place] + sign * step,
              *arguments[place + 1 :],
          )
          for sign in (1, -1)
      ]
      difference = (ends[0] - ends[1]) / 2
      slope = jnp.sum(gradients[place] * step)
      np.testing.assert_allclose(slope, difference, rtol=2e-3, atol=2e-5)
