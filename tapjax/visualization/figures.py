"""Figures of training: predictions with ground truth, attention, loss curves.

Figures are uint8 pictures, for files or TensorBoard. Pillow is required.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import math
from typing import Any, NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.media.pictures import import_pillow
from tapjax.visualization.overlay import make_track_colors

Color = tuple[int, int, int]
Number = int | float

_BLACK = (0, 0, 0)
_GRAY = (110, 110, 110)
_LIGHT = (222, 222, 222)
# Colors of curves in order: blue, red, gray, green, purple.
_CURVE_COLORS = (
    (31, 98, 190),
    (208, 44, 44),
    (130, 130, 130),
    (46, 140, 60),
    (148, 80, 190),
)
# Antialiasing: pictures are drawn at this many times their size, then shrunk.
_OVERSAMPLING = 2
_TILE = 256
_SMALL_TILE = 132
_MAP = 300
_GAP = 8
_TITLE = 22
_FONT = 13
_HEADS_PER_ROW = 4
_NUM_TICKS = 5
# Axes up to this length label every integer.
_MOST_NUMBERS = 13


class Box(NamedTuple):
  """Rectangle in pixels of a picture."""

  left: Number
  top: Number
  width: Number
  height: Number


class Canvas:
  """Picture to draw on; positions are (x, y) in its pixels."""

  def __init__(self, width: int, height: int):
    """Makes a white picture."""
    self._pillow = import_pillow()
    from PIL import ImageDraw
    from PIL import ImageFont

    size = (_OVERSAMPLING * width, _OVERSAMPLING * height)
    self._image = self._pillow.new('RGB', size, 'white')
    self._draw = ImageDraw.Draw(self._image)
    self._make_font = ImageFont.load_default

  def paste(self, picture: UInt8[np.ndarray, 'h w 3'], box: Box) -> None:
    """Resizes a picture into a box; enlarged pictures keep sharp pixels."""
    left, top, width, height = (round(_OVERSAMPLING * side) for side in box)
    is_small = picture.shape[1] < box.width
    resampling = self._pillow.Resampling
    image = self._pillow.fromarray(np.ascontiguousarray(picture))
    self._image.paste(
        image.resize(
            (width, height), resampling.NEAREST if is_small else resampling.BOX
        ),
        (left, top),
    )

  def paste_canvas(self, other: 'Canvas', left: int, top: int) -> None:
    """Copies another canvas to (left, top)."""
    self._image.paste(other._image, (_OVERSAMPLING * left, _OVERSAMPLING * top))

  def line(
      self,
      points: Float[np.ndarray, 'n 2'],
      color: Color,
      width: Number = 1.5,
      dash: Number | None = None,
  ) -> None:
    """Draws a polyline, dashed if a dash length is given."""
    width = round(_OVERSAMPLING * width)
    strokes = [points] if dash is None else cut_dashes(points, dash)
    for stroke in strokes:
      places = [tuple(place) for place in _OVERSAMPLING * stroke]
      if len(places) > 1:
        self._draw.line(places, color, width, joint='curve')

  def circle(
      self, center: Float[np.ndarray, '2'], radius: Number, color: Color
  ) -> None:
    """Draws a ring with a dark outline."""
    for grown, shade, width in ((1, _BLACK, 4), (0, color, 2)):
      low, high = (
          _OVERSAMPLING * (center + sign * (radius + grown)) for sign in (-1, 1)
      )
      self._draw.ellipse((*low, *high), outline=shade, width=2 * width)

  def cross(
      self, center: Float[np.ndarray, '2'], radius: Number, color: Color
  ) -> None:
    """Draws a cross (x) with a dark outline."""
    for shade, width in ((_BLACK, 4.0), (color, 2.0)):
      for slope in (1, -1):
        arm = radius * np.asarray([1.0, slope])
        self.line(np.stack([center - arm, center + arm]), shade, width)

  def star(
      self, center: Float[np.ndarray, '2'], radius: Number, color: Color
  ) -> None:
    """Draws a filled five-pointed star."""
    turns = np.pi * (np.arange(10) / 5 - 0.5)
    reach = np.where(np.arange(10) % 2, 0.45 * radius, radius)
    places = center + reach[:, None] * np.stack(
        [np.cos(turns), np.sin(turns)], axis=-1
    )
    self._draw.polygon(
        [tuple(place) for place in _OVERSAMPLING * places],
        fill=color,
        outline=_BLACK,
        width=_OVERSAMPLING,
    )

  def frame(self, box: Box) -> None:
    """Draws the outline of a box."""
    left, top, width, height = (_OVERSAMPLING * side for side in box)
    self._draw.rectangle(
        (left, top, left + width, top + height), outline=_GRAY, width=2
    )

  def text(
      self,
      x: Number,
      y: Number,
      text: str,
      anchor: str = 'mm',
      size: Number = _FONT,
      color: Color = _BLACK,
  ) -> None:
    """Writes one line; `anchor` is Pillow's, such as 'lm' for left middle."""
    self._draw.text(
        (_OVERSAMPLING * x, _OVERSAMPLING * y),
        text,
        fill=color,
        font=self._make_font(_OVERSAMPLING * size),
        anchor=anchor,
    )

  def upright_text(self, x: Number, y: Number, text: str) -> None:
    """Writes one line rotated to run upward, centered at (x, y)."""
    from PIL import ImageDraw

    font = self._make_font(_OVERSAMPLING * _FONT)
    left, top, right, bottom = font.getbbox(text)
    size = (math.ceil(right - left) + 2, math.ceil(bottom - top) + 2)
    label = self._pillow.new('RGB', size, 'white')
    ImageDraw.Draw(label).text((1 - left, 1 - top), text, _BLACK, font)
    label = label.transpose(self._pillow.Transpose.ROTATE_90)
    corner = (
        round(_OVERSAMPLING * x - label.width / 2),
        round(_OVERSAMPLING * y - label.height / 2),
    )
    self._image.paste(label, corner)

  def finish(self) -> UInt8[np.ndarray, 'h w 3']:
    """Returns the picture."""
    return np.asarray(self._image.reduce(_OVERSAMPLING))


