"""Tracks of procedural scenes, against their pictures and brute force."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.procedural import planes
from tapjax.data.procedural import rendering
from tapjax.data.procedural import scenes
from tapjax.data.procedural import videos as procedural
from tapjax.data.procedural.videos import ProceduralConfig

pytestmark = pytest.mark.slow

CONFIG = ProceduralConfig(
    num_frames=5,
    resolution=(48, 64),
    num_queries=40,
    num_objects=7,
    texture_size=64,
    num_leaves=4,
    object_radius=(25.0, 70.0),
    # Fast ones, so that much happens in five frames.
    object_speed=(6.0, 50.0),
    camera_speed=(0.5, 12.0),
)
HEIGHT, WIDTH = CONFIG.resolution


@functools.cache
def get_scene_maker():
  return jax.jit(lambda key: scenes.make_scene(key, CONFIG))


@functools.cache
def get_scene(seed):
  return get_scene_maker()(jax.random.key(seed))


@functools.cache
def get_tracer():
  """Returns query frames, layers, points and tracks of a scene."""

  def trace(key, scene):
    frames, layers, points = procedural._choose_points(key, scene, CONFIG)
    return (
        frames,
        layers,
        points,
        *procedural.trace_points(scene, layers, points, CONFIG),
    )

  return jax.jit(trace)


def trace(seed):
  values = get_tracer()(jax.random.key(100 + seed), get_scene(seed))
  return [np.asarray(value) for value in values]


@functools.cache
def get_renderer():
  def render(scene, look, time):
    atlas = rendering.make_atlas(scene)
    return rendering.render_frame(scene, look, atlas, time, CONFIG)

  return jax.jit(render)


@functools.cache
def get_layer_finder():
  """Returns the nearest layers at pixel positions."""

  def find(scene, time, pixels):
    pose = planes.compute_pose(scene, time, CONFIG.resolution)
    return rendering.trace_rays(scene, pose, pixels, jnp.ones(7)).layer

  return jax.jit(find)


def make_plain_look(exposure=0.0):
  look = rendering.make_look(jax.random.key(0), CONFIG)
  return look._replace(
      exposure=jnp.asarray(exposure),
      softness=jnp.ones(7),
      rim=jnp.zeros(7),
      shadow=jnp.zeros(()),
  )


@functools.cache
def get_poser():
  return jax.jit(
      lambda scene, time: planes.compute_pose(scene, time, CONFIG.resolution)
  )


def bend(pose, layer, axis, values):
  waves = zip(
      pose.warp_amplitude[layer, axis],
      pose.warp_frequency[layer, axis],
      pose.warp_phase[layer, axis],
      strict=True,
  )
  return sum(a * np.sin(f * values + p) for a, f, p in waves)


def find_point(pose, layer, pixel):
  """Returns the point of a layer's plane at a pixel, in double precision."""
  x, y, depth = np.linalg.inv(pose.to_pixel[layer]) @ [*pixel, 1.0]
  if depth <= 0:
    return np.array([1e9, 1e9])
  x, y = x / depth, y / depth
  x -= bend(pose, layer, 0, y)
  return np.array([x, y - bend(pose, layer, 1, x)])


def measure_inside(outline, point):
  """Interpolates the grid of distances, by plain loops."""
  size = len(outline)
  place = (point + planes.OUTLINE_REACH) / (2 * planes.OUTLINE_REACH) * size
  column, row = np.clip(place - 0.5, 0, size - 1.001)
  if np.abs(point).max() > planes.OUTLINE_REACH:
    return -1.0
  i, j = int(row), int(column)
  y, x = row - i, column - j
  weights = np.outer([1 - y, y], [1 - x, x])
  return (weights * outline[i : i + 2, j : j + 2]).sum()


def as_doubles(tree):
  return jax.tree.map(lambda values: np.asarray(values, np.float64), tree)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_occlusion_agrees_with_brute_force(seed):
  scene = as_doubles(get_scene(seed))
  _, layers, points, targets, occluded = trace(seed)
  checked = 0
  for time in range(CONFIG.num_frames):
    pose = as_doubles(get_poser()(get_scene(seed), float(time)))
    for row, own in enumerate(layers):
      x, y = pixel = targets[row, time].astype(np.float64)
      hidden = not (0 <= x < WIDTH and 0 <= y < HEIGHT)
      doubtful = min(abs(x), abs(y), abs(x - WIDTH), abs(y - HEIGHT)) < 1e-3
      for nearer in range(own + 1, CONFIG.num_objects + 1):
        if scene.is_present[nearer - 1]:
          local = find_point(pose, nearer, pixel)
          inside = measure_inside(scene.outlines[nearer - 1], local)
          hidden |= inside > 0
          doubtful |= abs(inside) < 1e-3
      if not doubtful:
        checked += 1
        assert hidden == occluded[row, time]
      # The formula back agrees with the one forth.
      np.testing.assert_allclose(
          find_point(pose, own, pixel), points[row], atol=1e-3
      )
  assert checked > 0.9 * occluded.size


