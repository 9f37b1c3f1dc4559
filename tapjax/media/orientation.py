"""Upright pixels: display matrices of videos, EXIF orientation of pictures."""

import fractions
import math
import struct
from typing import Any

import av
from jaxtyping import Int
from jaxtyping import Shaped
import numpy as np

# Display matrices [[a, b], [c, d]] of the EXIF orientations 1 to 8: a pixel
# (x, y) of the file is shown at (a x + c y, b x + d y), up to a shift.
_EXIF = (
    ((1, 0), (0, 1)),
    ((-1, 0), (0, 1)),
    ((-1, 0), (0, -1)),
    ((1, 0), (0, -1)),
    ((0, 1), (1, 0)),
    ((0, 1), (-1, 0)),
    ((0, -1), (-1, 0)),
    ((0, -1), (1, 0)),
)
_ORIENTATION_TAG = 0x0112
_EXIF_STARTS = (b'Exif\0\0', b'eXIf')

Matrix = Int[np.ndarray, '2 2']


def read_matrix(frame: Any) -> Matrix | None:
  """Returns the display matrix of a decoded frame, in 1/65536; None without."""
  try:
    data = frame.side_data.get('DISPLAYMATRIX')
  except ValueError:  # PyAV does not know all kinds of side data.
    return None
  if data is None:
    return None
  return np.frombuffer(data, np.int32)[[0, 1, 3, 4]].reshape(2, 2)


def read_exif_matrix(content: bytes) -> Matrix:
  """Returns the display matrix of a picture file; identity without EXIF."""
  for start in _EXIF_STARTS:
    place = content.find(start)
    if place >= 0:
      content = content[place + len(start) :]
      break
  order = {b'II*\0': '<', b'MM\0*': '>'}.get(content[:4])
  orientation = _find_tag(content, order) if order else 1
  return np.asarray(_EXIF[orientation - 1 if 1 <= orientation <= 8 else 0])


def turn(
    image: Shaped[np.ndarray, 'h w c'], matrix: Matrix
) -> Shaped[np.ndarray, '_ _ c']:
  """Turns and flips an image as a display matrix says.

  Angles other than multiples of 90 degrees turn the image within its size.
  """
  (a, b), (c, d) = matrix.tolist()
  if a == b == c == d == 0:
    return image
  largest = max(abs(a) + abs(d), abs(b) + abs(c))
  if min(abs(a) + abs(d), abs(b) + abs(c)) > largest / 50:
    return _rotate(image, math.atan2(b, a))
  if abs(a) + abs(d) < abs(b) + abs(c):
    image, a, d = image.swapaxes(0, 1), c, b
  return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _rotate(
    image: Shaped[np.ndarray, 'h w c'], angle: float
) -> Shaped[np.ndarray, 'h w c']:
  """Rotates clockwise by an angle in radians, with black corners."""
  graph: Any = av.filter.Graph()
  frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24')
  graph.link_nodes(
      graph.add_buffer(
          width=frame.width,
          height=frame.height,
          format=frame.format,
          time_base=fractions.Fraction(1),
      ),
      graph.add('rotate', f'{angle}'),
      graph.add('buffersink'),
  ).configure()
  graph.push(frame)
  return graph.pull().to_ndarray(format='rgb24')


def _find_tag(content: bytes, order: str) -> int:
  """Returns the orientation in the first directory of TIFF data; 1 without."""
  try:
    (start,) = struct.unpack_from(f'{order}I', content, 4)
    (count,) = struct.unpack_from(f'{order}H', content, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
      tag, _, _, value = struct.unpack_from(f'{order}HHIH', content, entry)
      if tag == _ORIENTATION_TAG:
        return value
  except struct.error:
    pass
  return 1
