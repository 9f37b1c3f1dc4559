"""Synthetic clips: textured layers that move, turn and cover each other.

`make_clip(seed, num_frames, height, width)` gives uint8 RGB frames
[T, H, W, 3]. They are computed, not filmed: a textured background that drifts
and turns about the centre, a textured disc that moves across it and spins, and
a textured bar that crosses in front of both. Positions are integers in 1/256 of
a pixel, textures are integers, and sines come from one table that is rounded to
1/16384, so the bytes are the same on every machine; `digest` tells whether they
are.

`follow(seed, num_frames, height, width, layer, point)` gives where a point of a
layer is in every frame, in pixels whose centres are at .5 (rough ground truth,
to choose queries; occlusion is not considered).
"""

import hashlib

import numpy as np

_SINES = np.round(np.sin(np.arange(1024) * (2 * np.pi / 1024)) * 16384).astype(
    np.int64
)


def _sine(angle):
  """16384 * sine of an integer angle, 1024 to the turn."""
  return _SINES[np.asarray(angle) % 1024]


def _hash(seed, x, y):
  """Integers in [0, 256) that look random, one for each lattice point."""
  with np.errstate(over='ignore'):
    h = np.asarray(x).astype(np.uint32) * np.uint32(0x9E3779B1)
    h = h ^ np.asarray(y).astype(np.uint32) * np.uint32(0x85EBCA77)
    h = h ^ np.uint32(seed * 0xC2B2AE3D % 2**32)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
      h = (h ^ h >> np.uint32(shift)) * np.uint32(factor)
  return (h >> np.uint32(24)).astype(np.int64)


def _noise(seed, x, y, cell):
  """Value noise in [0, 256): lattice of `cell` pixels, bilinear in between."""
  i, u = np.divmod(x, 256 * cell)
  j, v = np.divmod(y, 256 * cell)
  top = _hash(seed, i, j) * (256 * cell - u) + _hash(seed, i + 1, j) * u
  low = _hash(seed, i, j + 1) * (256 * cell - u) + _hash(seed, i + 1, j + 1) * u
  return (top * (256 * cell - v) + low * v) // (256 * cell) ** 2


def _texture(seed, x, y):
  """RGB [..., 3] of a layer at its own coordinates, in 1/256 of a pixel."""
  channels = []
  for c in range(3):
    a, b = 3 + _hash(seed, c, 100) % 6, 3 + _hash(seed, c, 101) % 6
    wave = (
        _sine((a * x + b * y) // 32) + _sine((b * x - a * y) // 48)
    ) // 256 + 128
    octaves = [
        _noise(seed + 10 * c + k, x, y, cell)
        for k, cell in enumerate((24, 9, 4))
    ]
    channels.append((wave + 3 * octaves[0] + 3 * octaves[1] + octaves[2]) // 8)
  return np.clip((np.stack(channels, -1) - 128) * 7 // 4 + 128, 0, 255)


def _pose(seed, layer, t, height, width):
  """Center (x, y) in 1/256 px and angle of a layer (0 back, 1 disc, 2 bar)."""
  s = 1 if _hash(seed, layer, 7) % 2 else -1
  x, y = 128 * width, 128 * height
  if layer == 0:
    return x + 150 * s * t, y - 90 * t, 2 * s * t
  if layer == 1:
    return x + s * (220 * t - 20 * width), y + 24 * height - 160 * t, 9 * s * t
  return x + (24 * t - 110) * width, y, 40 + t


def _to_layer(pose, x, y):
  cx, cy, angle = pose
  cos, sin = _sine(angle + 256), _sine(angle)
  return (cos * (x - cx) + sin * (y - cy)) // 16384, (
      cos * (y - cy) - sin * (x - cx)
  ) // 16384


def make_clip(seed, num_frames, height, width):
  """Returns frames, uint8 [num_frames, height, width, 3]."""
  y, x = np.mgrid[:height, :width].astype(np.int64) * 256 + 128
  radius, half = 256 * min(height, width) // 4, 256 * width // 14
  frames = []
  for t in range(num_frames):
    image = _texture(seed, *_to_layer(_pose(seed, 0, t, height, width), x, y))
    u, v = _to_layer(_pose(seed, 1, t, height, width), x, y)
    image = np.where(
        (u * u + v * v < radius**2)[..., None],
        _texture(seed + 1000, u, v),
        image,
    )
    u, v = _to_layer(_pose(seed, 2, t, height, width), x, y)
    image = np.where(
        (abs(u) < half)[..., None], _texture(seed + 2000, u, v), image
    )
    frames.append(image.astype(np.uint8))
  return np.stack(frames)


def follow(seed, num_frames, height, width, layer, point):
  """Returns positions (x, y) [num_frames, 2] of a layer's point of frame 0."""
  start = np.round(np.asarray(point) * 256).astype(np.int64)
  u, v = _to_layer(_pose(seed, layer, 0, height, width), *start)
  out = []
  for t in range(num_frames):
    cx, cy, angle = _pose(seed, layer, t, height, width)
    cos, sin = _sine(angle + 256) / 16384, _sine(angle) / 16384
    out.append((cx + cos * u - sin * v, cy + sin * u + cos * v))
  return np.array(out, np.float64) / 256


def digest(frames):
  """Returns the SHA-256 of the frames' bytes, in hexadecimal."""
  return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()
