"""Settings and random motions of procedural scenes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.procedural import planes
from tapjax.data.procedural import scenes
from tests.support.narrow import SCENE


def test_waves_have_the_speed_that_is_asked_for():
  """The first wave's speed, as a root mean square, within its random pace."""
  amplitude = jnp.asarray([40.0, 5.0, 0.0])
  speed = jnp.asarray([2.0, 4.0, 3.0])
  waves = jax.jit(scenes._make_waves)(jax.random.key(0), amplitude, speed)
  rms = waves.amplitude[:, 0] * waves.rate[:, 0] / np.sqrt(2)
  ratio = np.asarray(rms / speed)
  assert ((ratio > 0.79) & (ratio < 1.21)).all()
  # Periods are not too short, so the amplitude grew with the speed.
  assert (waves.rate[:, 0] <= 1.21 * 2 * np.pi / 10).all()
  assert waves.amplitude[2, 0] > 0


def test_what_stands_still_does_not_move():
  config = dataclasses.replace(SCENE, still_share=1.0)
  waves = jax.jit(scenes._make_motion, static_argnums=1)(
      jax.random.key(1), config
  )
  places = [
      planes.evaluate_waves(
          jax.tree.map(lambda array: array[0], waves), jnp.asarray(time)
      )
      for time in (0.0, 3.0)
  ]
  # Turns and zooms of still objects are still as well.
  np.testing.assert_allclose(*[place[:3] for place in places], atol=1e-5)


def test_ranges_are_uniform_in_the_logarithm():
  chance = jnp.asarray([0.0, 0.5, 1.0])
  values = scenes._log_uniform(chance, (1.0, 100.0))
  np.testing.assert_allclose(values, [1, 10, 100], rtol=1e-5)


def test_periods_hold_an_outline_or_the_frame():
  config = dataclasses.replace(SCENE, resolution=(16, 32))
  periods = scenes.get_texture_periods(config)
  np.testing.assert_allclose(periods, [8, 2.5, 2.5])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'num_frames': 0}, 'at least 1'),
        ({'texture_size': 12}, 'power of two'),
        ({'texture_size': 4}, 'at least 8'),
    ],
)
def test_impossible_settings(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SCENE, **change)
