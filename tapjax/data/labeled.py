"""Videos with ground-truth tracks, the common form of all benchmarks."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import io
from typing import Any, NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution
from tapjax.media.pictures import import_pillow

_FORMATS = ('JPEG', 'PNG')


class AnnotatedVideo(NamedTuple):
  """A video and its ground-truth tracks.

  Frames are RGB. Points are (x, y) in normalized coordinates: (0, 0) is the
  upper-left outer corner of the frame and (1, 1) the lower-right one, so that
  resizing does not move them. Positions of occluded points are arbitrary.
  """

  name: str
  frames: UInt8[np.ndarray, 't h w 3']
  points_unit: Float[np.ndarray, 'm t 2']
  occluded: Bool[np.ndarray, 'm t']

  def resize(self, resolution: Resolution | None) -> 'AnnotatedVideo':
    """Returns the video with resized frames; None keeps their size."""
    if resolution is None:
      return self
    return self._replace(frames=resize_frames(self.frames, resolution))

  @property
  def target_points(self) -> Float[np.ndarray, 'm t 2']:
    """Points in raster pixels of the frames, as float64."""
    return self.points_unit * np.asarray(self.frames.shape[2:0:-1])


class Entry(NamedTuple):
  """A video of a benchmark before it is read.

  Attributes:
    name: unique in the benchmark.
    num_frames: length of the video; None if unknown before reading.
    read: returns an `AnnotatedVideo`, or a `point_videos.PointEntry` in the
      protocol of PIPs++; raises ValueError or OSError for a damaged video.
  """

  name: str
  num_frames: int | None
  read: Callable[[], Any]


class Source(NamedTuple):
  """The videos of a benchmark, in order.

  Attributes:
    entries: returns an iterator over the videos; may be called repeatedly.
    missing: names of annotated clips without a video.
  """

  entries: Callable[[], Iterator[Entry]]
  missing: tuple[str, ...] = ()


def make_annotated_video(
    name: str,
    frames: UInt8[np.ndarray, 't h w 3'],
    points_unit: np.ndarray,
    occluded: np.ndarray,
) -> AnnotatedVideo:
  """Returns a checked video; raises ValueError, naming the video.

  Args:
    name: of the video.
    frames: RGB, at least one.
    points_unit: floats [n, t, 2]; visible ones must lie in [0, 1].
    occluded: booleans [n, t].
  """
  if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
    raise ValueError(
        f'{name}: frames must be [t, h, w, 3], at least one; got {frames.shape}'
    )
  if frames.dtype != np.uint8:
    raise ValueError(f'{name}: frames must be uint8; got {frames.dtype}')
  num_frames = len(frames)
  shape = points_unit.shape
  if shape[1:] != (num_frames, 2) or occluded.shape != shape[:2]:
    raise ValueError(
        f'{name}: points must be [n, {num_frames}, 2] and occluded '
        f'[n, {num_frames}], as there are {num_frames} frames; got {shape} and '
        f'{occluded.shape}'
    )
  if points_unit.dtype.kind != 'f':
    raise ValueError(f'{name}: points must be float; got {points_unit.dtype}')
  if occluded.dtype != np.bool_:
    raise ValueError(
        f'{name}: occluded must be boolean; got {occluded.dtype} - an array of '
        'logits or numbers?'
    )
  shown = points_unit[~occluded]
  outside = ~((shown >= 0) & (shown <= 1)).all(axis=-1)
  if outside.any():
    x, y = shown[outside][0]
    raise ValueError(
        f'{name}: visible points must lie in the frame, 0 to 1; got ({x:g}, '
        f'{y:g}) and {np.sum(outside) - 1} others - are they in pixels?'
    )
  return AnnotatedVideo(name, frames, points_unit, occluded)


def resize_frames(
    frames: UInt8[np.ndarray, 't h w 3'], resolution: Resolution
) -> UInt8[np.ndarray, 't _ _ 3']:
  """Resizes as the benchmarks do: Pillow's Lanczos filter, on 8 bits.

  Another filter changes scores measurably. Frames of this resolution are
  returned unchanged. Needs the extra `evaluate`.
  """
  if frames.shape[1:3] == tuple(resolution):
    return frames
  image = import_pillow()
  size = (resolution[1], resolution[0])
  return np.stack(
      [
          np.asarray(
              image.fromarray(np.ascontiguousarray(frame)).resize(
                  size, image.Resampling.LANCZOS
              )
          )
          for frame in frames
      ]
  )


def decode_images(
    images: Sequence[bytes], name: str
) -> UInt8[np.ndarray, 't h w 3']:
  """Decodes JPEG or PNG images of one size as RGB.

  Raises ValueError, with the name of the video, for images that are damaged or
  differ in size.
  """
  image = import_pillow()
  pictures = []
  for index, content in enumerate(images):
    try:
      with image.open(io.BytesIO(content), formats=_FORMATS) as picture:
        pictures.append(np.asarray(picture.convert('RGB')))
    except (OSError, SyntaxError, ValueError, image.DecompressionBombError):
      raise ValueError(
          f'{name}: frame {index} is no image that can be decoded - is the '
          'file damaged?'
      ) from None
  sizes = {picture.shape for picture in pictures}
  if len(sizes) != 1:
    raise ValueError(
        f'{name}: there must be frames, all of one size; got {sorted(sizes)}'
    )
  return np.stack(pictures)
