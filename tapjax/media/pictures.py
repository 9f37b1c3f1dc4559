"""Pictures: single files, folders and numbered patterns of them.

PyAV's decoders are chosen by the first bytes of a file, so that neither its
name nor its size matters. Pillow, which the core library does not need, is
imported here for those who do.
"""

import collections
from collections.abc import Iterator
import itertools
import os
import pathlib
import re
from typing import Any, NamedTuple

import av
from jaxtyping import UInt8
import numpy as np

from tapjax.media import containers
from tapjax.media import orientation

PICTURES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')
# (first bytes, decoder, strictness) of the kinds that are read.
_KINDS = (
    (b'\x89PNG\r\n\x1a\n', 'png', 'explode'),
    (b'\xff\xd8\xff', 'mjpeg', 'explode'),
    (b'RIFF', 'webp', 'explode'),
    (b'BM', 'bmp', 'explode'),
    (b'II*\0', 'tiff', 'crccheck'),
    (b'MM\0*', 'tiff', 'crccheck'),
)
_MOST_LISTED = 3


class Pictures(NamedTuple):
  """Pictures of one folder, in natural order: frame_9 before frame_10.

  Attributes:
    folder: that holds them.
    name: stem of the names of result files.
    pattern: regular expression of their names, or the name of the only one;
      None for all pictures.
    is_one_file: whether there is only ever one.
  """

  folder: pathlib.Path
  name: str
  pattern: str | None = None
  is_one_file: bool = False

  def list_files(self) -> list[pathlib.Path]:
    """Returns the pictures that are there now."""
    return sorted(
        (path for path in self.folder.iterdir() if self._holds(path.name)),
        key=lambda path: make_key(path.name),
    )

  def list_others(self) -> dict[str, int]:
    """Returns the number of files of each other kind, most frequent first."""
    kinds = collections.Counter(
        path.suffix.lower() or 'without an ending'
        for path in self.folder.iterdir()
        if path.is_file()
        and not path.name.startswith('.')
        and not self._holds(path.name)
    )
    return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))

  def explain_empty(self) -> str:
    """Returns why there are no pictures, and what is there instead."""
    if self.pattern is not None:
      return f'{str(self.folder)!r} holds no pictures of that pattern'
    counts = itertools.islice(self.list_others().items(), _MOST_LISTED)
    found = ', '.join(f'{count} {kind}' for kind, count in counts)
    return (
        f'{str(self.folder)!r} is a folder that holds no '
        f'{", ".join(PICTURES)}; it '
        + (f'has {found} - name a video, or convert' if found else 'is empty')
    )

  def _holds(self, name: str) -> bool:
    if self.is_one_file:
      return name == self.pattern
    if name.startswith('.'):
      return False
    if self.pattern is not None:
      return bool(re.fullmatch(self.pattern, name))
    return is_picture_name(name)


def is_picture_name(name: str) -> bool:
  """Returns whether a file name has the ending of a picture."""
  return os.path.splitext(name)[1].lower() in PICTURES


def find_pictures(place: str | os.PathLike[str]) -> Pictures | None:
  """Returns the pictures that a place names; None for any other place.

  A place is a folder, a pattern such as seq/%05d.png or seq/*.png, or a file.
  """
  path = pathlib.Path(place)
  folder = path.parent
  if path.is_dir():
    return Pictures(path, path.resolve().name or 'frames')
  if path.exists():
    if not is_picture_name(path.name) or _is_animated(path):
      return None
    return Pictures(folder, path.stem, path.name, is_one_file=True)
  parsed = _parse_pattern(path.name)
  if parsed is None or not folder.is_dir():
    return None
  return Pictures(folder, folder.resolve().name or 'frames', parsed)


def make_key(name: str) -> tuple[Any, ...]:
  """Returns a sort key that orders numbers by value: frame_9, frame_10."""
  parts = re.split(r'(\d+)', name)
  numbers = tuple(
      (0, int(part), '') if part.isdecimal() else (1, 0, part) for part in parts
  )
  return (*numbers, (1, 0, name))


def read_picture(
    path: str | os.PathLike[str],
) -> UInt8[np.ndarray, 'h w 4']:
  """Reads a picture as RGBA, upright by its EXIF orientation.

  16 bits are reduced to 8. Raises FileNotFoundError for a missing file and
  ValueError for an unreadable one, also if a part of it is missing.
  """
  path = containers.check_file(path, 'picture')
  content = path.read_bytes()
  kind = next((kind for kind in _KINDS if content.startswith(kind[0])), None)
  if kind is None:
    raise ValueError(
        f'{str(path)!r} is not a readable picture (none of '
        f'{", ".join(PICTURES)}) - save it as .png'
    )
  _, codec, strictness = kind
  context: Any = av.CodecContext.create(codec, 'r')
  context.options = {'err_detect': strictness}
  try:
    packet = av.Packet(content)
    frames = [*context.decode(packet), *context.decode(None)]
    (frame,) = frames
  except (av.FFmpegError, OSError, ValueError) as error:
    raise ValueError(
        f'{str(path)!r} is not a readable picture '
        f'({containers.describe_error(error)}) - save it as .png'
    ) from None
  image = frame.to_ndarray(format='rgba', interpolation='BICUBIC')
  matrix = orientation.read_exif_matrix(content)
  return np.ascontiguousarray(orientation.turn(image, matrix))


def scale_image(
    image: UInt8[np.ndarray, 'h w 3'], size: tuple[int, int]
) -> UInt8[np.ndarray, '_ _ 3']:
  """Scales an image to (height, width)."""
  frame: Any = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24')
  height, width = size
  return frame.to_ndarray(
      width=width, height=height, format='rgb24', interpolation='AREA'
  )


def import_pillow() -> Any:
  """Returns `PIL.Image`; raises ImportError with how to install it."""
  try:
    from PIL import Image
  except ImportError:
    raise ImportError(
        'reading, resizing and drawing pictures needs Pillow - install with '
        "pip install 'tapjax[evaluate]'"
    ) from None
  return Image


def iterate_pictures(
    pictures: Pictures,
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Yields the pictures that are there now, in order, without opacity."""
  for path in pictures.list_files():
    yield np.ascontiguousarray(read_picture(path)[..., :3])


def _is_animated(path: pathlib.Path) -> bool:
  """Returns whether a PNG has several frames, and so is a video."""
  with path.open('rb') as file:
    head = file.read(4096)
  return head.startswith(b'\x89PNG') and b'acTL' in head.partition(b'IDAT')[0]


def _parse_pattern(name: str) -> str | None:
  """Returns the pattern of a name with %d, %05d, * or ?; None without."""
  parts = re.split(r'(%0?\d*d|\*|\?)', name)
  if len(parts) == 1:
    return None
  kinds = {'*': '.*', '?': '.'}
  return ''.join(
      kinds.get(part, r'\d+') if index % 2 else re.escape(part)
      for index, part in enumerate(parts)
  )
