"""Drawing of tracks over a video: colored points with fading tails."""

from collections.abc import Iterable
from collections.abc import Iterator
import math

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.types import Tracks
from tapjax.visualization import strokes

_TAIL_OPACITY = 0.9
# Bytes of a copy of a frame and its opacities, by its pixels, as measured.
_BYTES_PER_PIXEL = 27
# Number of tracks whose strokes are held in memory; no effect on results.
_CHUNK = 256


def make_track_colors(num: int) -> UInt8[np.ndarray, 'num 3']:
  """Returns bright RGB colors with distinct hues for successive tracks.

  Color i does not depend on `num`. Hues step by the golden ratio at constant
  lightness and chroma of the OKLab space, so that all colors
  are equally bright.
  """
  turns = 2 * np.pi * ((np.arange(num) * 0.618033988749895 + 0.08) % 1)
  lightness = 0.78
  a, b = 0.18 * np.cos(turns), 0.18 * np.sin(turns)
  cone_long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
  cone_middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
  cone_short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
  cones = np.stack([cone_long, cone_middle, cone_short], axis=-1)
  linear = cones @ np.array(
      [
          [4.0767416621, -1.2684380046, -0.0041960863],
          [-3.3077115913, 2.6097574011, -0.7034186147],
          [0.2309699292, -0.3413193965, 1.7076147010],
      ]
  )
  linear = np.clip(linear, 0.0, 1.0)
  gamma = np.where(
      linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
  )
  return np.round(255 * gamma).astype(np.uint8)


def draw_tracks(
    frames: UInt8[np.ndarray, 't h w 3'],
    tracks: Tracks,
    *,
    tail: int = 12,
    colors: UInt8[np.ndarray, 'n 3'] | None = None,
) -> UInt8[np.ndarray, 't h w 3']:
  """Draws the tracks over a copy of the frames.

  A visible point is a dot outlined in black, an occluded one a fainter ring at
  its estimated position. The tail joins the last `tail` positions,
  thinner and fainter with age, and is left out where the point was occluded.
  Sizes scale with the frame. Positions that are not finite are not drawn.
  """
  drawn = np.empty_like(frames)
  for index, frame in enumerate(
      iterate_overlay(frames, tracks, tail=tail, colors=colors)
  ):
    drawn[index] = frame
  return drawn


def iterate_overlay(
    frames: Iterable[np.ndarray],
    tracks: Tracks,
    *,
    tail: int = 12,
    colors: UInt8[np.ndarray, 'n 3'] | None = None,
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  """Draws as `draw_tracks`, one frame at a time, for videos of any length.

  `frames` yields uint8 [h, w, 3] frames, exactly as many as the tracks have.
  """
  num_tracks = tracks.visible.shape[0]
  if tail < 0:
    raise ValueError(f'tail must be a number of frames, 0 for none; got {tail}')
  if colors is None:
    colors = make_track_colors(num_tracks)
  if colors.shape != (num_tracks, 3) or colors.dtype != np.uint8:
    raise ValueError(
        f'colors must be uint8 [{num_tracks}, 3], one row per track; got'
        f' {colors.dtype} {colors.shape}'
    )
  return _iterate_overlay(frames, tracks, tail, colors)


def _iterate_overlay(
    frames: Iterable[np.ndarray],
    tracks: Tracks,
    tail: int,
    colors: UInt8[np.ndarray, 'n 3'],
) -> Iterator[UInt8[np.ndarray, 'h w 3']]:
  positions = np.asarray(tracks.positions)
  visible = np.asarray(tracks.visible)
  num_frames = visible.shape[1]
  count = 0
  for index, frame in enumerate(frames):
    count = index + 1
    if count > num_frames:
      break
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
      raise ValueError(
          f'frames must yield uint8 [h, w, 3]; frame {index} is {frame.dtype}'
          f' {list(frame.shape)}'
      )
    history = slice(max(index - tail, 0), count)
    yield draw_frame(
        frame, positions[:, history], visible[:, history], tail, colors
    )
  if count != num_frames:
    arrived = f'more than {num_frames}' if count > num_frames else count
    raise ValueError(
        f'frames must be as many as the tracks have, {num_frames}; got'
        f' {arrived} - tracks of another video?'
    )


def estimate_bytes(size: tuple[int, int]) -> int:
  """Returns the bytes that drawing over a frame of a size takes."""
  return _BYTES_PER_PIXEL * math.prod(size)


def draw_frame(
    frame: UInt8[np.ndarray, 'h w 3'],
    positions: Float[np.ndarray, 'n t 2'],
    visible: Bool[np.ndarray, 'n t'],
    tail: int,
    colors: UInt8[np.ndarray, 'n 3'],
) -> UInt8[np.ndarray, 'h w 3']:
  """Draws points and tails, as `draw_tracks`, over a copy of one frame.

  Positions (x, y) and visibility are of the frames up to this one; at least
  the last `tail` frames and this one are needed for whole tails.
  """
  resolution = frame.shape[:2]
  scale = np.sqrt(frame.shape[0] * frame.shape[1])
  outline = 0.6 + 0.0009 * scale
  finite = np.isfinite(positions).all(axis=-1)
  drawable = visible & finite
  chunks = [
      slice(first, first + _CHUNK)
      for first in range(0, positions.shape[0], _CHUNK)
  ]

  def cover_tails(chunk: slice) -> strokes.Strokes:
    joined = drawable[chunk, :-1] & drawable[chunk, 1:]
    rows, steps = np.nonzero(joined)
    rows = rows + chunk.start
    # 1 at the newest position, 0 where the tail ends.
    age = positions.shape[1] - 1 - np.stack([steps, steps + 1], axis=-1)
    strength = 1.0 - age / max(tail, 1)
    return strokes.cover_segments(
        positions[rows, steps],
        positions[rows, steps + 1],
        rows,
        radius=(0.5 + 0.0018 * scale) * (0.3 + 0.7 * strength),
        opacity=_TAIL_OPACITY * strength,
        outline=outline,
        resolution=resolution,
    )

  def cover_points(chunk: slice) -> strokes.Strokes:
    rows = np.flatnonzero(finite[chunk, -1]) + chunk.start
    return strokes.cover_points(
        positions[rows, -1],
        ~visible[rows, -1],
        rows,
        radius=1.2 + 0.005 * scale,
        outline=outline,
        resolution=resolution,
    )

  drawn = frame.copy(order='C')
  strokes.blend_into(drawn, map(cover_tails, chunks), colors)
  strokes.blend_into(drawn, map(cover_points, chunks), colors)
  return drawn
