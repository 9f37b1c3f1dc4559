"""Random scenes for procedural videos: what there is and how it moves.

Every motion is a sum of sines, given by how far it swings and how fast it goes.
Slow and wide ones are next to straight lines, fast ones turn back before they
are lost from sight.
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
# No motion swings back in fewer frames than this.
_SHORTEST_PERIOD = 10.0

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class ProceduralConfig:
  """What procedural videos are like.

  Pairs are the ends of ranges that are sampled evenly in the logarithm, except
  where it says otherwise. Speeds are root mean squares over time; units are
  pixels where the frame's shorter side has 256.

  Attributes:
    num_frames: frames per video.
    resolution: (height, width) of the video.
    num_queries: points per video.
    num_objects: objects there are at most, and often; at least one is there.
    object_radius: in units.
    object_speed: units per frame, without the camera's share.
    object_turn: radians per frame.
    object_tilt: largest angle out of the frame's plane in radians, sampled
      evenly from zero.
    camera_speed: units per frame.
    camera_turn: radians per frame.
    reach: how far a path swings out to each side, in units.
    zoom: largest change of scale as a logarithm, sampled evenly from zero.
    bend: largest slope of the surface's warp, sampled evenly from zero.
    still_share: the share of cameras, and of objects, that do not move.
    exposure: largest share of a frame's time for which the shutter is open.
    noise: standard deviation of the sensor's noise, for colors in [0, 1].
    object_share: the share of queries on objects, as far as they are visible.
    samples_per_pixel: rays per pixel, spread over its area and the exposure.
    texture_size: texels per side of an object, a power of two; the background
      has twice that.
    num_leaves: shapes on an object's texture at most; the background has
      twice that.
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
  """Draws a scene at random."""
  keys = jax.random.split(key, 9)
  num = config.num_objects
  numbers = jax.random.uniform(keys[0], (num + 1, 8))
  background, objects = numbers[0], numbers[1:]
  size = config.texture_size
  camera = _make_camera(keys[1], config)
  motion = _make_motion(keys[2], config)
  radius = _log_uniform(objects[:, 0], config.object_radius)

  # Every object is somewhere in the frame, or half out of it, at some time.
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
  """Plane units after which the texture of each layer starts over."""
  shape = max(config.resolution) / min(config.resolution)
  objects = np.full(config.num_objects, 2 * OUTLINE_REACH)
  return np.concatenate([[4 * shape], objects]).astype(np.float32)


def _make_motion(key: Key, config: ProceduralConfig) -> Waves:
  """Paths of objects: each has a speed, a reach and a main direction."""
  keys = jax.random.split(key, 2)
  numbers = jax.random.uniform(keys[0], (config.num_objects, 7))
  moves = (numbers[:, 0] >= config.still_share).astype(jnp.float32)
  direction = 2 * jnp.pi * numbers[:, 1]
  speed = moves * _log_uniform(numbers[:, 2], config.object_speed)
  turn = moves * _log_uniform(numbers[:, 4], config.object_turn)
  # The other motions keep the pace of the path.
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
  """The camera's path, a little shaky, or no motion at all."""
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
  """Waves of given amplitudes whose rate of change is about `speed`.

  Where that takes too short a period, the amplitude grows instead.
  """
  shape = (*amplitude.shape, _WAVES_PER_PATH)
  numbers = jax.random.uniform(key, (2, *shape))
  rate = math.sqrt(2) * speed / jnp.maximum(amplitude, 1e-6)
  rate = jnp.minimum(rate, 2 * jnp.pi / _SHORTEST_PERIOD)
  amplitude = jnp.where(
      rate > 0, math.sqrt(2) * speed / jnp.maximum(rate, 1e-9), amplitude
  )
  # The second wave is lower and faster.
  share = jnp.stack(
      [jnp.ones_like(rate), 0.35 * numbers[0, ..., 1] ** 2], axis=-1
  )
  pace = jnp.stack(
      [0.8 + 0.4 * numbers[0, ..., 0], 1.5 + numbers[0, ..., 1]], axis=-1
  )
  return Waves(
      amplitude[..., None] * share,
      rate[..., None] * pace,
      2 * jnp.pi * numbers[1],
  )


def _make_warp(
    key: Key, config: ProceduralConfig, radius: Float[Array, 'o']
) -> Warp:
  """Gentle waves over every plane, over some none at all."""
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
  # Large surfaces wave slowly, or their points would race.
  unit = jnp.concatenate([jnp.full((1,), BACKGROUND_UNIT), radius])
  drift = drift * (20 / unit)[:, None, None]
  return Warp(amplitude, frequency, 2 * jnp.pi * numbers[2], drift)


def _frame_units(config: ProceduralConfig) -> Float[Array, '2']:
  """Width and height of the frame in units."""
  height, width = config.resolution
  return jnp.asarray([width, height]) * (FRAME_UNITS / min(height, width))


def _log_uniform(
    chance: Float[Array, '*c'], bounds: Range
) -> Float[Array, '*c']:
  """Takes numbers in [0, 1) to a range, evenly in the logarithm."""
  low, high = (math.log(bound) for bound in bounds)
  return jnp.exp(low + (high - low) * chance)
