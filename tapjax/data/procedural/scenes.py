"""Random scenes of procedural videos: objects, camera and their motions.

Every motion is a sum of sines, given by amplitude and speed. Slow motions of
large amplitude are almost straight; fast ones return before objects leave the
frame.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from tapjax.data.procedural import textures
from tapjax.data.procedural.planes import BACKGROUND_UNIT
from tapjax.data.procedural.planes import evaluate_waves
from tapjax.data.procedural.planes import FRAME_UNITS
from tapjax.data.procedural.planes import Scene
from tapjax.data.procedural.planes import Warp
from tapjax.data.procedural.planes import Waves
from tapjax.data.procedural.textures import Key
from tapjax.data.procedural.textures import OUTLINE_REACH

_OUTLINE_SIZE = 96
_WAVES_PER_PATH = 2
# Shortest period of a motion, in frames.
_SHORTEST_PERIOD = 10.0

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ProceduralConfig:
  """Settings of procedural videos.

  Pairs are ranges, sampled uniformly in the logarithm unless stated otherwise.
  Speeds are root mean squares over time; units are pixels of a frame with a
  shorter side of 256.

  Attributes:
    num_frames: frames per video.
    resolution: (height, width) of the video.
    num_queries: points per video.
    num_objects: largest and most frequent number of objects; the smallest is 1.
    object_radius: in units.
    object_speed: units per frame, without the camera's motion.
    object_turn: radians per frame.
    object_tilt: largest angle out of the frame's plane in radians, sampled
      uniformly from zero.
    camera_speed: units per frame.
    camera_turn: radians per frame.
    reach: amplitude of a path, in units.
    zoom: largest change of scale as a logarithm, sampled uniformly from zero.
    bend: largest slope of the surface's warp, sampled uniformly from zero.
    still_share: fraction of cameras, and of objects, that do not move.
    exposure: largest exposure time, as a fraction of the time of a frame.
    noise: standard deviation of the sensor's noise, for colors in [0, 1].
    object_share: fraction of queries on objects, if enough are visible.
    samples_per_pixel: rays per pixel, spread over its area and the exposure.
    texture_size: texels per side of an object, a power of two; the background
      has twice as many.
    num_leaves: largest number of shapes on an object's texture; the background
      has twice as many.
  """

  num_frames: int = 24
  resolution: tuple[int, int] = (256, 256)
  num_queries: int = 256
  num_objects: int = 10
  object_radius: Range = (18.0, 110.0)
  object_speed: Range = (0.2, 16.0)
  object_turn: Range = (0.001, 0.15)
  object_tilt: float = 0.8
  camera_speed: Range = (0.1, 10.0)
  camera_turn: Range = (0.0003, 0.03)
  reach: Range = (20.0, 160.0)
  zoom: float = 0.4
  bend: float = 0.3
  still_share: float = 0.12
  exposure: float = 0.9
  noise: Range = (0.002, 0.04)
  object_share: float = 0.75
  samples_per_pixel: int = 4
  texture_size: int = 256
  num_leaves: int = 32

  def __post_init__(self):
    counts = (self.num_frames, self.num_queries, self.num_objects)
    if min(*counts, self.samples_per_pixel, self.num_leaves) < 1:
      raise ValueError(
          'num_frames, num_queries, num_objects, samples_per_pixel and '
          f'num_leaves must be at least 1; got {self}'
      )
    if self.texture_size < 8 or self.texture_size & (self.texture_size - 1):
      raise ValueError(
          'texture_size must be a power of two, at least 8; got '
          f'{self.texture_size}'
      )


def make_scene(key: Key, config: ProceduralConfig) -> Scene:
  """Draws a random scene."""
  keys = jax.random.split(key, 9)
  num = config.num_objects
  numbers = jax.random.uniform(keys[0], (num + 1, 8))
  background, objects = numbers[0], numbers[1:]
  size = config.texture_size
  camera = _make_camera(keys[1], config)
  motion = _make_motion(keys[2], config)
  radius = _log_uniform(objects[:, 0], config.object_radius)

  # Every object is in the frame, or half out of it, at some time.
  time = objects[:, 1] * (config.num_frames - 1)
  follow = jnp.where(objects[:, 2] < 0.4, 0.0, 1.9 * objects[:, 2] - 0.9)
  pan = jax.vmap(evaluate_waves, (None, 0))(camera, time)[:, :2]
  path = jax.vmap(evaluate_waves)(motion, time)[:, :2]
  place = (objects[:, 3:5] - 0.5) * 1.1 * _frame_units(config)[None]
  return Scene(
      background_texture=textures.make_texture(
          keys[3], 2 * size, 2 * config.num_leaves, 0.15
      ),
      object_textures=jax.vmap(
          lambda key: textures.make_texture(key, size, config.num_leaves, 0.3)
      )(jax.random.split(keys[4], num)),
      outlines=jax.vmap(lambda key: textures.make_outline(key, _OUTLINE_SIZE))(
          jax.random.split(keys[5], num)
      ),
      is_present=jnp.arange(num) < num - jnp.floor(background[0] ** 2 * num),
      radius=radius,
      home=place + (1 - follow)[:, None] * pan - path,
      follow=follow,
      motion=motion,
      camera=camera,
      warp=_make_warp(keys[6], config, radius),
  )


def get_texture_periods(
    config: ProceduralConfig,
) -> Float[np.ndarray, 'l']:
  """Returns the period of each layer's texture, in plane units."""
  shape = max(config.resolution) / min(config.resolution)
  objects = np.full(config.num_objects, 2 * OUTLINE_REACH)
  return np.concatenate([[4 * shape], objects]).astype(np.float32)


