"""Color augmentation of clips, as in the training of PIPs++.

frames ──draw_changes──► changes ──apply to every frame──► frames

Random parameters, the noise included, are the same for all frames, so that
videos do not flicker. Kinds, order and probabilities are those of PIPs++, and
ranges those of Albumentations, the library of its program: noise, a blur, one
structural filter, color shifts, and JPEG compression.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import io

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.media.pictures import import_pillow

_LEVELS = 256
# Tiles of the adaptive equalization, per side.
_TILES = 8
# From linear RGB of sRGB to XYZ, with white at (1, 1, 1).
_TO_XYZ = np.asarray(
    [
        [0.433953, 0.376219, 0.189828],
        [0.212671, 0.715160, 0.072169],
        [0.017758, 0.109477, 0.872766],
    ]
)
_LAB_STEP = 6 / 29

Frame = UInt8[np.ndarray, 'h w 3']
# A function from a frame to the changed frame.
Change = Callable[[Frame], Frame]


@dataclasses.dataclass(frozen=True)
class ColorConfig:
  """Probabilities of color changes.

  Attributes:
    clip: probability that a clip is changed; the others are conditional on it.
    noise: probability of Gaussian noise.
    blur: probability of a blur: along a line, by a median or by a mean.
    structure: probability of an equalization, of sharper edges or of a relief.
    shift: probability that a constant is added to each channel.
    brightness: probability of a change of brightness and contrast.
    gamma: probability of a change of gamma.
    hue: probability of a change of hue, saturation and value.
    compression: probability of JPEG compression.
  """

  clip: float = 0.8
  noise: float = 0.2
  blur: float = 0.2
  structure: float = 0.2
  shift: float = 0.5
  brightness: float = 0.5
  gamma: float = 0.5
  hue: float = 0.3
  compression: float = 0.3

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if not 0 <= getattr(self, field.name) <= 1:
        raise ValueError(
            f'{field.name} must be a probability, from 0 to 1; got '
            f'{getattr(self, field.name)}'
        )


def recolor_clip(
    frames: UInt8[np.ndarray, 't h w 3'],
    config: ColorConfig,
    generator: np.random.Generator,
) -> UInt8[np.ndarray, 't h w 3']:
  """Changes the colors of all frames in the same way; needs Pillow."""
  if generator.random() >= config.clip:
    return frames
  changes = draw_changes((frames.shape[1], frames.shape[2]), config, generator)
  recolored = []
  for frame in frames:
    for change in changes:
      frame = change(frame)
    recolored.append(frame)
  return np.stack(recolored)


def draw_changes(
    size: tuple[int, int], config: ColorConfig, generator: np.random.Generator
) -> list[Change]:
  """Draws the changes of all frames of a clip of (height, width) `size`."""
  draws: tuple[tuple[float, Callable[[], Change]], ...] = (
      (config.noise, lambda: _draw_noise(size, generator)),
      (config.blur, lambda: _draw_blur(generator)),
      (config.structure, lambda: _draw_structure(generator)),
      (config.shift, lambda: _draw_shift(generator)),
      (config.brightness, lambda: _draw_brightness(generator)),
      (config.gamma, lambda: _draw_gamma(generator)),
      (config.hue, lambda: _draw_hue(generator)),
      (config.compression, lambda: _draw_compression(generator)),
  )
  return [draw() for chance, draw in draws if generator.random() < chance]


def filter_frame(frame: Frame, kernel: Float[np.ndarray, 'a b']) -> Frame:
  """Correlates a frame with a kernel; borders are mirrored."""
  height, width = frame.shape[:2]
  tall, wide = kernel.shape
  padded = np.pad(
      frame.astype(np.float32),
      ((tall // 2,) * 2, (wide // 2,) * 2, (0, 0)),
      mode='reflect',
  )
  total = np.zeros(frame.shape, np.float32)
  for row, column in np.argwhere(kernel):
    part = padded[row : row + height, column : column + width]
    total += np.float32(kernel[row, column]) * part
  return _to_levels(total)


def take_median(frame: Frame) -> Frame:
  """Filters a frame by the median of 3x3 pixels."""
  height, width = frame.shape[:2]
  padded = np.pad(frame, ((1, 1), (1, 1), (0, 0)), mode='edge')
  around = [
      padded[row : row + height, column : column + width]
      for row in range(3)
      for column in range(3)
  ]
  return np.partition(np.stack(around), 4, axis=0)[4]


def equalize_lightness(frame: Frame, clip_limit: float) -> Frame:
  """Contrast limited adaptive histogram equalization of the lightness.

  Hue and chroma are kept. Counts of levels are clipped to `clip_limit` times
  their mean, and tables are interpolated between the centers of tiles.
  """
  lab = _to_lab(frame)
  lightness = _to_levels(lab[..., 0] * (255 / 100))
  lab[..., 0] = _equalize(lightness, clip_limit) * (100 / 255)
  return _from_lab(lab)


def shift_hue(
    frame: Frame, hue: float, saturation: float, value: float
) -> Frame:
  """Adds to the hue, in full turns, and to saturation and value, in levels."""
  levels = frame.astype(np.float32)
  high = levels.max(axis=-1)
  spread = high - levels.min(axis=-1)
  safe = np.where(spread == 0, 1, spread)
  red, green, blue = np.moveaxis(levels, -1, 0)
  angle = np.where(
      high == red,
      (green - blue) / safe,
      np.where(
          high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe
      ),
  )
  angle = angle + 6 * hue
  colorful = 255 * spread / np.where(high == 0, 1, high)
  colorful = np.clip(colorful + saturation, 0, 255) / 255
  high = np.clip(high + value, 0, 255)
  channels = []
  for offset in (5, 3, 1):
    place = (offset + angle) % 6
    weight = np.clip(np.minimum(place, 4 - place), 0, 1)
    channels.append(high * (1 - colorful * weight))
  return _to_levels(np.stack(channels, axis=-1))


def compress_frame(frame: Frame, quality: int) -> Frame:
  """Returns a frame after JPEG compression of a quality in 1 to 100."""
  pillow = import_pillow()
  file = io.BytesIO()
  pillow.fromarray(frame).save(file, format='JPEG', quality=quality)
  with pillow.open(file) as image:
    return np.asarray(image)


def _draw_noise(
    size: tuple[int, int], generator: np.random.Generator
) -> Change:
  deviation = np.sqrt(generator.uniform(10, 50))
  noise = generator.normal(0, deviation, (*size, 3)).astype(np.float32)
  return lambda frame: _to_levels(frame + noise)


def _draw_blur(generator: np.random.Generator) -> Change:
  kind = generator.choice(['motion', 'median', 'mean'], p=[0.5, 0.25, 0.25])
  if kind == 'median':
    return take_median
  kernel = np.full((3, 3), 1 / 9)
  if kind == 'motion':
    side = int(generator.choice([3, 5, 7]))
    kernel = make_line(side, *_draw_ends(side, generator))
  return lambda frame: filter_frame(frame, kernel)


def make_line(
    side: int, start: Sequence[int], end: Sequence[int]
) -> Float[np.ndarray, '_ _']:
  """Returns the kernel of a mean along a line between two cells."""
  number = int(np.abs(np.subtract(end, start)).max()) + 1
  cells = np.rint(np.linspace(start, end, number)).astype(int)
  kernel = np.zeros((side, side))
  kernel[cells[:, 0], cells[:, 1]] = 1 / number
  return kernel


def _draw_ends(
    side: int, generator: np.random.Generator
) -> tuple[list[int], list[int]]:
  """Draws two different cells of a square."""
  first, second = generator.choice(side * side, 2, replace=False)
  return list(divmod(int(first), side)), list(divmod(int(second), side))


def _draw_structure(generator: np.random.Generator) -> Change:
  kind = generator.choice(['equalize', 'sharpen', 'emboss'])
  if kind == 'equalize':
    clip_limit = generator.uniform(1, 2)
    return lambda frame: equalize_lightness(frame, clip_limit)
  same = np.zeros((3, 3))
  same[1, 1] = 1
  alpha = generator.uniform(0.2, 0.5)
  if kind == 'sharpen':
    changed = np.full((3, 3), -1.0)
    changed[1, 1] = 8 + generator.uniform(0.5, 1)
  else:
    slope = generator.uniform(0.2, 0.7)
    changed = np.asarray(
        [[-1 - slope, -slope, 0], [-slope, 1, slope], [0, slope, 1 + slope]]
    )
  kernel = (1 - alpha) * same + alpha * changed
  return lambda frame: filter_frame(frame, kernel)


def _draw_shift(generator: np.random.Generator) -> Change:
  shift = generator.uniform(-20, 20, size=3)
  return _make_lookup(np.arange(_LEVELS)[:, None] + shift)


def _draw_brightness(generator: np.random.Generator) -> Change:
  brightness, contrast = generator.uniform(-0.2, 0.2, size=2)
  levels = np.arange(_LEVELS)[:, None] * (1 + contrast) + 255 * brightness
  return _make_lookup(np.repeat(levels, 3, axis=1))


def _draw_gamma(generator: np.random.Generator) -> Change:
  levels = 255 * (np.arange(_LEVELS) / 255) ** generator.uniform(0.8, 1.2)
  return _make_lookup(np.repeat(levels[:, None], 3, axis=1))


def _draw_hue(generator: np.random.Generator) -> Change:
  # OpenCV divides a full turn into 180 steps.
  hue = generator.uniform(-20, 20) / 180
  saturation = generator.uniform(-30, 30)
  value = generator.uniform(-20, 20)
  return lambda frame: shift_hue(frame, hue, saturation, value)


def _draw_compression(generator: np.random.Generator) -> Change:
  quality = int(generator.integers(50, 101))
  return lambda frame: compress_frame(frame, quality)


def _make_lookup(table: Float[np.ndarray, 'l 3']) -> Change:
  """Returns the change that maps levels of each channel by a table."""
  levels = _to_levels(table)
  channels = np.arange(3)
  return lambda frame: levels[frame, channels]


def _to_levels(values: Float[np.ndarray, '*n']) -> UInt8[np.ndarray, '*n']:
  return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _equalize(
    levels: UInt8[np.ndarray, 'h w'], clip_limit: float
) -> Float[np.ndarray, 'h w']:
  """Equalizes levels by tables of tiles, interpolated between four tiles."""
  height, width = levels.shape
  tall, wide = -(-height // _TILES), -(-width // _TILES)
  # Tiles are of one size; the last ones are completed by mirroring.
  rows = _mirror(np.arange(tall * _TILES), height)
  columns = _mirror(np.arange(wide * _TILES), width)
  tiles = levels[rows][:, columns].reshape(_TILES, tall, _TILES, wide)
  tiles = tiles.swapaxes(1, 2).reshape(_TILES**2, tall * wide)
  tables = np.stack([_make_table(tile, clip_limit) for tile in tiles])
  tables = tables.reshape(_TILES, _TILES, _LEVELS)

  y, y_share = _find_tiles(height, tall)
  x, x_share = _find_tiles(width, wide)
  corners = [
      [
          tables[
              np.clip(y + down, 0, _TILES - 1)[:, None],
              np.clip(x + right, 0, _TILES - 1)[None],
              levels,
          ]
          for right in (0, 1)
      ]
      for down in (0, 1)
  ]
  above, below = (
      left + (right - left) * x_share[None] for left, right in corners
  )
  return above + (below - above) * y_share[:, None]


def _make_table(
    tile: UInt8[np.ndarray, 'n'], clip_limit: float
) -> Float[np.ndarray, 'l']:
  """Returns the equalized value of each level of a tile."""
  counts = np.bincount(tile, minlength=_LEVELS)
  most = max(int(clip_limit * tile.size / _LEVELS), 1)
  excess = int(np.maximum(counts - most, 0).sum())
  each, rest = divmod(excess, _LEVELS)
  counts = np.minimum(counts, most) + each
  if rest:
    counts[:: max(_LEVELS // rest, 1)][:rest] += 1
  return np.rint(np.cumsum(counts) * (255 / tile.size))


def _find_tiles(length: int, side: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the last tile centered before each pixel, and the fraction."""
  # As in OpenCV, positions of pixels are their upper-left corners here.
  places = np.arange(length) / side - 0.5
  first = np.floor(places)
  return first.astype(int), (places - first).astype(np.float32)


