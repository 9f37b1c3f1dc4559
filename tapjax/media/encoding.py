"""Encoding of frames as H.264, with a time for each."""

from collections.abc import Callable
from collections.abc import Iterator
import fractions
import math
import pathlib
from typing import Any

import av
from av.video.reformatter import ColorRange
from av.video.reformatter import Colorspace
from av.video.reformatter import Interpolation
from av.video.reformatter import VideoReformatter
import numpy as np

from tapjax.files import Times
from tapjax.geometry import Resolution
from tapjax.media import containers

# Ticks per second, at least.
_TICKS = 90000
# Ticks of one frame, at most.
_MOST_TICKS = 1 << 30
# x264 looks ahead over so many frames, fewer of them where they are large.
_LOOKAHEAD = 30
_LOOKAHEAD_PIXELS = 32 << 20
# RGB frames of which x264 takes the memory besides those, as measured.
_HELD_FRAMES = 18
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
_BT709 = 1
_TELEVISION_RANGE = 1


def encode(
    path: pathlib.Path,
    frames: Iterator[np.ndarray],
    size: Resolution,
    frame_rate: float,
    times: Times | None,
    *,
    quality: int,
    num_threads: int,
) -> None:
  """Encodes frames of one size into a new .mp4 file.

  Args:
    path: of the file.
    frames: RGB.
    size: height and width.
    frame_rate: frames per second.
    times: seconds of the frames; None for evenly spaced ones. May grow while
      frames are consumed.
    quality: constant rate factor of x264.
    num_threads: of the encoder; 0 chooses for the machine.
  """
  height, width = size
  padding = ((0, height % 2), (0, width % 2), (0, 0))
  rate = _round_rate(frame_rate)
  tick, get_tick = _make_timer(rate, times)
  usual = max(1, round(1 / rate / tick))
  options = {'movflags': '+faststart+use_metadata_tags'}
  with av.open(str(path), 'w', options=options) as container:
    if any(side % 2 for side in size):
      container.metadata[containers.SIZE_KEY] = f'{height}x{width}'
    settings = {
        'crf': f'{quality}',
        'preset': 'fast',
        'rc-lookahead': f'{count_lookahead(size)}',
        'threads': f'{num_threads}',
    }
    stream: Any = container.add_stream('libx264', rate, options=settings)
    stream.height, stream.width = height + height % 2, width + width % 2
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.time_base = tick
    stream.codec_context.color_range = _TELEVISION_RANGE
    for name in ('colorspace', 'color_primaries', 'color_trc'):
      setattr(stream.codec_context, name, _BT709)
    reformatter = VideoReformatter()
    previous = -1
    for index, image in enumerate(frames):
      if any(side % 2 for side in size):
        image = np.pad(image, padding, mode='edge')
      frame: Any = reformatter.reformat(
          av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24'),
          format='yuv420p',
          dst_colorspace=Colorspace.ITU709,
          dst_color_range=ColorRange.MPEG,
          interpolation=_SCALING,
          threads=1,
      )
      previous = max(previous + 1, get_tick(index))
      frame.pts, frame.time_base, frame.duration = previous, tick, usual
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def count_lookahead(size: Resolution) -> int:
  """Returns the number of frames that the encoder holds before it codes one."""
  return max(1, min(_LOOKAHEAD, _LOOKAHEAD_PIXELS // math.prod(size)))


def estimate_bytes(size: Resolution) -> int:
  """Returns the bytes that encoding frames of a size takes."""
  return (_HELD_FRAMES + count_lookahead(size)) * 3 * math.prod(size)


def _round_rate(frame_rate: float) -> fractions.Fraction:
  """Returns a frame rate as a fraction such as 30000/1001."""
  rate = fractions.Fraction(frame_rate).limit_denominator(1001)
  return rate or fractions.Fraction(frame_rate).limit_denominator(10**6)


def _make_timer(
    rate: fractions.Fraction, times: Times | None
) -> tuple[fractions.Fraction, Callable[[int], int]]:
  """Returns the length of a tick, and the tick of each frame by its index.

  Ticks are fine, and a whole number of them passes between even frames.
  """
  scale = math.ceil(_TICKS / rate.numerator)
  scale = max(1, min(scale, _MOST_TICKS // rate.denominator))
  ticks = rate.numerator * scale

  def get_tick(index: int) -> int:
    if times is None:
      return index * rate.denominator * scale
    return round((times[index] - times[0]) * ticks)

  return fractions.Fraction(1, ticks), get_tick
