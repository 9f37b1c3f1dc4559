import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.ops.loops import map_frames


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
@pytest.mark.parametrize('at_once', [1, 4])
@pytest.mark.parametrize('num_frames', [1, 3, 4, 6])
def test_every_frame_is_mapped_once_in_order(num_frames, at_once, platform):
  frames = jnp.arange(2.0 * num_frames).reshape(num_frames, 2)
  scales = jnp.arange(1.0, num_frames + 1)
  arguments = {'frame': frames}, scales, None

  @jax.jit
  def run(*arguments):
    return map_frames(
        lambda named, scale, none: (scale * named['frame'], none),
        *arguments,
        platform=platform,
        at_once=at_once,
    )

  scaled, none = run(*arguments)
  assert none is None
  np.testing.assert_array_equal(scaled, frames * scales[:, None])
