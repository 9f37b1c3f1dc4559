"""What a video of Kubric's MOVi sets holds: pictures, and the scene behind.

Greff et al., "Kubric: a scalable dataset generator", arXiv 2203.03570. Every
pixel tells its depth, its object, the direction of its surface and where on the
object it is; every object tells its box on every frame. This is enough to know
where any pixel's point is on every other frame: see
`tapjax.data.kubric.tracks`.
"""

from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
from jaxtyping import UInt16
import numpy as np

# Of what is stored as an unsigned integer of two bytes.
_LARGEST = 65535


class MoviRecord(NamedTuple):
  """A video with the scene that it shows, as it is stored.

  Coordinates of the world are metric. Cameras look along their own -z; boxes
  are corners in the order of {-, +}^3, the last axis fastest; quaternions are
  (w, x, y, z).

  Attributes:
    video: RGB.
    depth: distance from the camera's center, as a share of `depth_range`.
    depth_range: least and largest distance.
    segmentations: 0 for the background, k + 1 for object k.
    normals: of the surface, in the world; from -1 to 1.
    object_coordinates: in the object's box, from one corner to the other.
    boxes: of objects.
    quaternions: of objects.
    camera_positions: in the world.
    camera_quaternions: from the camera to the world.
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
    """Returns the first frames."""
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
  """Returns directions of surfaces in the world, of about unit length."""
  return normals * (2 / _LARGEST) - 1


def decode_object_coordinates(
    coordinates: UInt16[np.ndarray, '*n 3'],
) -> Float[np.ndarray, '*n 3']:
  """Returns places in a box, whose corners are at -0.5 and 0.5."""
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
  """A camera over time.

  Attributes:
    rotations: from the camera to the world.
    positions: of the camera's center in the world.
    focal_yx: of either axis of the frame, in its heights and widths.
  """

  rotations: Float[np.ndarray, 't 3 3']
  positions: Float[np.ndarray, 't 3']
  focal_yx: tuple[float, float]

  def project(
      self, points: Float[np.ndarray, 'n t 3']
  ) -> tuple[Float[np.ndarray, 'n t 2'], Float[np.ndarray, 'n t']]:
    """Returns places (x, y) in the unit frame, and depth along the axis.

    Where the latter is negative the point is behind the camera.
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
    """Returns what is seen at places (x, y), so far from the camera."""
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
  # PARITY: right for square frames only, which all of MOVi's are
  # (test_movi_tracks).
  vertical = horizontal * height / width
  return MoviCamera(
      compute_rotations(record.camera_quaternions),
      np.asarray(record.camera_positions, np.float64),
      (vertical, horizontal),
  )
