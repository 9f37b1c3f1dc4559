import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import geometry


def test_colors_span_minus_one_to_one():
  frames = np.asarray([0, 255], np.uint8).reshape(1, 2, 1) * np.ones(
      (1, 2, 3), np.uint8
  )
  video = geometry.normalize_frames(frames)
  np.testing.assert_allclose(video[0, :, 0], [-1, 1])


def test_resolution_change_has_no_half_pixel():
  positions = jnp.asarray([[0.0, 0.0], [640.0, 480.0], [320.5, 100.0]])
  scaled = geometry.rescale_positions(positions, (480, 640), (240, 128))
  np.testing.assert_allclose(
      scaled, [[0, 0], [128, 240], [64.1, 50]], rtol=1e-6
  )
  back = geometry.rescale_positions(scaled, (240, 128), (480, 640))
  np.testing.assert_allclose(back, positions, rtol=1e-6)


def test_query_points_keep_their_time():
  points = jnp.asarray([[2.5, 480.0, 320.0]])
  scaled = geometry.rescale_query_points(points, (480, 640), (240, 128))
  np.testing.assert_allclose(scaled, [[2.5, 240, 64]])


@pytest.mark.parametrize('resolution', [(64, 64), (17, 100), (200, 30)])
def test_resized_ramp_keeps_its_coordinates(resolution):
  """Away from borders, a ramp resized is the ramp of the new coordinates."""
  height, width = 50, 60
  ramp = jnp.asarray(np.arange(width) + 0.5, jnp.float32)[None, :, None]
  ramp = jnp.broadcast_to(ramp, (height, width, 1))
  resized = jax.jit(geometry.resize_video, static_argnums=1)(ramp, resolution)
  expected = (np.arange(resolution[1]) + 0.5) * width / resolution[1]
  inner = slice(resolution[1] // 8, -resolution[1] // 8)
  np.testing.assert_allclose(resized[0, inner, 0], expected[inner], atol=1e-3)


def test_shrinking_averages():
  """Antialiased: a checkerboard becomes grey, it does not alias."""
  board = jnp.asarray(np.indices((32, 32)).sum(0) % 2, jnp.float32)[..., None]
  small = geometry.resize_video(board, (8, 8))
  np.testing.assert_allclose(small, 0.5, atol=0.05)


def test_grid_points_are_cell_centers():
  points = geometry.sample_grid_points((40, 80), 2, frame=3)
  np.testing.assert_allclose(
      points, [[3, 10, 20], [3, 10, 60], [3, 30, 20], [3, 30, 60]]
  )
  with pytest.raises(ValueError, match='points_per_side'):
    geometry.sample_grid_points((40, 80), 0)


def test_random_points_lie_in_the_video():
  points = geometry.sample_random_points(
      np.random.default_rng(0), 5, (40, 80), 200
  )
  assert points.shape == (200, 3)
  assert set(points[:, 0]) == {0, 1, 2, 3, 4}
  assert (points[:, 1] < 40).all()
  assert (points[:, 2] > 40).any()
  assert (points[:, 2] < 80).all()


@pytest.mark.parametrize('size', [(3, 5), (7, 2), (5, 9), (1, 4)], ids=str)
def test_aligned_corners_stay_put(size):
  """A ramp stays one, from the first center to the last."""
  y, x = np.meshgrid(np.arange(5.0), np.arange(4.0), indexing='ij')
  image = jnp.asarray(np.stack([y, x], axis=-1), jnp.float32)[None]
  resized = geometry.resize_corner_aligned(image, size)
  rows = np.linspace(0, 4, size[0]) if size[0] > 1 else np.zeros(1)
  columns = np.linspace(0, 3, size[1])
  np.testing.assert_allclose(resized[0, :, 0, 0], rows, atol=1e-6)
  np.testing.assert_allclose(resized[0, 0, :, 1], columns, atol=1e-6)


@pytest.mark.parametrize('resolution', [(4,), (2, 4, 6, 3)], ids=str)
def test_grids_cover_a_height_and_a_width(resolution):
  with pytest.raises(ValueError, match=r'resolution must be \(height, width\)'):
    geometry.sample_grid_points(resolution, 2)
