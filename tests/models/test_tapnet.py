"""TAP-Net by itself: shifted channels, settings and cost."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models import tapnet


def test_channels_are_shifted_by_a_frame():
  video = np.arange(2 * 3 * 16, dtype=np.float32).reshape(2, 3, 1, 1, 16)
  shifted = np.asarray(tapnet.shift_channels(jnp.asarray(video)))
  for t in range(3):
    following = video[:, t + 1, ..., -2:] if t < 2 else np.zeros((2, 1, 1, 2))
    previous = video[:, t - 1, ..., :2] if t else np.zeros((2, 1, 1, 2))
    expected = np.concatenate(
        [following, video[:, t, ..., 2:-2], previous], axis=-1
    )
    np.testing.assert_array_equal(shifted[:, t], expected)


@pytest.mark.parametrize('resolution', [(100, 256), (0, 256)])
def test_resolutions_are_multiples_of_the_stride(resolution):
  config = dataclasses.replace(tapnet.TAPNET, resolution=resolution)
  with pytest.raises(ValueError, match='must be multiples of 8'):
    tapnet.TapNetFunctions(config)


def test_cost_grows_with_frames_and_with_queries():
  count = tapnet.count_operations
  one, two = (count(tapnet.TAPNET, 1, n) for n in (1, 2))
  assert count(tapnet.TAPNET, 7, 1) == pytest.approx(7 * one)
  assert count(tapnet.TAPNET, 1, 3) == pytest.approx(two + (two - one))
  wide = dataclasses.replace(tapnet.TAPNET, resolution=(512, 256))
  assert count(wide, 1, 1) == pytest.approx(2 * one, rel=0.01)


def test_features_of_a_frame_depend_on_its_neighbors():
  functions = tapnet.TapNetFunctions(tapnet.TAPNET)
  assert functions.temporal_context == 4
  alone = dataclasses.replace(tapnet.TAPNET, shifted_units=0)
  assert tapnet.TapNetFunctions(alone).temporal_context == 0
