"""Exact geometry of procedural scenes: layers of moving, bending planes.

A scene is a background and objects in front of it, ordered by depth. Each is a
layer: a plane with a texture and an outline. A point of a plane is mapped to a
pixel in two steps, at any time,

  warped = point bent along two shears          like cloth in the wind
  pixel  = homography(time) @ warped            the object's pose, the camera's

and back by the inverse steps. A shear moves one coordinate by a function of the
other, so both directions have closed forms and are exact inverses.

All lengths are in units: a frame's shorter side is 256 units, for any
resolution. Layer 0 is the background; layers with higher numbers are nearer.
Time is in frames and may be fractional.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from tapjax.data.procedural.textures import OUTLINE_REACH

FRAME_UNITS = 256

# Length of the background's plane unit: half of a frame.
BACKGROUND_UNIT = FRAME_UNITS / 2


class Waves(NamedTuple):
  """Smooth functions of time: sums of `amplitude * sin(rate * t + phase)`.

  Rates are in radians per frame.
  """

  amplitude: Float[Array, '*c k']
  rate: Float[Array, '*c k']
  phase: Float[Array, '*c k']


class Warp(NamedTuple):
  """Bending of layers: waves over each plane, for the shears of x and of y.

  The phase of a wave changes by `drift` radians per frame.
  """

  amplitude: Float[Array, 'l 2 k']
  frequency: Float[Array, 'l 2 k']
  phase: Float[Array, 'l 2 k']
  drift: Float[Array, 'l 2 k']


class Scene(NamedTuple):
  """Geometry, motion and textures of a scene.

  The channels of `motion` and `camera` are x, y, angle, logarithm of the scale,
  and the tilts about the plane's y and x axis. An object's path is relative to
  `home`, which follows the camera by the fraction `follow`; with a negative
  fraction an object moves against the camera, as near objects do.
  """

  background_texture: Float[Array, 's s 3']
  object_textures: Float[Array, 'o m m 3']
  outlines: Float[Array, 'o g g']
  is_present: Bool[Array, 'o']
  radius: Float[Array, 'o']
  home: Float[Array, 'o 2']
  follow: Float[Array, 'o']
  motion: Waves
  camera: Waves
  warp: Warp


class Pose(NamedTuple):
  """Maps between layers and the frame at one time.

  `to_pixel` maps the warped plane to pixels, `to_plane` is its inverse; both
  are homographies. `scale` is the number of pixels per plane unit at the
  layer's center.
  """

  to_pixel: Float[Array, '*l 3 3']
  to_plane: Float[Array, '*l 3 3']
  scale: Float[Array, '*l']
  warp_amplitude: Float[Array, '*l 2 k']
  warp_frequency: Float[Array, '*l 2 k']
  warp_phase: Float[Array, '*l 2 k']


def evaluate_waves(
    waves: Waves, time: Float[Array, ''] | float
) -> Float[Array, '*c']:
  """Returns the values at a time, in frames."""
  angle = waves.rate * time + waves.phase
  return jnp.sum(waves.amplitude * jnp.sin(angle), axis=-1)


def compute_pose(
    scene: Scene, time: Float[Array, ''] | float, resolution: tuple[int, int]
) -> Pose:
  """Returns the poses of all layers at a time, in frames."""
  camera = evaluate_waves(scene.camera, time)
  motion = evaluate_waves(scene.motion, time)
  pan, motion_xy = camera[:2], motion[:, :2]
  center = scene.home + motion_xy + (scene.follow - 1)[:, None] * pan[None]
  # The plane tilts about its center, seen from a distance of four radii.
  own = _place(motion[:, 2:], scene.radius, center, 4 * scene.radius)
  unit = jnp.full((1,), BACKGROUND_UNIT)
  background = _place(jnp.zeros((1, 4)), unit, -pan[None], unit)
  pixels = min(resolution) / FRAME_UNITS
  middle = jnp.asarray([[resolution[1] / 2, resolution[0] / 2]])
  view = _place(
      camera[None, 2:],
      jnp.full((1,), 1.0),
      jnp.zeros((1, 2)),
      jnp.full((1,), 3.0 * FRAME_UNITS),
  )
  to_frame = _place(jnp.zeros((1, 4)), jnp.full((1,), pixels), middle, unit)
  view = _multiply(to_frame, view)
  planes = jnp.concatenate([background, own])
  to_pixel = _multiply(jnp.broadcast_to(view, planes.shape), planes)
  to_plane, determinant = _invert(to_pixel)
  warp = scene.warp
  return Pose(
      to_pixel,
      to_plane,
      jnp.sqrt(jnp.abs(determinant) / jnp.abs(to_pixel[:, 2, 2]) ** 3),
      warp.amplitude,
      warp.frequency,
      warp.phase + warp.drift * time,
  )


def map_to_pixels(
    pose: Pose, points: Float[Array, '*n 2']
) -> Float[Array, '*n 2']:
  """Maps points of a plane, with the pose of its layer, to pixels (x, y)."""
  x, y = points[..., 0], points[..., 1]
  y = y + _bend(pose, 1, x)
  x = x + _bend(pose, 0, y)
  return jnp.stack(_project(pose.to_pixel, x, y), axis=-1)


def map_to_plane(
    pose: Pose, pixels: Float[Array, '*n 2']
) -> Float[Array, '*n 2']:
  """Maps pixels (x, y) to points of a plane; inverse of `map_to_pixels`.

  Pixels beyond the plane's horizon map to distant points.
  """
  x, y = _project(pose.to_plane, pixels[..., 0], pixels[..., 1])
  x = x - _bend(pose, 0, y)
  y = y - _bend(pose, 1, x)
  return jnp.stack([x, y], axis=-1)


def measure_inside(
    outline: Float[Array, 'g g'], points: Float[Array, '*n 2']
) -> Float[Array, '*n']:
  """Returns distances of points inside of an outline; negative outside.

  The grid is interpolated bilinearly; its zeros are the outline.
  """
  size = outline.shape[0]
  cells = size / (2 * OUTLINE_REACH)
  place = (points + OUTLINE_REACH) * cells - 0.5
  held = jnp.clip(place, 0, size - 1.001)
  beyond = jnp.sum(jnp.abs(place - held), axis=-1) / cells
  corner = held.astype(jnp.int32)
  x, y = jnp.moveaxis(held - corner, -1, 0)
  index = corner[..., 1] * size + corner[..., 0]
  flat = outline.reshape(-1)
  upper = flat[index] * (1 - x) + flat[index + 1] * x
  lower = flat[index + size] * (1 - x) + flat[index + size + 1] * x
  return upper * (1 - y) + lower * y - beyond


def measure_layer(
    scene: Scene, pose: Pose, layer: Int[Array, ''], points: Array
) -> Float[Array, '*n']:
  """Returns approximate distances inside of a layer's outline, in pixels.

  The background covers everything, and an absent object nothing.
  """
  index = jnp.maximum(layer - 1, 0)
  inside = measure_inside(scene.outlines[index], points) * pose.scale
  inside = jnp.where(scene.is_present[index], inside, -1e6)
  return jnp.where(layer == 0, 1e6, inside)


def select_layer(pose: Pose, layer: Int[Array, '*n']) -> Pose:
  """Returns the poses of layers, by index."""
  return jax.tree.map(lambda values: values[layer], pose)


def _place(
    motion: Float[Array, 'l 4'],
    unit: Float[Array, 'l'],
    center: Float[Array, 'l 2'],
    distance: Float[Array, 'l'],
) -> Float[Array, 'l 3 3']:
  """Returns homographies that rotate, scale, tilt and translate planes.

  `motion` is the angle, the logarithm of the scale, and two tilts; `unit` is
  the length of a plane unit, and `distance` the distance of the eye.
  """
  angle, log_scale, tilt, pitch = motion.T
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  # Rotation within the plane, then tilts out of the frame.
  turned = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], 1)
  row_x = jnp.cos(tilt)[:, None] * turned[:, 0]
  depth = jnp.sin(tilt)[:, None] * turned[:, 0]
  row_y = jnp.cos(pitch)[:, None] * turned[:, 1] - (
      jnp.sin(pitch)[:, None] * depth
  )
  depth = jnp.sin(pitch)[:, None] * turned[:, 1] + (
      jnp.cos(pitch)[:, None] * depth
  )
  size = (unit * jnp.exp(log_scale))[:, None]
  last = jnp.concatenate(
      [depth * (unit / distance)[:, None], jnp.ones_like(size)], axis=-1
  )
  rows = [
      jnp.concatenate([size * row, jnp.zeros_like(size)], axis=-1)
      + center[:, index, None] * last
      for index, row in enumerate((row_x, row_y))
  ]
  return jnp.stack([*rows, last], axis=1)


def _multiply(
    left: Float[Array, 'l 3 3'], right: Float[Array, 'l 3 3']
) -> Float[Array, 'l 3 3']:
  """Multiplies matrices, in full precision on every device."""
  return jnp.sum(left[:, :, :, None] * right[:, None], axis=2)


def _invert(
    matrix: Float[Array, 'l 3 3'],
) -> tuple[Float[Array, 'l 3 3'], Float[Array, 'l']]:
  """Returns inverses and determinants."""
  columns = jnp.moveaxis(matrix, -1, 0)
  rows = [
      jnp.cross(columns[1], columns[2]),
      jnp.cross(columns[2], columns[0]),
      jnp.cross(columns[0], columns[1]),
  ]
  determinant = jnp.sum(columns[0] * rows[0], axis=-1)
  return jnp.stack(rows, axis=1) / determinant[:, None, None], determinant


def _project(
    matrix: Float[Array, '3 3'], x: Float[Array, '*n'], y: Float[Array, '*n']
) -> tuple[Float[Array, '*n'], Float[Array, '*n']]:
  """Applies a homography; depths are clipped at the horizon."""
  rows = [row[0] * x + row[1] * y + row[2] for row in matrix]
  depth = jnp.maximum(rows[2], 1e-4)
  return rows[0] / depth, rows[1] / depth


def _bend(
    pose: Pose, axis: int, values: Float[Array, '*n']
) -> Float[Array, '*n']:
  """Returns the shear along `axis` as a function of the other coordinate."""
  total = jnp.zeros_like(values)
  for wave in range(pose.warp_phase.shape[-1]):
    angle = pose.warp_frequency[axis, wave] * values
    total += pose.warp_amplitude[axis, wave] * jnp.sin(
        angle + pose.warp_phase[axis, wave]
    )
  return total