def _make_motion(key: Key, config: ProceduralConfig) -> Waves:
  """Draws motions of objects, by speed, amplitude and main direction."""
  keys = jax.random.split(key, 2)
  numbers = jax.random.uniform(keys[0], (config.num_objects, 7))
  moves = (numbers[:, 0] >= config.still_share).astype(jnp.float32)
  direction = 2 * jnp.pi * numbers[:, 1]
  speed = moves * _log_uniform(numbers[:, 2], config.object_speed)
  turn = moves * _log_uniform(numbers[:, 4], config.object_turn)
  # Scale and tilts have the frequency of the path.
  reach = _log_uniform(numbers[:, 3], config.reach)
  pace = speed / reach
  tilt = config.object_tilt * numbers[:, 5]
  zoom = config.zoom * numbers[:, 6]
  axis = jnp.stack([jnp.cos(direction), jnp.sin(direction)])
  amplitude = jnp.stack(
      [
          *(jnp.abs(axis) * reach[None]),
          jnp.where(moves > 0, 2.0, 0.0),
          zoom,
          tilt,
          tilt,
      ],
      axis=-1,
  )
  speeds = jnp.stack(
      [
          *(jnp.abs(axis) * speed[None]),
          turn,
          zoom * pace,
          tilt * pace,
          tilt * pace,
      ],
      axis=-1,
  )
  return _make_waves(keys[1], amplitude, speeds)


