"""Videos and pictures of many kinds, made by the encoders of PyAV."""

import fractions
import struct

import av
import numpy as np

# (flags of the display matrix) a, b, c, d in 1/65536, by name.
MATRICES = {
    'rot90': (0, -1, 1, 0),
    'rot180': (-1, 0, 0, -1),
    'rot270': (0, 1, -1, 0),
    'hflip': (-1, 0, 0, 1),
    'vflip': (1, 0, 0, -1),
    'transpose': (0, 1, 1, 0),
}


def make_frames(num, height, width):
  """Smooth moving colors with a brightness that grows over time."""
  t, y, x = np.ogrid[:num, :height, :width]
  waves = [
      60 * np.sin(x / 20 + t / 3 + c) * np.cos(y / 15 + c) for c in range(3)
  ]
  frames = np.stack(waves, axis=-1) + 70 + 100 * t[..., np.newaxis] / num
  return frames.astype(np.uint8)


def encode(
    path,
    frames,
    rate=24,
    *,
    codec='libx264',
    pixels='yuv420p',
    times=None,
    sound=0.0,
    container=None,
    metadata=(),
    options=(),
    container_options=(),
):
  """Writes RGB frames with a codec; `times` are seconds, `sound` its length."""
  rate = fractions.Fraction(rate).limit_denominator(1001)
  with av.open(
      str(path), 'w', format=container, options=dict(container_options)
  ) as file:
    file.metadata.update(dict(metadata))
    stream = file.add_stream(codec, rate, options=dict(options))
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pixels
    ticks = rate if times is None else 1000
    stream.codec_context.time_base = 1 / fractions.Fraction(ticks)
    music = file.add_stream('aac', 44100) if sound else None
    for index, image in enumerate(frames):
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), 'rgb24')
      frame = frame.reformat(format=pixels)
      frame.pts = index if times is None else round(1000 * times[index])
      frame.time_base = 1 / fractions.Fraction(ticks)
      file.mux(stream.encode(frame))
    file.mux(stream.encode(None))
    if music is not None:
      for start in range(0, round(44100 * sound), 1024):
        tone = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), 'fltp', 'mono'
        )
        tone.sample_rate, tone.pts = 44100, start
        file.mux(music.encode(tone))
      file.mux(music.encode(None))


def encode_sound(path):
  """Writes a file with sound alone."""
  with av.open(str(path), 'w') as file:
    music = file.add_stream('aac', 44100)
    for start in range(0, 44100, 1024):
      tone = av.AudioFrame.from_ndarray(
          np.zeros((1, 1024), np.float32), 'fltp', 'mono'
      )
      tone.sample_rate, tone.pts = 44100, start
      file.mux(music.encode(tone))
    file.mux(music.encode(None))


def set_matrix(path, source, name):
  """Copies an .mp4 with another display matrix."""
  data = bytearray(source.read_bytes())
  place = data.index(b'tkhd') + 4 + 40
  a, b, c, d = (65536 * value for value in MATRICES[name])
  data[place : place + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(data)


def encode_picture(path, image, codec, pixels):
  """Writes one picture; `image` is RGB or RGBA, uint8 or uint16."""
  context = av.CodecContext.create(codec, 'w')
  context.height, context.width = image.shape[:2]
  context.pix_fmt = pixels
  context.time_base = fractions.Fraction(1, 25)
  deep = 'rgb48le' if image.dtype == np.uint16 else 'rgb24'
  kind = 'rgba' if image.shape[2] == 4 else deep
  frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), kind)
  if pixels != kind:
    frame = frame.reformat(format=pixels)
  frame.pts = 0
  packets = [*context.encode(frame), *context.encode(None)]
  path.write_bytes(b''.join(bytes(packet) for packet in packets))


def add_exif(content, orientation):
  """Returns JPEG data with an EXIF orientation."""
  exif = b'Exif\0\0MM\0*' + struct.pack(
      '>IHHHIHHI', 8, 1, 0x0112, 3, 1, orientation, 0, 0
  )
  size = struct.pack('>H', len(exif) + 2)
  return content[:2] + b'\xff\xe1' + size + exif + content[2:]