def draw_predictions(
    frames: UInt8[np.ndarray, 't h w 3'],
    positions_unit: Float[np.ndarray, 't n 2'],
    targets_unit: Float[np.ndarray, 't n 2'],
) -> UInt8[np.ndarray, '_ _ 3']:
  """Draws predicted and true tracks on every frame, in two rows of frames.

  The ground truth is a dashed path that ends in a ring, a prediction a solid
  path that ends in a cross. Stars mark the first positions on the first frame.
  Positions are normalized coordinates (x, y), 0 to 1.
  """
  num_frames, height, width = frames.shape[:3]
  columns = math.ceil(num_frames / 2)
  rows = math.ceil(num_frames / columns)
  tall = round(_TILE * height / width)
  step_x, step_y = _TILE + _GAP, tall + _TITLE + _GAP
  canvas = Canvas(columns * step_x + _GAP, rows * step_y + _TITLE + _GAP)
  scale = np.asarray([_TILE, tall], np.float64)
  predicted, true = (
      scale * np.asarray(coordinates, np.float64)
      for coordinates in (positions_unit, targets_unit)
  )
  colors = _list_colors(predicted.shape[1])
  for t in range(num_frames):
    row, column = divmod(t, columns)
    tile = Canvas(_TILE, tall)
    tile.paste(frames[t], Box(0, 0, _TILE, tall))
    for n, color in enumerate(colors):
      tile.line(true[: t + 1, n], color, 2.0, dash=5.0)
      tile.line(predicted[: t + 1, n], color, 2.0)
    for n, color in enumerate(colors):
      if not t:
        tile.star(true[0, n], 9.0, color)
      tile.circle(true[t, n], 5.0, color)
      tile.cross(predicted[t, n], 4.0, color)
    left, top = _GAP + column * step_x, row * step_y + _TITLE
    canvas.text(left + _TILE / 2, top - _TITLE / 2, f'Frame {t}')
    canvas.paste_canvas(tile, left, top)
  canvas.text(
      (columns * step_x + _GAP) / 2,
      rows * step_y + _TITLE / 2,
      'ring, dashed: truth     cross, solid: prediction     star: begin',
  )
  return canvas.finish()


