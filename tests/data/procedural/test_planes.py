"""Planes in space, and their maps to pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.procedural import planes
from tests.data.procedural.test_rendering import CONFIG
from tests.data.procedural.test_rendering import get_poser
from tests.data.procedural.test_rendering import get_renderer
from tests.data.procedural.test_rendering import get_scene
from tests.data.procedural.test_rendering import HEIGHT
from tests.data.procedural.test_rendering import make_plain_look

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('seed', range(4))
def test_maps_undo_each_other(seed):
  pose = get_poser()(get_scene(seed), 2.5)
  for layer in range(CONFIG.num_objects + 1):
    own = planes.select_layer(pose, jnp.asarray(layer))
    points = jax.random.uniform(jax.random.key(seed), (50, 2)) * 2 - 1
    pixels = planes.map_to_pixels(own, points)
    back = planes.map_to_plane(own, pixels)
    np.testing.assert_allclose(
        planes.map_to_pixels(own, back), pixels, atol=2e-3, rtol=1e-5
    )
    np.testing.assert_allclose(back, points, atol=1e-3)


def test_moving_a_layer_by_pixels_moves_its_pixels_by_as_much():
  scene = get_scene(3)
  still = scene.motion._replace(amplitude=0 * scene.motion.amplitude)
  camera = scene.camera._replace(amplitude=0 * scene.camera.amplitude)
  scene = scene._replace(
      background_texture=0 * scene.background_texture,
      is_present=jnp.arange(7) == 1,
      radius=jnp.full(7, 50.0),
      home=jnp.full((7, 2), -20.0),
      motion=still,
      camera=camera,
  )
  # Four columns and three rows, of 256 / 48 units each.
  shift = jnp.asarray([[4.0, 3.0]]) * (planes.FRAME_UNITS / HEIGHT)
  look = make_plain_look()
  before = np.asarray(get_renderer()(scene, look, 1.0))
  after = get_renderer()(scene._replace(home=scene.home + shift), look, 1.0)
  np.testing.assert_allclose(after[3:, 4:], before[:-3, :-4], atol=1e-4)
  assert before.max() > 0.1
  assert before[:-3, :-4].sum() == pytest.approx(before.sum())
