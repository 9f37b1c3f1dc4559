"""Images of PointOdyssey: read from files, and resized as in training."""

import pathlib

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution


def resize_image(
    image: UInt8[np.ndarray, 'h w c'], resolution: Resolution
) -> UInt8[np.ndarray, '_ _ c']:
  """Resizes as `resize_values`, rounded to uint8."""
  if image.shape[:2] == tuple(resolution):
    return image
  return np.rint(resize_values(image, resolution)).astype(np.uint8)


def resize_values(
    image: UInt8[np.ndarray, 'h w c'],
    resolution: Resolution,
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> Float[np.ndarray, '_ _ c']:
  """Resizes bilinearly, without antialiasing, to float32.

  `part` selects rows and columns of the result.
  """
  values = image.astype(np.float32)
  for axis, new in enumerate(resolution):
    old = values.shape[axis]
    places = (np.arange(new)[part[axis]] + 0.5) * (old / new) - 0.5
    places = np.clip(places, 0, old - 1)
    base = np.minimum(places.astype(int), max(old - 2, 0))
    shape = [1, 1, 1]
    shape[axis] = len(places)
    fraction = (places - base).astype(np.float32).reshape(shape)
    low = np.take(values, base, axis=axis)
    high = np.take(values, np.minimum(base + 1, old - 1), axis=axis)
    values = low + (high - low) * fraction
  return values


def read_image(path: pathlib.Path, mode: str) -> UInt8[np.ndarray, 'h w *c']:
  """Reads a frame as 'RGB', or segments as 'L'; ValueError if damaged."""
  try:
    from PIL import Image
  except ImportError:
    raise ImportError(
        'reading frames of PointOdyssey needs Pillow - install it with pip '
        'install pillow'
    ) from None
  try:
    with Image.open(path) as image:
      return np.asarray(image.convert(mode))
  except (OSError, SyntaxError, ValueError) as error:
    raise ValueError(f'{path} is no image that can be read: {error}') from None