def mark_textures(scene, layer, point):
  """Makes all surfaces black, except for a soft bright spot at a point."""
  period = scenes.get_texture_periods(CONFIG)[layer]

  def paint(texture, point):
    size = texture.shape[0]
    axis = (np.arange(size) + 0.5) / size
    share = point / period + 0.5
    gap = [(axis - place + 0.5) % 1 - 0.5 for place in share]
    square = (gap[0][None] ** 2 + gap[1][:, None] ** 2) * size**2
    spot = np.exp(-square / 2 / 1.5**2)
    return np.repeat(spot[:, :, None], 3, axis=-1).astype(np.float32)

  background = np.zeros(scene.background_texture.shape, np.float32)
  objects = np.zeros(scene.object_textures.shape, np.float32)
  if layer == 0:
    background = paint(background, point)
  else:
    objects[layer - 1] = paint(objects[layer - 1], point)
  return scene._replace(
      background_texture=jnp.asarray(background),
      object_textures=jnp.asarray(objects),
  )


@pytest.mark.parametrize('exposure', [0.0, 0.3])
def test_marked_point_is_seen_at_its_target_or_not_at_all(exposure):
  look = make_plain_look(exposure)
  rows, columns = np.indices((11, 11)) + 0.5
  seen = hidden = 0
  for seed in range(16):
    scene = get_scene(seed)
    _, layers, points, targets, occluded = trace(seed)
    x, y = np.moveaxis(targets, -1, 0)
    is_within = (x > 5.5) & (x < WIDTH - 5.5) & (y > 5.5) & (y < HEIGHT - 5.5)
    pairs = np.argwhere(is_within)
    is_hidden = occluded[tuple(pairs.T)]
    chosen = [*pairs[is_hidden][::3], *pairs[~is_hidden][::19]]
    for row, time in chosen:
      x, y = targets[row, time]
      top, left = int(y) - 5, int(x) - 5
      near = np.stack([left + columns, top + rows], axis=-1)
      nearest = get_layer_finder()(scene, time + 0.0, near.astype(np.float32))
      is_own = np.asarray(nearest) == layers[row]
      is_whole = is_own.all() and seen < 12
      if not is_whole and (is_own[3:8, 3:8].any() or hidden >= 6):
        continue  # An outline cuts the spot, or there were enough.
      marked = mark_textures(scene, layers[row], points[row])
      picture = np.asarray(get_renderer()(marked, look, float(time)))
      spot = picture[top : top + 11, left : left + 11, 0]
      assert occluded[row, time] == (not is_whole)
      if occluded[row, time]:
        hidden += 1
        # While the shutter is open, an outline may pass.
        assert spot[4:7, 4:7].max() < 1e-3 or exposure > 0
      else:
        seen += 1
        weight = spot / spot.sum()
        assert left + (weight * columns).sum() == pytest.approx(x, abs=0.12)
        assert top + (weight * rows).sum() == pytest.approx(y, abs=0.12)
  assert seen == 12
  assert hidden >= 4


def test_points_leave_return_and_get_hidden():
  returning = on_objects = 0
  hidden = []
  num = 50
  for seed in range(num):
    frames, layers, _, targets, occluded = trace(seed)
    assert np.isfinite(targets).all()
    assert not occluded[np.arange(len(frames)), frames].any()
    change = np.diff(occluded.astype(int), axis=1)
    returning += (change == -1).any(axis=1).mean() / num
    on_objects += (layers > 0).mean() / num
    hidden.append(occluded.mean())
  assert 0.03 < np.mean(hidden) < 0.4
  assert returning > 0.02
  assert 0.4 < on_objects < 0.9


def test_rays_are_even_about_center_and_middle_of_exposure():
  for num in (1, 4, 5):
    rays = rendering._make_rays(num)
    np.testing.assert_allclose(rays.mean(axis=0), [0, 0, 0, 0.5], atol=1e-6)
    assert all(len(np.unique(column)) == num for column in rays.T)


def test_settings_that_cannot_be():
  with pytest.raises(ValueError, match='power of two'):
    dataclasses.replace(CONFIG, texture_size=100)
  with pytest.raises(ValueError, match='must be at least 1'):
    dataclasses.replace(CONFIG, num_objects=0)
