"""Records of Kubric's MOVi data sets: pictures and scene geometry.

Greff et al., "Kubric: a scalable dataset generator", arXiv 2203.03570. Every
pixel has a depth, an object, a surface normal and object coordinates; every
object has a box on each frame. These determine the position of the surface
point of a pixel on all other frames: see `tapjax.data.kubric.tracks`.
"""

from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
from jaxtyping import UInt16
import numpy as np

# Largest value of the stored 16-bit integers.
_LARGEST = 65535


class MoviRecord(NamedTuple):
  """A video and its scene, in the stored encoding.

  World coordinates are metric. Cameras look along their own -z; boxes are
  corners in the order of {-, +}^3, the last axis fastest; quaternions are (w,
  x, y, z).

  Attributes:
    video: RGB.
    depth: distance from the camera's center; 0 to 65535 span `depth_range`.
    depth_range: smallest and largest distance.
    segmentations: 0 for the background, k + 1 for object k.
    normals: surface normals in the world; 0 to 65535 span -1 to 1.
    object_coordinates: position in the object's box; 0 to 65535 span it.
    boxes: corners of objects in the world.
    quaternions: rotations of objects to the world.
    camera_positions: in the world.
    camera_quaternions: rotations from the camera to the world.
    focal_length: in the unit of `sensor_width`.
    sensor_width: of the camera.
  """

  video: UInt8[np.ndarray, 't h w 3']
  depth: UInt16[np.ndarray, 't h w']
  depth_range: Float[np.ndarray, '2']
  segmentations: UInt8[np.ndarray, 't h w']
  normals: UInt16[np.ndarray, 't h w 3']
  object_coordinates: UInt16[np.ndarray, 't h w 3']
  boxes: Float[np.ndarray, 'k t 8 3']
  quaternions: Float[np.ndarray, 'k t 4']
  camera_positions: Float[np.ndarray, 't 3']
  camera_quaternions: Float[np.ndarray, 't 4']
  focal_length: float
  sensor_width: float

  def take_frames(self, num_frames: int) -> 'MoviRecord':
    """Returns the record of the first `num_frames` frames."""
    kept = slice(num_frames)
    return self._replace(
        video=self.video[kept],
        depth=self.depth[kept],
        segmentations=self.segmentations[kept],
        normals=self.normals[kept],
        object_coordinates=self.object_coordinates[kept],
        boxes=self.boxes[:, kept],
        quaternions=self.quaternions[:, kept],
        camera_positions=self.camera_positions[kept],
        camera_quaternions=self.camera_quaternions[kept],
    )


def decode_depth(
    depth: UInt16[np.ndarray, '*n'], depth_range: Float[np.ndarray, '2']
) -> Float[np.ndarray, '*n']:
  """Returns metric distances from the camera's center."""
  low, high = np.asarray(depth_range, np.float64)
  return low + depth * ((high - low) / _LARGEST)


def decode_normals(
    normals: UInt16[np.ndarray, '*n 3'],
) -> Float[np.ndarray, '*n 3']:
  """Returns surface normals in the world, of about unit length."""
  return normals * (2 / _LARGEST) - 1


def decode_object_coordinates(
    coordinates: UInt16[np.ndarray, '*n 3'],
) -> Float[np.ndarray, '*n 3']:
  """Returns positions in a box with corners at -0.5 and 0.5."""
  return coordinates * (1 / _LARGEST) - 0.5


def compute_rotations(
    quaternions: Float[np.ndarray, '*n 4'],
) -> Float[np.ndarray, '*n 3 3']:
  """Returns rotation matrices of quaternions (w, x, y, z)."""
  quaternions = np.asarray(quaternions, np.float64)
  unit = quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)
  w, x, y, z = np.moveaxis(unit, -1, 0)
  rows = [
      [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
      [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
      [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
  ]
  return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


class MoviCamera(NamedTuple):
  """Cameras of all frames of a video.

  Attributes:
    rotations: from the camera to the world.
    positions: of the camera's center in the world.
    focal_yx: focal lengths in units of the frame's height and width.
  """

  rotations: Float[np.ndarray, 't 3 3']
  positions: Float[np.ndarray, 't 3']
  focal_yx: tuple[float, float]

  def project(
      self, points: Float[np.ndarray, 'n t 3']
  ) -> tuple[Float[np.ndarray, 'n t 2'], Float[np.ndarray, 'n t']]:
    """Returns normalized coordinates (x, y), and depths along the axis.

    Points with a negative depth are behind the camera.
    """
    offsets = points - self.positions[None]
    # The inverse of a rotation is its transpose.
    x, y, z = np.moveaxis(
        np.einsum('ntc,tcd->ntd', offsets, self.rotations), -1, 0
    )
    vertical, horizontal = self.focal_yx
    with np.errstate(divide='ignore', invalid='ignore'):
      places = np.stack(
          [0.5 - horizontal * x / z, 0.5 + vertical * y / z], axis=-1
      )
    return places, -z

  def unproject(
      self,
      frames: np.ndarray,
      points_unit: Float[np.ndarray, 'n 2'],
      distances: Float[np.ndarray, 'n'],
  ) -> Float[np.ndarray, 'n 3']:
    """Returns world points at normalized (x, y) and distances."""
    vertical, horizontal = self.focal_yx
    x, y = points_unit.T
    rays = np.stack(
        [(x - 0.5) / horizontal, (0.5 - y) / vertical, -np.ones(len(x))],
        axis=-1,
    )
    rays *= (distances / np.linalg.norm(rays, axis=-1))[:, None]
    turned = np.einsum('nd,ncd->nc', rays, self.rotations[frames])
    return turned + self.positions[frames]


def make_camera(record: MoviRecord) -> MoviCamera:
  """Returns the camera of a video."""
  height, width = record.video.shape[1:3]
  horizontal = float(record.focal_length) / float(record.sensor_width)
  # PARITY: correct for square frames only, as all of MOVi are
  # (test_movi_tracks).
  vertical = horizontal * height / width
  return MoviCamera(
      compute_rotations(record.camera_quaternions),
      np.asarray(record.camera_positions, np.float64),
      (vertical, horizontal),
  )
