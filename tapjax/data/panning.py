"""Cameras that pan and zoom, and mirrors, for videos to learn from.

As TAPTRv2 is trained: a video is padded with black, and each frame is zoomed
and cropped to the size that it had. Zoom and crop drift over time, so that the
camera seems to move. Everything happens on the device, and depends on the key
alone.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.data.disturbances import find_first_seen
from tapjax.data.textures import Key
from tapjax.ops.loops import map_frames
from tapjax.types import Example

_BLACK = -1.0
# Bounds of a zoom that has drifted.
_SMALLEST_ZOOM = 0.2
_LARGEST_ZOOM = 2.0
# A zoomed frame is larger than the crop by at least so many pixels.
_SPARE = 10
# How much of its latest change a zoom or a crop keeps from frame to frame.
_KEPT = 0.8


@dataclasses.dataclass(frozen=True)
class PanningConfig:
  """Amount of camera motion.

  Attributes:
    largest_padding: pixels of black on each side, at most.
    smallest_zoom: the least of all zooms that a video begins with.
    largest_zoom: the most of them.
    zoom_change: of the zoom from frame to frame, at most, before smoothing.
    drift: of the crop from frame to frame in pixels, at most, likewise.
    flip: probability of a mirror image, for each axis.
  """

  largest_padding: int = 24
  smallest_zoom: float = 0.75
  largest_zoom: float = 1.25
  zoom_change: float = 0.05
  drift: float = 15.0
  flip: float = 0.5

  def __post_init__(self):
    if not 0 < self.smallest_zoom <= self.largest_zoom:
      raise ValueError(
          'smallest_zoom must be positive, and at most largest_zoom; got '
          f'{self.smallest_zoom} and {self.largest_zoom}'
      )
    for name in ('largest_padding', 'zoom_change', 'drift'):
      if getattr(self, name) < 0:
        raise ValueError(
            f'{name} must be at least 0; got {getattr(self, name)}'
        )
    if not 0 <= self.flip <= 1:
      raise ValueError(
          f'flip must be a probability, from 0 to 1; got {self.flip}'
      )


class Camera(NamedTuple):
  """Cut of each frame: new (x, y) = old (x, y) * zoom - corner.

  Attributes:
    zoom: of width and height.
    corner: of the crop, in zoomed pixels from the corner of the frame as it
      was; negative in what is padded.
  """

  zoom: Float[Array, 't 2']
  corner: Float[Array, 't 2']


def pan_example(key: Key, example: Example, config: PanningConfig) -> Example:
  """Moves the camera of a video without `b`, and mirrors the video.

  Points that leave the frame are occluded. A point that is not seen on its
  query's frame begins where it is first seen; if that is nowhere, on the last
  frame.
  """
  camera_key, flip_key = jax.random.split(key)
  camera = draw_camera(camera_key, example, config)
  flips = jax.random.bernoulli(flip_key, config.flip, (2,))
  return flip_example(move_camera(example, camera), flips)


def draw_camera(key: Key, example: Example, config: PanningConfig) -> Camera:
  """Draws a camera that begins with the visible points in its middle."""
  keys = jax.random.split(key, 5)
  num_frames, height, width = example.video.shape[:3]
  size = jnp.asarray([width, height], jnp.float32)
  # Left and top, then right and bottom.
  padding = jax.random.randint(keys[0], (2, 2), 0, config.largest_padding + 1)
  padding = padding.astype(jnp.float32)
  padded = size + padding[0] + padding[1]
  seen = ~example.occluded[:, 0]
  weights = seen / jnp.maximum(jnp.sum(seen), 1)
  middle = jnp.sum(example.target_points[:, 0] * weights[:, None], axis=0)
  middle = jnp.where(jnp.any(seen), middle, size / 2)

  first = jax.random.uniform(
      keys[1], (), minval=config.smallest_zoom, maxval=config.largest_zoom
  )
  zoom_steps = config.zoom_change * jax.random.uniform(
      keys[2], (num_frames, 2), minval=-1.0
  )
  steps = config.drift * jax.random.uniform(
      keys[3], (num_frames, 2), minval=-1.0
  )

  def advance(
      state: tuple[Array, Array, Array, Array],
      drawn: tuple[Array, Array, Array],
  ) -> tuple[tuple[Array, Array, Array, Array], Camera]:
    zoom, change, corner, drift = state
    index, zoom_step, step = drawn
    change = _KEPT * change + (1 - _KEPT) * zoom_step
    zoom = zoom + change
    zoom = (zoom + jnp.mean(zoom)) / 2
    zoom = jnp.clip(zoom, _SMALLEST_ZOOM, _LARGEST_ZOOM)
    zoomed = jnp.maximum(jnp.floor(padded * zoom), size + _SPARE)
    zoom = zoomed / padded
    drift = jnp.where(index > 1, _KEPT * drift + (1 - _KEPT) * step, step)
    centered = jnp.floor((middle + padding[0]) * zoom - size / 2)
    corner = jnp.where(index > 0, corner + jnp.trunc(drift), centered)
    corner = jnp.clip(corner, 0, zoomed - size - 1)
    return (
        (zoom, change, corner, drift),
        Camera(zoom, corner - padding[0] * zoom),
    )

  nothing = jnp.zeros(2)
  _, camera = jax.lax.scan(
      advance,
      (jnp.full(2, first), nothing, nothing, nothing),
      (jnp.arange(num_frames), zoom_steps, steps),
  )
  return camera


def move_camera(example: Example, camera: Camera) -> Example:
  """Cuts each frame as a camera sees it, black where there was no frame."""
  height, width = example.video.shape[1:3]

  def cut(
      frame: Float[Array, 'h w 3'],
      zoom: Float[Array, '2'],
      corner: Float[Array, '2'],
  ) -> Float[Array, 'h w 3']:
    for axis, size, number in ((0, height, 1), (1, width, 0)):
      places = (jnp.arange(size) + 0.5 + corner[number]) / zoom[number]
      frame = _read_lines(frame, axis, places - 0.5)
    return frame

  points = example.target_points * camera.zoom[None] - camera.corner[None]
  size = jnp.asarray([width, height], points.dtype).reshape(1, 1, 2)
  inside = jnp.all((points >= 0) & (points <= size), axis=-1)
  moved = example._replace(
      video=map_frames(cut, example.video, camera.zoom, camera.corner),
      target_points=points,
      occluded=example.occluded | ~inside,
  )
  return _move_queries(moved)


def flip_example(example: Example, flips: Array) -> Example:
  """Mirrors the width if the first of two flips is true, and the height."""
  height, width = example.video.shape[1:3]
  video = jnp.where(flips[0], example.video[:, :, ::-1], example.video)
  video = jnp.where(flips[1], video[:, ::-1], video)
  size = jnp.asarray([width, height], jnp.float32)
  points = example.target_points
  points = jnp.where(
      flips.reshape(1, 1, 2), size.reshape(1, 1, 2) - points, points
  )
  # Queries are (t, y, x).
  queries = example.query_points[:, 1:]
  queries = jnp.where(flips[None, ::-1], size[None, ::-1] - queries, queries)
  return example._replace(
      video=video,
      target_points=points,
      query_points=jnp.concatenate([example.query_points[:, :1], queries], -1),
  )


def _move_queries(example: Example) -> Example:
  """Puts queries on their points, on frames that show them."""
  num_frames = example.occluded.shape[1]
  own = jnp.round(example.query_points[:, 0]).astype(jnp.int32)
  own = jnp.clip(own, 0, num_frames - 1)
  is_hidden = jnp.take_along_axis(example.occluded, own[:, None], axis=1)
  frames = jnp.where(is_hidden[:, 0], find_first_seen(example.occluded), own)
  positions = jnp.take_along_axis(
      example.target_points, frames[:, None, None], axis=1
  )[:, 0]
  points = jnp.concatenate(
      [frames[:, None].astype(positions.dtype), jnp.flip(positions, axis=-1)],
      axis=-1,
  )
  return example._replace(query_points=points)


def _read_lines(
    frame: Float[Array, 'h w 3'], axis: int, places: Float[Array, 'k']
) -> Float[Array, '_ _ 3']:
  """Reads rows or columns between their centers; outside there is black."""
  size = frame.shape[axis]
  base = jnp.floor(places)
  shape = [1, 1, 1]
  shape[axis] = len(places)
  share = (places - base).reshape(shape)

  def take(numbers: Array) -> Array:
    lines = jnp.take(
        frame, jnp.clip(numbers, 0, size - 1).astype(jnp.int32), axis=axis
    )
    inside = (numbers >= 0) & (numbers < size)
    return jnp.where(inside.reshape(shape), lines, _BLACK)

  low, high = take(base), take(base + 1)
  return low + (high - low) * share