def _mirror(places: np.ndarray, length: int) -> np.ndarray:
  """Reflects indices beyond the end of an axis into it."""
  period = max(2 * (length - 1), 1)
  places = places % period
  return np.minimum(places, period - places)


def _to_lab(frame: Frame) -> Float[np.ndarray, 'h w 3']:
  """Converts sRGB to CIE L*a*b*."""
  shares = np.arange(_LEVELS) / 255
  linear = np.where(
      shares > 0.04045, ((shares + 0.055) / 1.055) ** 2.4, shares / 12.92
  )
  xyz = linear[frame] @ _TO_XYZ.T
  roots = np.where(
      xyz > _LAB_STEP**3, np.cbrt(xyz), xyz / (3 * _LAB_STEP**2) + 4 / 29
  )
  x, y, z = np.moveaxis(roots, -1, 0)
  return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _from_lab(lab: Float[np.ndarray, 'h w 3']) -> Frame:
  """Converts CIE L*a*b* to sRGB, clipped to the gamut."""
  y = (lab[..., 0] + 16) / 116
  roots = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
  xyz = np.where(
      roots > _LAB_STEP, roots**3, 3 * _LAB_STEP**2 * (roots - 4 / 29)
  )
  linear = np.clip(xyz @ np.linalg.inv(_TO_XYZ).T, 0, 1)
  shares = np.where(
      linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear
  )
  return _to_levels(255 * shares)
