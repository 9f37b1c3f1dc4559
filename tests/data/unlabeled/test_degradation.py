"""Degradation: points stay on the picture's content; JPEG loses detail."""

import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from tapjax.data.unlabeled import degradation
from tapjax.data.unlabeled.degradation import DegradationConfig
from tapjax.data.unlabeled.degradation import Motion

pytestmark = pytest.mark.slow


def make_pattern(height=48, width=64):
  """Returns a smooth picture whose colors encode the position."""
  y, x = np.mgrid[:height, :width] + 0.5
  return (
      np.stack([x / width, y / height, np.full_like(x, 0.5)], axis=-1) * 2 - 1
  )


def test_points_move_with_the_picture():
  picture = make_pattern()
  video = jnp.asarray(np.stack([picture] * 5))
  motion = degradation.draw_motion(
      jax.random.key(3), DegradationConfig(least_scale=0.5)
  )
  moved = jax.jit(degradation.move_video)(video, motion)
  points = np.asarray([[10.0, 12], [40, 20], [31.5, 30.5]])[:, None].repeat(
      5, 1
  )
  shown = np.asarray(
      degradation.to_canvas(jnp.asarray(points), motion, (48, 64))
  )
  for n, t in np.ndindex(shown.shape[:2]):
    x, y = shown[n, t]
    color = np.asarray(moved)[t, int(y), int(x)]
    place = (color[:2] + 1) / 2 * (64, 48)
    # Within the pixels that were shrunk into one.
    np.testing.assert_allclose(place, points[n, t], atol=1.5)
  restored = degradation.from_canvas(jnp.asarray(shown), motion, (48, 64))
  np.testing.assert_allclose(restored, points, atol=1e-4)
  # The canvas is black, and something of it is seen.
  assert np.isclose(np.asarray(moved), -1, atol=1e-5).all(axis=-1).any()


def test_a_frame_that_is_not_shrunk_stays():
  video = jax.random.uniform(jax.random.key(0), (3, 16, 16, 3), minval=-1)
  still = Motion(
      jnp.ones((2, 2)), jax.random.uniform(jax.random.key(1), (2, 2))
  )
  np.testing.assert_allclose(
      degradation.move_video(video, still), video, atol=1e-5
  )


@pytest.mark.parametrize('quality', [10, 40, 90])
def test_degraded_like_a_file_of_that_quality(quality):
  generator = np.random.default_rng(0)
  coarse = generator.uniform(0, 255, (6, 8, 3)).astype(np.uint8)
  picture = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
  file = io.BytesIO()
  picture.save(file, 'JPEG', quality=quality, subsampling=0)
  expected = np.asarray(Image.open(file), np.float32) / 127.5 - 1
  video = jnp.asarray(np.asarray(picture, np.float32) / 127.5 - 1)[None]
  degraded = np.asarray(
      jax.jit(degradation.degrade_jpeg)(video, jnp.float32(quality))
  )[0]
  # Files hold integers, of brightness and of color: a few levels of 255.
  assert np.abs(degraded - expected).mean() < 2 / 127.5
  lost = np.abs(np.asarray(video[0]) - expected).mean()
  assert np.abs(degraded - expected).mean() < 0.8 * lost + 0.5 / 127.5


def test_sizes_that_are_no_multiple_of_eight():
  video = jax.random.uniform(jax.random.key(0), (1, 20, 18, 3), minval=-1)
  degraded = degradation.degrade_jpeg(video, jnp.float32(20))
  assert degraded.shape == video.shape
  assert (
      np.asarray(degraded[0, :16, :16]) != np.asarray(video[0, :16, :16])
  ).any()
  np.testing.assert_array_equal(degraded[0, 16:], video[0, 16:])


@pytest.mark.parametrize(
    'settings', [{'least_scale': 0.0}, {'jpeg_quality': (60.0, 20.0)}], ids=str
)
def test_settings_that_cannot_be(settings):
  with pytest.raises(ValueError, match='must be'):
    DegradationConfig(**settings)
