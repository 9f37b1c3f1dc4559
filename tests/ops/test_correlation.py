import functools

import jax
from jax.test_util import check_grads
import numpy as np
import pytest

from tapjax.ops.correlation import correlate_neighborhoods
from tapjax.ops.correlation import correlate_patches
from tapjax.ops.correlation import correlate_patches_in_frames


def correlate_slowly(grid, points, vectors, radius):
  """Reads one tap at a time, with zeros beyond the border."""
  height, width, _ = grid.shape
  offsets = range(-radius, radius + 1)
  rows = []
  for (y, x), vector in zip(points, vectors, strict=True):
    for dy in offsets:
      for dx in offsets:
        total = 0.0
        top, left = int(np.floor(y + dy - 0.5)), int(np.floor(x + dx - 0.5))
        for row in (top, top + 1):
          for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
              weight = (1 - abs(y + dy - 0.5 - row)) * (
                  1 - abs(x + dx - 0.5 - column)
              )
              total += weight * grid[row, column] @ vector
        rows.append(total)
  return np.asarray(rows).reshape(len(points), -1)


@pytest.mark.parametrize(
    ('point', 'radius'),
    [
        pytest.param((3.5, 4.5), 1, id='on-a-center'),
        pytest.param((2.3, 4.9), 3, id='between-cells'),
        pytest.param((0.1, 7.9), 3, id='over-the-border'),
        pytest.param((-2.6, 3.0), 3, id='mostly-outside'),
        pytest.param((-4.4, 3.0), 3, id='one-row-from-nothing'),
        pytest.param((1e9, -1e9), 3, id='runaway'),
    ],
)
def test_agrees_with_slow_reading(point, radius):
  generator = np.random.default_rng(0)
  grid = generator.normal(size=(6, 8, 5)).astype(np.float32)
  vectors = generator.normal(size=(1, 5)).astype(np.float32)
  points = np.asarray([point], np.float32)
  scores = jax.jit(correlate_patches, static_argnums=3)(
      grid, points, vectors, radius
  )
  expected = correlate_slowly(grid, points.astype(float), vectors, radius)
  np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_gradients_are_those_of_differences():
  generator = np.random.default_rng(2)
  grid = generator.normal(size=(5, 6, 3)).astype(np.float32)
  vectors = generator.normal(size=(4, 3)).astype(np.float32)
  # Two share cells, one is at the border and one is outside.
  points = np.float32([[2.8, 3.1], [2.2, 3.6], [0.2, 5.8], [-4.0, 9.0]])
  correlate = jax.jit(functools.partial(correlate_patches, radius=1))
  check_grads(correlate, (grid, points, vectors), 1, ['rev'], eps=1e-2)


def test_points_have_frames_of_their_own():
  generator = np.random.default_rng(1)
  grids = generator.normal(size=(3, 6, 8, 5)).astype(np.float32)
  vectors = generator.normal(size=(4, 2, 5)).astype(np.float32)
  points = np.float32([[3.5, 4.5], [0.1, 7.9], [2.3, 4.9], [-2.6, 3.0]])
  frames = np.asarray([2, 0, 1, 2])
  scores = jax.jit(correlate_patches_in_frames, static_argnums=4)(
      grids, frames, points, vectors, 2
  )
  for row, frame in enumerate(frames):
    for k in range(2):
      expected = correlate_slowly(
          grids[frame], points[row : row + 1], vectors[row, k : k + 1], 2
      )
      np.testing.assert_allclose(
          scores[row, k].reshape(1, -1), expected, atol=1e-5
      )


@pytest.mark.parametrize('radius', [1, 3])
def test_several_vectors_are_as_one_each(radius):
  generator = np.random.default_rng(0)
  grid = generator.normal(size=(9, 11, 4)).astype(np.float32)
  points = np.asarray(
      [[4.5, 5.5], [3.2, 7.9], [0.1, 10.9], [-2.7, 4], [8.9, 0], [1e9, -1e9]],
      np.float32,
  )
  vectors = generator.normal(size=(len(points), 5, 4)).astype(np.float32)
  scores = jax.jit(correlate_neighborhoods, static_argnums=3)(
      grid, points, vectors, radius
  )
  side = 2 * radius + 1
  assert scores.shape == (len(points), 5, side, side)
  for i in range(5):
    expected = jax.jit(correlate_patches, static_argnums=3)(
        grid, points, vectors[:, i], radius
    )
    np.testing.assert_allclose(
        scores[:, i].reshape(len(points), -1), expected, atol=1e-5
    )
