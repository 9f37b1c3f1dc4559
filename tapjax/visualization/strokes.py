"""Antialiased dots, rings and tapered lines, blended into a frame.

A stroke is a list of covered pixels with their opacities, computed from the
exact distance to each pixel's center: strokes are smooth and have subpixel
positions. All strokes of one kind are computed together. Overlapping strokes
show the most opaque one, so their order does not matter, and a line of many
segments has no knots at its joints.
"""

from collections.abc import Iterable
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

_OUTLINE_OPACITY = 0.6
_HIDDEN_OPACITY = 0.8
# Positions are clipped to this distance in pixels, to keep sums exact.
_FAR = 1e5


class Strokes(NamedTuple):
  """Covered pixels with the track and opacities of each.

  Attributes:
    pixels: indices into the flattened frame.
    rows: index of the covering track.
    fill: opacity of the track's color.
    outline: opacity of the black outline below it.
  """

  pixels: Int[np.ndarray, ' m']
  rows: Int[np.ndarray, ' m']
  fill: Float[np.ndarray, ' m']
  outline: Float[np.ndarray, ' m']


def cover_points(
    centers: Float[np.ndarray, 'n 2'],
    hidden: Bool[np.ndarray, ' n'],
    rows: Int[np.ndarray, ' n'],
    *,
    radius: float,
    outline: float,
    resolution: tuple[int, int],
) -> Strokes:
  """Covers a disc at each center (x, y), or a fainter ring where hidden."""
  height, width = resolution
  reach = int(np.ceil(radius + outline + 0.5))
  near = (centers > -reach) & (centers < np.array([width, height]) + reach)
  kept = near.all(axis=-1)
  centers, hidden, rows = centers[kept], hidden[kept], rows[kept]

  corners = np.floor(centers).astype(np.int64)
  x, y = (
      corners[:, axis, np.newaxis] + np.arange(-reach, reach + 1)
      for axis in (0, 1)
  )
  across = x + 0.5 - centers[:, :1]
  down = y + 0.5 - centers[:, 1:]
  distance = np.hypot(across[:, np.newaxis, :], down[:, :, np.newaxis])
  covered = (
      (distance < radius + outline + 0.5)
      & ((x >= 0) & (x < width))[:, np.newaxis, :]
      & ((y >= 0) & (y < height))[:, :, np.newaxis]
  )
  point, i, j = np.nonzero(covered)
  # A disc is a neighborhood of a point, a ring a neighborhood of a circle.
  band = 0.24 * radius
  distance, ring = distance[covered], hidden[point]
  return _shade(
      pixels=y[point, i] * width + x[point, j],
      rows=rows[point],
      distance=np.where(ring, np.abs(distance - radius + band), distance),
      radius=np.where(ring, band, radius),
      opacity=np.where(ring, _HIDDEN_OPACITY, 1.0),
      outline=outline,
  )


