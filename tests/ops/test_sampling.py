import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.ops.sampling import read_at_time
from tapjax.ops.sampling import read_in_frames
from tapjax.ops.sampling import read_neighborhoods
from tapjax.ops.sampling import read_neighborhoods_at_time


def make_ramp(height, width):
  """A grid whose value is the position (y, x) of each cell's center."""
  y, x = np.meshgrid(
      np.arange(height) + 0.5, np.arange(width) + 0.5, indexing='ij'
  )
  return jnp.asarray(np.stack([y, x], axis=-1), jnp.float32)


@pytest.mark.parametrize(
    ('point', 'expected'),
    [
        pytest.param((0.5, 0.5), (0.5, 0.5), id='first-center'),
        pytest.param((2.0, 3.25), (2.0, 3.25), id='between-cells'),
        pytest.param((0.0, 0.0), (0.5, 0.5), id='outer-corner-is-held'),
        pytest.param((4.0, 6.0), (3.5, 5.5), id='other-corner-is-held'),
        pytest.param((-9.0, 2.0), (0.5, 2.0), id='far-outside-is-held'),
    ],
)
def test_ramp_returns_the_coordinate(point, expected):
  value = jax.jit(read_at_time)(
      make_ramp(4, 6)[None], jnp.asarray([(0.0, *point)])
  )
  np.testing.assert_allclose(value[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ('time', 'expected'),
    [
        pytest.param(0.0, 0.0, id='first-frame'),
        pytest.param(2.5, 2.5, id='halfway'),
        pytest.param(3.0, 3.0, id='last-frame'),
    ],
)
def test_time_has_no_half_offset(time, expected):
  frames = jnp.arange(4.0).reshape(4, 1, 1, 1) * jnp.ones((1, 3, 3, 1))
  value = jax.jit(read_at_time)(frames, jnp.asarray([[time, 1.2, 0.7]]))
  np.testing.assert_allclose(value, [[expected]], atol=1e-6)


def test_whole_frames_are_read_as_at_their_time():
  grids = jnp.stack([make_ramp(4, 6), 10 * make_ramp(4, 6)])
  points = jnp.asarray([[2.0, 3.25], [-9.0, 2.0], [1e9, -1e9], [4.0, 6.0]])
  frames = jnp.asarray([0, 1, 1, 0])
  values = jax.jit(read_in_frames)(grids, frames, points)
  held = jnp.clip(points, 0, 100)
  expected = jax.jit(read_at_time)(
      grids, jnp.concatenate([frames[:, None].astype(float), held], axis=1)
  )
  np.testing.assert_allclose(values, expected, atol=1e-5)


def test_neighborhoods_are_reads_at_offsets():
  generator = np.random.default_rng(0)
  grids = generator.normal(size=(3, 6, 8, 2)).astype(np.float32)
  points = np.asarray(
      [[0, 3.0, 4.0], [1, 2.3, 4.9], [1.25, 0, 8], [2, 6, 0.4], [2, 0.5, 0.5]],
      np.float32,
  )
  patches = jax.jit(read_neighborhoods_at_time, static_argnums=2)(
      grids, points, 2
  )
  assert patches.shape == (5, 5, 5, 2)
  for i in range(5):
    for j in range(5):
      moved = points + np.asarray([[0, i - 2, j - 2]], np.float32)
      np.testing.assert_allclose(
          patches[:, i, j], jax.jit(read_at_time)(grids, moved), atol=1e-5
      )


def test_neighborhoods_of_one_grid_are_those_of_its_time():
  generator = np.random.default_rng(0)
  grids = generator.normal(size=(3, 6, 8, 2)).astype(np.float32)
  points = generator.uniform(-3, 11, (20, 2)).astype(np.float32)
  timed = np.concatenate([np.ones((20, 1), np.float32), points], axis=1)
  read = jax.jit(read_neighborhoods, static_argnums=2)
  np.testing.assert_allclose(
      read(grids[1], points, 2),
      jax.jit(read_neighborhoods_at_time, static_argnums=2)(grids, timed, 2),
      atol=1e-5,
  )
  # However far away, it is the border.
  far = np.asarray([[1e30, -1e30]], np.float32)
  border = np.broadcast_to(grids[1, -1, 0], (3, 3, 2))
  np.testing.assert_allclose(read(grids[1], far, 1)[0], border, rtol=1e-6)