def draw_attention(
    frames: UInt8[np.ndarray, 't h w 3'],
    weights: Float[np.ndarray, 't t'],
    title: str = 'Attention between frames',
) -> UInt8[np.ndarray, '_ _ 3']:
  """Draws frames in a row, and the attention weights between them below.

  Rows of `weights` are query frames, columns are key frames.
  """
  num_frames, height, width = frames.shape[:3]
  tall = round(_SMALL_TILE * height / width)
  step = _SMALL_TILE + _GAP
  total = max(num_frames * step + _GAP, _MAP + 170)
  top = _TITLE + tall + 2 * _GAP
  canvas = Canvas(total, top + _TITLE + _MAP + 3 * _TITLE)
  for t, frame in enumerate(frames):
    left = _GAP + t * step
    canvas.text(left + _SMALL_TILE / 2, _TITLE / 2, f'Frame {t}')
    canvas.paste(frame, Box(left, _TITLE, _SMALL_TILE, tall))
  box = Box(3 * _TITLE, top + _TITLE, _MAP, _MAP)
  canvas.text(box.left + _MAP / 2, box.top - _TITLE / 2, title)
  _draw_heat_map(canvas, box, weights, 'query frame', 'key frame')
  return canvas.finish()


def draw_heads(
    weights: Float[np.ndarray, 'k s s'],
) -> UInt8[np.ndarray, '_ _ 3']:
  """Draws attention maps between tokens, one for each head."""
  columns = min(_HEADS_PER_ROW, len(weights))
  rows = math.ceil(len(weights) / columns)
  step_x, step_y = _MAP + 160, _MAP + 4 * _TITLE
  canvas = Canvas(columns * step_x, rows * step_y)
  for k, head in enumerate(weights):
    row, column = divmod(k, columns)
    left, top = column * step_x + 3 * _TITLE, row * step_y + _TITLE
    canvas.text(left + _MAP / 2, top - _TITLE / 2, f'Head {k}')
    box = Box(left, top, _MAP, _MAP)
    _draw_heat_map(canvas, box, head, 'query token', 'key token')
  return canvas.finish()


def draw_curves(
    curves: Mapping[str, Sequence[float]], title: str, x_label: str
) -> UInt8[np.ndarray, '_ _ 3']:
  """Draws curves of values over steps 1, 2, 3 and so on, one for each name.

  Values that are not finite are left out.
  """
  width, height = 760, 460
  canvas = Canvas(width, height)
  box = Box(78, 40, width - 78 - 24, height - 40 - 58)
  values = np.concatenate(
      [np.zeros(0), *(np.asarray(curve) for curve in curves.values())]
  )
  values = values[np.isfinite(values)]
  low, high = 0.0, float(np.max(values, initial=0.0))
  if values.size and values.min() < 0:
    low = float(values.min())
  ticks = choose_ticks(low, high)
  low, high = ticks[0], ticks[-1]
  last = max((len(curve) for curve in curves.values()), default=1)

  def place(x: Number, y: Number) -> tuple[float, float]:
    share = (x - 1) / max(last - 1, 1)
    return (
        box.left + box.width * share,
        box.top + box.height * (high - y) / (high - low),
    )

  canvas.text(width / 2, box.top / 2, title, size=_FONT + 3)
  for tick in ticks:
    _, y = place(1, tick)
    ends = np.asarray([[box.left, y], [box.left + box.width, y]])
    canvas.line(ends, _LIGHT, 1.0)
    canvas.text(box.left - 8, y, f'{tick:.4g}', 'rm')
  for number in sorted({1, last} | _choose_numbers(last)):
    x, _ = place(number, low)
    canvas.text(x, box.top + box.height + 14, str(number))
  canvas.frame(box)
  canvas.text(box.left + box.width / 2, height - 18, x_label)
  for i, (name, curve) in enumerate(curves.items()):
    color = _CURVE_COLORS[i % len(_CURVE_COLORS)]
    points = np.asarray(
        [place(x, y) for x, y in enumerate(curve, start=1) if math.isfinite(y)]
    ).reshape(-1, 2)
    canvas.line(points, color, 2.0)
    if len(points) == 1:
      canvas.circle(points[0], 2.0, color)
    y = box.top + 18 + 20 * i
    right = box.left + box.width
    canvas.line(
        np.asarray([[right - 190.0, y], [right - 160.0, y]]), color, 3.0
    )
    canvas.text(right - 152, y, name, 'lm')
  return canvas.finish()


