"""Small generated videos that hold what MOVi's do, to test and to try with.

Ellipsoids fly and turn in front of a camera that moves, above a floor and under
a dome. Rays are cast analytically, so everything that a pixel shows is exact up
to its rounding.
"""

import dataclasses
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt16
import numpy as np

from tapjax.data.kubric.movi import compute_rotations
from tapjax.data.kubric.movi import MoviRecord

_LARGEST = 65535
_FOCAL_LENGTH = 35.0
_SENSOR_WIDTH = 32.0
_DOME_RADIUS = 30.0
_CORNERS = np.stack(
    np.meshgrid(*[[-0.5, 0.5]] * 3, indexing='ij'), axis=-1
).reshape(8, 3)


@dataclasses.dataclass(frozen=True)
class MoviSceneConfig:
  """Properties of generated videos.

  Attributes:
    num_frames: of a video.
    resolution: (height, width); square, as all of MOVi.
    num_objects: besides the background.
  """

  num_frames: int = 24
  resolution: tuple[int, int] = (256, 256)
  num_objects: int = 5


class _Hit(NamedTuple):
  """First intersections of rays with one thing."""

  distance: Float[np.ndarray, 'h w']
  normal: Float[np.ndarray, 'h w 3']
  local: Float[np.ndarray, 'h w 3']


class _Bodies(NamedTuple):
  """Ellipsoids over time: centers, half axes, and turns to the world."""

  centers: Float[np.ndarray, 'k t 3']
  radii: Float[np.ndarray, 'k 3']
  quaternions: Float[np.ndarray, 'k t 4']


def make_record(
    generator: np.random.Generator, config: MoviSceneConfig
) -> MoviRecord:
  """Makes a video; the generator and the config decide everything."""
  height, width = config.resolution
  num_frames = config.num_frames
  bodies = _draw_bodies(generator, config)
  positions, quaternions = _draw_camera(generator, num_frames)
  rays = _make_rays(height, width)
  tints = generator.uniform(0.3, 1.0, (config.num_objects + 1, 3))
  waves = generator.normal(0, 6, (config.num_objects + 1, 3, 3))
  frames = [
      _render(
          bodies,
          frame,
          positions[frame],
          rays @ compute_rotations(quaternions[frame]).T,
          tints,
          waves,
      )
      for frame in range(num_frames)
  ]
  depth, segments, normals, local, video = (
      np.stack(parts) for parts in zip(*frames, strict=True)
  )
  low, high = np.float32(depth.min()), np.float32(depth.max())
  turned = compute_rotations(bodies.quaternions)
  corners = _CORNERS * 2 * bodies.radii[:, None]
  boxes = np.einsum('ktcd,knd->ktnc', turned, corners)
  return MoviRecord(
      video=np.round(video * 255).astype(np.uint8),
      depth=_quantize((depth - low) / (high - low)),
      depth_range=np.asarray([low, high]),
      segmentations=segments.astype(np.uint8),
      normals=_quantize((normals + 1) / 2),
      object_coordinates=_quantize(local + 0.5),
      boxes=(boxes + bodies.centers[:, :, None]).astype(np.float32),
      quaternions=bodies.quaternions.astype(np.float32),
      camera_positions=positions.astype(np.float32),
      camera_quaternions=quaternions.astype(np.float32),
      focal_length=_FOCAL_LENGTH,
      sensor_width=_SENSOR_WIDTH,
  )


def _draw_bodies(
    generator: np.random.Generator, config: MoviSceneConfig
) -> _Bodies:
  count = config.num_objects
  time = np.linspace(-1, 1, config.num_frames)[:, None]
  start = generator.uniform((-2.5, -2.5, 1), (2.5, 2.5, 3), (count, 1, 3))
  speed = generator.uniform(-1.5, 1.5, (count, 1, 3)) * (1, 1, 0.3)
  angles = generator.uniform(-2, 2, (count, 1)) * time[:, 0]
  axis = generator.normal(size=(count, 1, 3))
  axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
  quaternions = np.concatenate(
      [np.cos(angles / 2)[..., None], np.sin(angles / 2)[..., None] * axis],
      axis=-1,
  )
  radii = generator.uniform(0.4, 1.1, (count, 3))
  return _Bodies(start + speed * time, radii, quaternions)


def _draw_camera(
    generator: np.random.Generator, num_frames: int
) -> tuple[Float[np.ndarray, 't 3'], Float[np.ndarray, 't 4']]:
  """Draws a straight way, from which the camera looks at the middle."""
  angle = generator.uniform(0, 2 * np.pi)
  start = np.asarray([8 * np.cos(angle), 8 * np.sin(angle), 4.0])
  way = generator.uniform(-1.5, 1.5, 3)
  share = np.linspace(0, 1, num_frames)[:, None]
  positions = start + way * share
  backward = positions - np.asarray([0, 0, 1.5])
  backward /= np.linalg.norm(backward, axis=1, keepdims=True)
  right = np.cross([[0, 0, 1]], backward)
  right /= np.linalg.norm(right, axis=1, keepdims=True)
  up = np.cross(backward, right)
  return positions, _to_quaternions(np.stack([right, up, backward], axis=-1))


