"""Display matrices and EXIF orientations."""

import numpy as np
import pytest

from tapjax.media import orientation
from tests.support import videos

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
# Upright images by EXIF's definition of the orientations 1 to 8.
UPRIGHT = [
    IMAGE,
    IMAGE[:, ::-1],
    IMAGE[::-1, ::-1],
    IMAGE[::-1],
    IMAGE.swapaxes(0, 1),
    np.rot90(IMAGE, -1),
    IMAGE[::-1, ::-1].swapaxes(0, 1),
    np.rot90(IMAGE),
]


@pytest.mark.parametrize('number', range(1, 9))
def test_orientations_are_undone(number):
  content = videos.add_exif(b'\xff\xd8rest', number)
  matrix = orientation.read_exif_matrix(content)
  turned = orientation.turn(IMAGE, matrix)
  np.testing.assert_array_equal(turned, UPRIGHT[number - 1])


@pytest.mark.parametrize(
    'content',
    [b'', b'\xff\xd8rest', videos.add_exif(b'\xff\xd8', 9), b'Exif\0\0MM\0*\0'],
)
def test_without_an_orientation_nothing_is_turned(content):
  matrix = orientation.read_exif_matrix(content)
  np.testing.assert_array_equal(matrix, np.eye(2))


def test_empty_matrices_are_ignored():
  matrix = np.zeros((2, 2), np.int32)
  np.testing.assert_array_equal(orientation.turn(IMAGE, matrix), IMAGE)


def test_odd_angles_turn_within_the_size():
  image = np.zeros((41, 41, 3), np.uint8)
  image[18:23, 30:35] = 255
  half = round(np.sqrt(0.5) * 65536)
  matrix = np.asarray([[half, half], [-half, half]])
  turned = orientation.turn(image, matrix)
  assert turned.shape == image.shape
  # What was to the right is below on the right, 45 degrees clockwise.
  y, x = (np.argwhere(turned[..., 0] > 127)).mean(axis=0)
  np.testing.assert_allclose([x, y], 20 + 12 * np.sqrt(0.5), atol=1)
