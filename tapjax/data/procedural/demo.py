"""A small procedural clip with exact tracks, for demonstrations.

Flat textured objects move, rotate and scale in front of a slowly moving
background and of each other. Each lies in a plane of its own, mapped to the
frame by a similarity,

  pixel = center(t) + scale(t) * rotation(t) @ point of the plane,

and frames are rendered by the inverse of that map. The position of a point of a
plane is thus known on every frame, and the point is occluded exactly if the
outline of a nearer object covers it, or outside of the frame.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.types import Tracks

FRAME_RATE = 24.0

_SEED = 7
_TEXELS_PER_UNIT = 2
# Length in pixels of a frame's shorter side for which planes have scale 1.
_FRAME_UNITS = 256
# Least distance of queries to outlines and borders, in units.
_MARGIN = 3.0
_POINTS_PER_OBJECT = 6
_POINTS_ON_BACKGROUND = 12


class DemoClip(NamedTuple):
  """Frames and ground-truth tracks, in the conventions of TAP-Vid.

  Query points are (t, y, x), target points (x, y), in raster pixels. Targets of
  occluded points are exact, too; points outside of the frame are occluded.
  Every query is visible on its own frame.
  """

  frames: UInt8[np.ndarray, 't h w 3']
  query_points: Float[np.ndarray, 'n 3']
  target_points: Float[np.ndarray, 'n t 2']
  occluded: Bool[np.ndarray, 'n t']


class Layer(NamedTuple):
  """A textured plane, its outline and its path.

  The outline is a circle of `radius` units with `lobes` waves of relative
  height `wave`; the background's radius is infinite. The path is `home` plus
  `swing` times sines, in fractions of the frame's size, with a period in
  frames; `turn` is in radians per frame and `growth` the relative change of
  size.
  """

  texture: Float[np.ndarray, 's s 3']
  radius: float
  lobes: int
  wave: float
  home: tuple[float, float]
  swing: tuple[float, float]
  period: float
  phase: float
  turn: float
  growth: float


class Pose(NamedTuple):
  """Map of a plane to one frame: pixel (x, y) = center + matrix @ point."""

  center: Float[np.ndarray, '2']
  matrix: Float[np.ndarray, '2 2']


def make_demo_clip(
    num_frames: int = 48, resolution: tuple[int, int] = (256, 256)
) -> DemoClip:
  """Renders the clip, deterministically; `resolution` is (height, width).

  It has about 36 queries, on every object and on the background, about half of
  them on later frames. A shorter clip is the beginning of a longer one. Raises
  ValueError for less than one frame or 32 pixels.
  """
  if num_frames < 1 or min(resolution) < 32:
    raise ValueError(
        'num_frames must be at least 1 and resolution at least (32, 32); got'
        f' {num_frames} and {tuple(resolution)}'
    )
  layers = make_layers(resolution)
  frames = np.stack(
      [render_frame(layers, time, resolution) for time in range(num_frames)]
  )
  queries: list[list[float]] = []
  targets: list[np.ndarray] = []
  occlusions: list[np.ndarray] = []
  for depth, layer in enumerate(layers):
    is_object = np.isfinite(layer.radius)
    wanted = _POINTS_PER_OBJECT if is_object else _POINTS_ON_BACKGROUND
    for point in _spread_points(layer):
      if wanted == 0:
        break
      positions, depths = trace_point(
          layers, depth, point, num_frames, resolution
      )
      clear = depths > _MARGIN
      if clear.sum() < max(num_frames // 4, 1):
        continue
      wanted -= 1
      # Every third point is queried in the middle of its visible frames.
      clear_frames = np.flatnonzero(clear)
      later = len(queries) % 3 == 2
      time = clear_frames[len(clear_frames) // 2 if later else 0]
      queries.append([time, positions[time, 1], positions[time, 0]])
      targets.append(positions)
      occlusions.append(depths <= 0)
  return DemoClip(
      frames,
      np.array(queries, np.float32).reshape(-1, 3),
      np.array(targets, np.float32).reshape(-1, num_frames, 2),
      np.array(occlusions, bool).reshape(-1, num_frames),
  )


def describe_error(clip: DemoClip, tracks: Tracks) -> str:
  """Returns one line with errors of the tracks of the clip's queries.

  Position errors are over visible points, visibility over all points, both
  without the query frames.
  """
  frames = np.arange(clip.occluded.shape[1])
  counted = frames != np.round(clip.query_points[:, :1])
  seen = counted & ~clip.occluded
  distance = np.linalg.norm(tracks.positions - clip.target_points, axis=-1)
  agrees = tracks.visible != clip.occluded
  return (
      f'against the truth: median error {np.median(distance[seen]):.2f} px, '
      f'{np.mean(distance[seen] < 4):.0%} within 4 px, visibility right in '
      f'{np.mean(agrees[counted]):.0%}'
  )


def make_layers(resolution: tuple[int, int]) -> tuple[Layer, ...]:
  """Returns the background and the objects on it, from far to near."""
  # Textures lack details too fine for small frames.
  finest = 7.0 * max(_FRAME_UNITS / min(resolution), 1.0)
  rng = np.random.default_rng(_SEED)

  def paint(size: int, *palette: tuple[int, int, int]) -> np.ndarray:
    return _make_texture(rng, size, palette, finest)

  # fmt: off
  return (
      Layer(
          paint(1024, (58, 88, 84), (112, 138, 112), (176, 176, 136)),
          np.inf, 0, 0.0, (0.5, 0.5), (0.07, 0.05), 120.0, 0.3, 0.0008, 0.03,
      ),
      Layer(
          paint(256, (84, 36, 54), (186, 74, 72), (244, 178, 132)),
          52.0, 5, 0.08, (0.36, 0.60), (0.17, 0.10), 95.0, 0.9, 0.011, 0.12,
      ),
      Layer(
          paint(256, (28, 48, 92), (72, 122, 180), (190, 220, 230)),
          40.0, 3, 0.10, (0.62, 0.40), (0.22, 0.16), 80.0, 2.4, -0.018, 0.10,
      ),
      Layer(
          paint(256, (96, 62, 20), (214, 150, 52), (250, 226, 150)),
          31.0, 4, 0.12, (0.45, 0.38), (0.27, 0.20), 70.0, 4.4, 0.025, 0.15,
      ),
      Layer(
          paint(256, (50, 30, 74), (136, 92, 168), (226, 196, 236)),
          24.0, 6, 0.09, (0.56, 0.68), (0.30, 0.12), 64.0, 5.6, -0.03, 0.08,
      ),
  )
  # fmt: on


def compute_pose(layer: Layer, time: int, resolution: tuple[int, int]) -> Pose:
  """Returns the pose of a plane at a time, in frames since the start."""
  size = np.array(resolution[::-1], np.float64)
  angle = 2 * np.pi * time / layer.period + layer.phase
  sway = np.array([np.sin(angle), np.cos(1.3 * angle)]) * layer.swing
  scale = 1.0 + layer.growth * np.sin(0.8 * angle)
  scale *= min(resolution) / _FRAME_UNITS
  cos = scale * np.cos(layer.turn * time)
  sin = scale * np.sin(layer.turn * time)
  return Pose(
      (np.array(layer.home) + sway) * size, np.array([[cos, -sin], [sin, cos]])
  )


def measure_inside(
    layer: Layer, points: Float[np.ndarray, '*n 2']
) -> Float[np.ndarray, '*n']:
  """Returns distances in units from points to the outline; negative outside."""
  if np.isinf(layer.radius):
    return np.full(points.shape[:-1], np.inf)
  angle = np.arctan2(points[..., 1], points[..., 0])
  outline = layer.radius * (1 + layer.wave * np.cos(layer.lobes * angle))
  return outline - np.hypot(points[..., 0], points[..., 1])


def trace_point(
    layers: tuple[Layer, ...],
    depth: int,
    point: Float[np.ndarray, '2'],
    num_frames: int,
    resolution: tuple[int, int],
) -> tuple[Float[np.ndarray, 't 2'], Float[np.ndarray, ' t']]:
  """Computes the track of a point of the plane of `layers[depth]`.

  Returns positions (x, y) in pixels, and the distance in units to the nearest
  border of the frame or covering outline: the point is visible if positive.
  """
  positions = np.empty((num_frames, 2))
  clearance = np.empty(num_frames)
  units = min(resolution) / _FRAME_UNITS
  for time in range(num_frames):
    center, matrix = compute_pose(layers[depth], time, resolution)
    positions[time] = center + matrix @ point
    borders = np.array(resolution[::-1]) - positions[time]
    limits = [positions[time].min() / units, borders.min() / units]
    for nearer in layers[depth + 1 :]:
      pose = compute_pose(nearer, time, resolution)
      local = np.linalg.solve(pose.matrix, positions[time] - pose.center)
      limits.append(-measure_inside(nearer, local[np.newaxis])[0])
    clearance[time] = min(limits)
  return positions, clearance


def render_frame(
    layers: tuple[Layer, ...], time: int, resolution: tuple[int, int]
) -> UInt8[np.ndarray, 'h w 3']:
  """Renders the layers from far to near, with antialiased edges."""
  height, width = resolution
  frame = np.zeros((height, width, 3), np.float32)
  for layer in layers:
    center, matrix = compute_pose(layer, time, resolution)
    scale = np.sqrt(np.linalg.det(matrix))
    reach = layer.radius * (1 + layer.wave) * scale + 2
    left, top = np.clip(center - reach, 0, [width, height]).astype(int)
    right, low = np.clip(center + reach + 1, 0, [width, height]).astype(int)
    pixels = np.stack(
        np.meshgrid(np.arange(left, right) + 0.5, np.arange(top, low) + 0.5),
        axis=-1,
    )
    points = (pixels - center) @ np.linalg.inv(matrix).T
    inside = measure_inside(layer, points)
    # Objects darken toward their rim, as if they were round.
    shade = 0.55 + 0.45 * np.sqrt(np.clip(inside / 14.0, 0.0, 1.0))
    opacity = np.clip(0.5 + inside * scale, 0.0, 1.0)[..., np.newaxis]
    color = sample_texture(layer.texture, points) * shade[..., np.newaxis]
    frame[top:low, left:right] += opacity * (color - frame[top:low, left:right])
  return np.round(np.clip(frame, 0, 255)).astype(np.uint8)


def sample_texture(
    texture: Float[np.ndarray, 's s 3'], points: Float[np.ndarray, 'h w 2']
) -> Float[np.ndarray, 'h w 3']:
  """Samples a periodic texture at points of its plane, bilinearly."""
  texels = points * _TEXELS_PER_UNIT
  corner = np.floor(texels).astype(np.int64)
  right, low = np.moveaxis((texels - corner).astype(np.float32), -1, 0)
  x, y = np.moveaxis(corner, -1, 0)
  flat = texture.reshape(-1, 3)
  size = texture.shape[0]

  def read(rows: np.ndarray, columns: np.ndarray, weight: np.ndarray):
    index = rows % size * size + columns % size
    return flat.take(index, axis=0) * weight[..., np.newaxis]

  return (
      read(y, x, (1 - low) * (1 - right))
      + read(y, x + 1, (1 - low) * right)
      + read(y + 1, x, low * (1 - right))
      + read(y + 1, x + 1, low * right)
  )


def _make_texture(
    rng: np.random.Generator,
    size: int,
    palette: tuple[tuple[int, int, int], ...],
    finest: float,
) -> Float[np.ndarray, 's s 3']:
  """Returns a periodic texture of three colors with grain, in 0 to 255."""
  dark, middle, light = np.array(palette, np.float32)
  blotches = np.tanh(1.6 * _make_noise(rng, size, 2.0, finest))[..., np.newaxis]
  specks = np.tanh(2.0 * _make_noise(rng, size, 1.5, finest) - 1.4)[
      ..., np.newaxis
  ]
  grain = _make_noise(rng, size, 1.1, finest)[..., np.newaxis]
  color = middle + 0.5 * (1 + blotches) * (light - middle)
  color = color + 0.5 * (1 + specks) * (dark - color)
  return np.clip(color * (1 + 0.1 * grain), 0, 255)


def _make_noise(
    rng: np.random.Generator, size: int, falloff: float, finest: float
) -> Float[np.ndarray, 's s']:
  """Returns noise of all octaves down to `finest` texels, of variance 1."""
  shape = (size, size // 2 + 1)
  frequency = np.hypot(
      np.fft.fftfreq(size)[:, np.newaxis], np.fft.rfftfreq(size)
  )
  amplitude = (frequency + 1 / 160) ** -falloff
  amplitude *= np.clip(1.5 - frequency * finest, 0.0, 1.0)
  waves = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
  noise = np.fft.irfft2(amplitude * waves).astype(np.float32)
  return (noise - noise.mean()) / noise.std()


def _spread_points(layer: Layer) -> Float[np.ndarray, 'm 2']:
  """Returns candidate queries of a plane, evenly spread, in a fixed order."""
  index = np.arange(60)
  if np.isinf(layer.radius):
    return (np.outer(index, [0.7548776662, 0.5698402910]) % 1 - 0.5) * 240
  angle = 2.399963 * index
  distance = 0.8 * layer.radius * np.sqrt((0.37 * index + 0.2) % 1)
  return np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=-1)
