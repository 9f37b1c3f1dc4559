import jax.numpy as jnp
import numpy as np

from tapjax.models.locotrack.refinement import encode_motion


def test_motion_of_a_step():
  """One step by 8 pixels right and 4 down, between the second and third."""
  positions = jnp.asarray([[[10.0, 20.0], [10.0, 20.0], [18.0, 24.0]]])
  motion = np.asarray(encode_motion(positions, (256, 128)))[0]
  step = np.asarray([8 / 128, 4 / 256], np.float32)
  zeros = np.zeros(2)
  np.testing.assert_allclose(motion[0, :44], 0, atol=1e-6)
  np.testing.assert_allclose(motion[0, 44:], 1, atol=1e-6)
  np.testing.assert_allclose(motion[1, :4], [*-step, *zeros], atol=1e-6)
  np.testing.assert_allclose(motion[2, :4], [*zeros, *step], atol=1e-6)
  for k in range(10):
    phase = 2.0**k * np.asarray([*zeros, *step])
    waves = motion[2, 4 + 4 * k : 8 + 4 * k]
    np.testing.assert_allclose(waves, np.sin(phase), atol=1e-5)
    waves = motion[2, 44 + 4 * k : 48 + 4 * k]
    np.testing.assert_allclose(waves, np.cos(phase), atol=1e-4)