def _make_camera(key: Key, config: ProceduralConfig) -> Waves:
  """Draws the camera's motion, sometimes shaky, or none."""
  keys = jax.random.split(key, 2)
  numbers = jax.random.uniform(keys[0], (8,))
  moves = (numbers[0] >= config.still_share).astype(jnp.float32)
  direction = 2 * jnp.pi * numbers[1]
  speed = _log_uniform(numbers[2], config.camera_speed)
  reach = _log_uniform(numbers[3], config.reach)
  turn = _log_uniform(numbers[4], config.camera_turn)
  along, across = jnp.abs(jnp.cos(direction)), jnp.abs(jnp.sin(direction))
  zoom, tilt = 0.6 * config.zoom * numbers[5], 0.25 * numbers[6]
  pace = speed / reach
  still = jnp.zeros(())
  amplitude = jnp.stack(
      [along * reach, across * reach, still + 0.6, zoom, tilt, tilt]
  )
  speeds = jnp.stack(
      [along * speed, across * speed, turn, zoom * pace, tilt * pace, still]
  )
  waves = _make_waves(keys[1], amplitude, moves * speeds)
  shake = jnp.where(numbers[7] < 0.3, moves, 0.0)[None, None]
  shake = shake * jnp.array([[1.0], [1.0], [0.004], [0], [0], [0]])
  rates = jnp.linspace(0.9, 1.7, 6)[:, None]
  return Waves(
      jnp.concatenate([waves.amplitude, shake], axis=-1),
      jnp.concatenate([waves.rate, rates], axis=-1),
      jnp.concatenate([waves.phase, 40 * rates * numbers[1]], axis=-1),
  )


def _make_waves(
    key: Key, amplitude: Float[Array, '*c'], speed: Float[Array, '*c']
) -> Waves:
  """Draws waves of given amplitudes and approximate speeds.

  If the period were too short, the amplitude is larger instead.
  """
  shape = (*amplitude.shape, _WAVES_PER_PATH)
  numbers = jax.random.uniform(key, (2, *shape))
  rate = math.sqrt(2) * speed / jnp.maximum(amplitude, 1e-6)
  rate = jnp.minimum(rate, 2 * jnp.pi / _SHORTEST_PERIOD)
  amplitude = jnp.where(
      rate > 0, math.sqrt(2) * speed / jnp.maximum(rate, 1e-9), amplitude
  )
  # The second wave is lower and faster.
  weights = jnp.stack(
      [jnp.ones_like(rate), 0.35 * numbers[0, ..., 1] ** 2], axis=-1
  )
  pace = jnp.stack(
      [0.8 + 0.4 * numbers[0, ..., 0], 1.5 + numbers[0, ..., 1]], axis=-1
  )
  return Waves(
      amplitude[..., None] * weights,
      rate[..., None] * pace,
      2 * jnp.pi * numbers[1],
  )


def _make_warp(
    key: Key, config: ProceduralConfig, radius: Float[Array, 'o']
) -> Warp:
  """Draws the warps of planes; half of the planes are rigid."""
  keys = jax.random.split(key, 2)
  shape = (config.num_objects + 1, 2, 2)
  numbers = jax.random.uniform(keys[0], (3, *shape))
  chance = jax.random.uniform(keys[1], (shape[0], 2))
  # Half of the layers are rigid.
  slope = config.bend * jnp.maximum(2 * chance[:, 0] - 1, 0)
  frequency = 1.2 + 2.5 * numbers[0]
  amplitude = slope[:, None, None] * numbers[1] / frequency
  drift = _log_uniform(chance[:, 1], (0.003, 0.4))[:, None, None]
  drift = drift * jnp.where(numbers[1] < 0.5, -1, 1)
  # Large surfaces bend slowly, which limits the speed of their points.
  unit = jnp.concatenate([jnp.full((1,), BACKGROUND_UNIT), radius])
  drift = drift * (20 / unit)[:, None, None]
  return Warp(amplitude, frequency, 2 * jnp.pi * numbers[2], drift)


def _frame_units(config: ProceduralConfig) -> Float[Array, '2']:
  """Returns width and height of the frame in units."""
  height, width = config.resolution
  return jnp.asarray([width, height]) * (FRAME_UNITS / min(height, width))


def _log_uniform(
    chance: Float[Array, '*c'], bounds: Range
) -> Float[Array, '*c']:
  """Maps numbers in [0, 1) to a range, uniformly in the logarithm."""
  low, high = (math.log(bound) for bound in bounds)
  return jnp.exp(low + (high - low) * chance)