def choose_ticks(low: Number, high: Number) -> list[float]:
  """Returns a few round ticks that enclose both numbers."""
  span = high - low
  if not span > 0:
    span = abs(high) or 1.0
    high = low + span
  rough = span / _NUM_TICKS
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999)
  first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
  return [step * n for n in range(first, last + 1)]


def cut_dashes(
    points: Float[np.ndarray, 'n 2'], dash: Number
) -> list[Float[np.ndarray, '_ 2']]:
  """Cuts a polyline into dashes with gaps of equal length."""
  lengths = np.linalg.norm(np.diff(points, axis=0), axis=-1)
  places = np.concatenate([[0.0], np.cumsum(lengths)])
  dashes = []
  for start in np.arange(0.0, places[-1], 2 * dash):
    stop = min(start + dash, places[-1])
    inner = places[(places > start) & (places < stop)]
    chosen = np.concatenate([[start], inner, [stop]])
    dashes.append(
        np.stack(
            [np.interp(chosen, places, points[:, axis]) for axis in (0, 1)],
            axis=-1,
        )
    )
  return dashes


def color_heat(
    values: Float[np.ndarray, '*n'],
) -> UInt8[np.ndarray, '*n 3']:
  """Returns heat-map colors: black at 0, red, yellow, white at 1."""
  channels = [np.clip(3 * values - start, 0, 1) for start in range(3)]
  return np.round(255 * np.stack(channels, axis=-1)).astype(np.uint8)


def _draw_heat_map(
    canvas: Canvas,
    box: Box,
    values: Float[np.ndarray, 's s'],
    row_label: str,
    column_label: str,
) -> None:
  """Draws a labelled square heat map with its color bar."""
  values = np.asarray(values, np.float64)
  high = float(values.max()) or 1.0
  canvas.paste(color_heat(values / high), box)
  canvas.frame(box)
  count = len(values)
  for index in sorted({0, count - 1} | _choose_numbers(count - 1)):
    share = (index + 0.5) / count
    canvas.text(box.left - 10, box.top + box.height * share, str(index), 'rm')
    canvas.text(
        box.left + box.width * share, box.top + box.height + 12, str(index)
    )
  canvas.text(box.left + box.width / 2, box.top + box.height + 32, column_label)
  canvas.upright_text(box.left - 44, box.top + box.height / 2, row_label)
  bar = Box(box.left + box.width + 14, box.top, 16, box.height)
  shades = np.repeat(np.linspace(1, 0, 64)[:, None], 1, axis=1)
  canvas.paste(color_heat(shades), bar)
  canvas.frame(bar)
  for tick in (0.0, high / 2, high):
    y = bar.top + bar.height * (1 - tick / high)
    canvas.text(bar.left + bar.width + 6, y, f'{tick:.3g}', 'lm')


def _choose_numbers(last: int) -> set[int]:
  """Returns round integers up to the last one, none of them close to it."""
  step = 1 if last < _MOST_NUMBERS else round(choose_ticks(0, last)[1])
  return {n for n in range(step, last + 1, step) if last - n >= 0.6 * step}


def _list_colors(num: int) -> list[Any]:
  return [tuple(int(c) for c in color) for color in make_track_colors(num)]