def cover_segments(
    start: Float[np.ndarray, 'n 2'],
    stop: Float[np.ndarray, 'n 2'],
    rows: Int[np.ndarray, ' n'],
    *,
    radius: Float[np.ndarray, 'n 2'],
    opacity: Float[np.ndarray, 'n 2'],
    outline: float,
    resolution: tuple[int, int],
) -> Strokes:
  """Covers lines with round ends from start to stop, both (x, y).

  `radius` is half the line width; `radius` and `opacity` are given per end.
  """
  # Each line is rasterized along its longer axis, inside of the frame, with a
  # strip of candidate pixels across that is wide enough for any slope.
  start, stop = np.clip([start, stop], -_FAR, _FAR).astype(np.float32)
  steep = np.abs(stop - start).argmax(axis=-1) == 1
  start[steep], stop[steep] = start[steep, ::-1], stop[steep, ::-1]
  size = np.where(steep[:, np.newaxis], resolution, resolution[::-1])
  reach = float(radius.max(initial=0.0)) + outline + 0.5
  low, high = np.minimum(start, stop)[:, 0], np.maximum(start, stop)[:, 0]
  first = np.floor(np.clip(low - reach, 0, size[:, 0])).astype(np.int64)
  last = np.ceil(np.clip(high + reach, 0, size[:, 0])).astype(np.int64)
  counts = last - first
  line = np.repeat(np.arange(rows.size), counts)
  walked = np.arange(line.size) - np.repeat(counts.cumsum() - counts, counts)
  along = first[line] + walked

  length = np.maximum(np.linalg.norm(stop - start, axis=-1), 1e-6)
  unit = (stop - start) / length[:, np.newaxis]
  unit[:, 0] = np.where(unit.any(axis=-1), unit[:, 0], 1.0)
  slope = (unit[:, 1] / unit[:, 0])[line]
  middle = np.clip(along + 0.5, low[line], high[line]) - start[line, 0]
  middle = np.floor(start[line, 1] + slope * middle).astype(np.int64)
  span = int(np.ceil(np.sqrt(2) * reach))
  across = middle[:, np.newaxis] + np.arange(-span, span + 1)

  unit_along, unit_across = unit[line, :1], unit[line, 1:]
  to_along = (along + 0.5 - start[line, 0])[:, np.newaxis].astype(np.float32)
  to_across = (across + 0.5 - start[line, 1:]).astype(np.float32)
  travelled = to_along * unit_along + to_across * unit_across
  nearest = np.clip(travelled, 0, length[line, np.newaxis])
  beside = to_across * unit_along - to_along * unit_across
  squared = np.square(travelled - nearest) + np.square(beside)
  covered = (squared < reach**2) & (across >= 0) & (across < size[line, 1:])

  line = np.broadcast_to(line[:, np.newaxis], covered.shape)[covered]
  along = np.broadcast_to(along[:, np.newaxis], covered.shape)[covered]
  across = across[covered]
  part = nearest[covered] / length[line]
  return _shade(
      pixels=np.where(
          steep[line],
          along * resolution[1] + across,
          across * resolution[1] + along,
      ),
      rows=rows[line],
      distance=np.sqrt(squared[covered]),
      radius=radius[line, 0] + part * (radius[line, 1] - radius[line, 0]),
      opacity=opacity[line, 0] + part * (opacity[line, 1] - opacity[line, 0]),
      outline=outline,
  )


def blend_into(
    frame: UInt8[np.ndarray, 'h w 3'],
    strokes: Iterable[Strokes],
    colors: UInt8[np.ndarray, 'n 3'],
) -> None:
  """Blends strokes into a contiguous frame, in the colors of their rows."""
  outline = np.zeros(frame.shape[0] * frame.shape[1], np.float32)
  # The largest opacity in the high bits, its track in the low 32 bits.
  fill = np.zeros(outline.shape, np.int64)
  for stroke in strokes:
    np.maximum.at(outline, stroke.pixels, stroke.outline)
    level = np.round(stroke.fill * 65535).astype(np.int64)
    np.maximum.at(fill, stroke.pixels, (level << 32) | stroke.rows)
  pixels = np.flatnonzero(outline > 0)
  fill = fill[pixels]
  opacity = ((fill >> 32) / 65535).astype(np.float32)[:, np.newaxis]
  # No black below the fill, so that fading colors stay clear.
  shadow = outline[pixels, np.newaxis] * (1 - opacity)
  flat = frame.reshape(-1, 3)
  below = flat.take(pixels, axis=0) * (1 - shadow)
  above = colors.take(fill & 0xFFFFFFFF, axis=0)
  flat[pixels] = np.round(below + opacity * (above - below)).astype(np.uint8)


def _shade(
    pixels: Int[np.ndarray, ' m'],
    rows: Int[np.ndarray, ' m'],
    distance: Float[np.ndarray, ' m'],
    radius: Float[np.ndarray, ' m'],
    opacity: Float[np.ndarray, ' m'],
    outline: float,
) -> Strokes:
  """Computes opacities from distances to the center line of the stroke."""
  edge = radius + 0.5 - distance
  fill = opacity * np.clip(edge, 0.0, 1.0)
  dark = _OUTLINE_OPACITY * opacity * np.clip(edge + outline, 0.0, 1.0)
  return Strokes(pixels, rows, fill.astype(np.float32), dark.astype(np.float32))