def _to_quaternions(
    rotations: Float[np.ndarray, 't 3 3'],
) -> Float[np.ndarray, 't 4']:
  """Returns quaternions (w, x, y, z), by the axis that a turn keeps."""
  r = rotations
  products = np.stack(
      [
          [
              1 + r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2],
              r[:, 2, 1] - r[:, 1, 2],
              r[:, 0, 2] - r[:, 2, 0],
              r[:, 1, 0] - r[:, 0, 1],
          ],
          [
              r[:, 2, 1] - r[:, 1, 2],
              1 + r[:, 0, 0] - r[:, 1, 1] - r[:, 2, 2],
              r[:, 0, 1] + r[:, 1, 0],
              r[:, 0, 2] + r[:, 2, 0],
          ],
          [
              r[:, 0, 2] - r[:, 2, 0],
              r[:, 0, 1] + r[:, 1, 0],
              1 - r[:, 0, 0] + r[:, 1, 1] - r[:, 2, 2],
              r[:, 1, 2] + r[:, 2, 1],
          ],
          [
              r[:, 1, 0] - r[:, 0, 1],
              r[:, 0, 2] + r[:, 2, 0],
              r[:, 1, 2] + r[:, 2, 1],
              1 - r[:, 0, 0] - r[:, 1, 1] + r[:, 2, 2],
          ],
      ]
  )
  # Each row is the quaternion times four of its entries; the largest is safe.
  products = np.moveaxis(products, -1, 0)
  best = np.argmax(np.einsum('tii->ti', products), axis=1)
  chosen = products[np.arange(len(best)), best]
  return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def _make_rays(height: int, width: int) -> Float[np.ndarray, 'h w 3']:
  """Returns unit directions through the centers of pixels."""
  focal = _FOCAL_LENGTH / _SENSOR_WIDTH
  y, x = np.meshgrid(
      (np.arange(height) + 0.5) / height,
      (np.arange(width) + 0.5) / width,
      indexing='ij',
  )
  vertical = focal * height / width
  rays = np.stack(
      [(x - 0.5) / focal, (0.5 - y) / vertical, -np.ones_like(x)], axis=-1
  )
  return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _render(
    bodies: _Bodies,
    frame: int,
    origin: Float[np.ndarray, '3'],
    rays: Float[np.ndarray, 'h w 3'],
    tints: Float[np.ndarray, 's 3'],
    waves: Float[np.ndarray, 's 3 3'],
) -> tuple[np.ndarray, ...]:
  """Returns depth, segments, normals, places on objects and colors."""
  best = _hit_background(origin, rays)
  segments = np.zeros(rays.shape[:2], np.int64)
  for body in range(len(bodies.radii)):
    rotation = compute_rotations(bodies.quaternions[body, frame])
    hit = _hit_ellipsoid(
        origin - bodies.centers[body, frame], rays, rotation, bodies.radii[body]
    )
    nearer = hit.distance < best.distance
    segments[nearer] = body + 1
    best = _merge(nearer, hit, best)
  # Waves of color that stick to the surface.
  phase = np.einsum('hwc,hwcd->hwd', best.local, waves[segments])
  shade = 0.6 + 0.4 * np.abs(np.einsum('hwc,hwc->hw', best.normal, rays))
  color = tints[segments] * (0.6 + 0.4 * np.sin(3 * phase)) * shade[..., None]
  local = np.where(segments[..., None] > 0, best.local, 0)
  return best.distance, segments, best.normal, local, np.clip(color, 0, 1)


def _merge(nearer: Bool[np.ndarray, 'h w'], hit: _Hit, best: _Hit) -> _Hit:
  return _Hit(
      np.where(nearer, hit.distance, best.distance),
      np.where(nearer[..., None], hit.normal, best.normal),
      np.where(nearer[..., None], hit.local, best.local),
  )


def _hit_background(
    origin: Float[np.ndarray, '3'], rays: Float[np.ndarray, 'h w 3']
) -> _Hit:
  """Returns the floor, or the dome where that is nearer."""
  along = rays @ origin
  dome = -along + np.sqrt(along**2 - origin @ origin + _DOME_RADIUS**2)
  down = np.minimum(rays[..., 2], -1e-9)
  floor = np.where(rays[..., 2] < 0, -origin[2] / down, np.inf)
  distance = np.minimum(dome, floor)
  places = origin + distance[..., None] * rays
  normal = np.where(
      (floor < dome)[..., None], (0.0, 0.0, 1.0), -places / _DOME_RADIUS
  )
  return _Hit(distance, normal, places / 8)


def _hit_ellipsoid(
    origin: Float[np.ndarray, '3'],
    rays: Float[np.ndarray, 'h w 3'],
    rotation: Float[np.ndarray, '3 3'],
    radii: Float[np.ndarray, '3'],
) -> _Hit:
  """Returns where rays enter, infinitely far where they pass by."""
  # In the space where the ellipsoid is the unit sphere.
  start, rays = origin @ rotation / radii, rays @ rotation / radii
  a = np.einsum('hwc,hwc->hw', rays, rays)
  b = rays @ start
  root = b**2 - a * (start @ start - 1)
  distance = (-b - np.sqrt(np.maximum(root, 0))) / a
  distance = np.where((root > 0) & (distance > 0), distance, np.inf)
  places = (
      start + np.where(np.isfinite(distance), distance, 0)[..., None] * rays
  )
  normal = (places / radii) @ rotation.T
  normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
  return _Hit(distance, normal, places / 2)


def _quantize(share: Float[np.ndarray, '*n']) -> UInt16[np.ndarray, '*n']:
  return np.round(np.clip(share, 0, 1) * _LARGEST).astype(np.uint16)
