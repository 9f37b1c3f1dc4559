"""Videos as JPEG images, as a benchmark's published conversion makes them."""

from collections.abc import Iterator
import fractions
import itertools
import os
from typing import Any

import av

from tapjax.media import containers


def read_jpeg_images(
    path: str | os.PathLike[str], frame_rate: int, most: int
) -> list[bytes]:
  """Reads a video as JPEG images, with the default quality of FFmpeg.

  Frames are repeated or dropped to match `frame_rate`; at most `most` are
  returned. Raises FileNotFoundError for a missing file and ValueError for an
  unreadable one.
  """
  images: list[bytes] = []
  with containers.open_container(path) as (container, stream):
    stream.thread_type = 'AUTO'
    graph: Any = av.filter.Graph()
    nodes = (
        graph.add_buffer(template=stream),
        graph.add('fps', str(frame_rate)),
        graph.add('format', 'yuvj420p'),
        graph.add('buffersink'),
    )
    graph.link_nodes(*nodes).configure()
    encoder: Any = None
    try:
      for frame in itertools.chain(container.decode(stream), [None]):
        graph.push(frame)
        for picture in _pull(graph):
          if encoder is None:
            encoder = _make_jpeg_encoder(picture, frame_rate)
          images += [bytes(packet) for packet in encoder.encode(picture)]
          if len(images) == most:
            return images
    except (av.FFmpegError, OSError) as error:
      raise ValueError(
          f'{str(path)!r} cannot be read to its end: '
          f'{containers.describe_error(error)}'
      ) from None
    if encoder is not None:
      images += [bytes(packet) for packet in encoder.encode(None)]
  if not images:
    raise ValueError(f'no frame of {str(path)!r} could be decoded')
  return images[:most]


def _pull(graph: Any) -> Iterator[Any]:
  """Yields the frames that a filter graph has ready."""
  while True:
    try:
      yield graph.pull()
    except (av.BlockingIOError, EOFError):
      return


def _make_jpeg_encoder(picture: Any, frame_rate: int) -> Any:
  encoder: Any = av.CodecContext.create('mjpeg', 'w')
  encoder.width, encoder.height = picture.width, picture.height
  encoder.pix_fmt = picture.format.name
  encoder.time_base = fractions.Fraction(1, frame_rate)
  encoder.framerate = frame_rate
  # With more threads, Huffman tables are not optimal, and quality differs.
  encoder.thread_count = 1
  return encoder
