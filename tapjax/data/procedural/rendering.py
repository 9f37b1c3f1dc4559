"""Rendering of procedural scenes: ray casting, lighting and a camera model.

Each pixel casts a few rays, spread over its area and over the exposure time. A
ray ends at the nearest layer that covers it, and samples the layer's texture at
the level of detail of a pixel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import numpy as np

from tapjax.data.procedural.planes import compute_pose
from tapjax.data.procedural.planes import evaluate_waves
from tapjax.data.procedural.planes import FRAME_UNITS
from tapjax.data.procedural.planes import map_to_plane
from tapjax.data.procedural.planes import measure_layer
from tapjax.data.procedural.planes import Pose
from tapjax.data.procedural.planes import Scene
from tapjax.data.procedural.planes import select_layer
from tapjax.data.procedural.planes import Waves
from tapjax.data.procedural.scenes import get_texture_periods
from tapjax.data.procedural.scenes import ProceduralConfig
from tapjax.data.procedural.textures import Key


class Look(NamedTuple):
  """Lighting and camera parameters, without influence on tracks.

  Objects darken by `rim` toward their outline, within `rim_width` pixels, and
  are translucent within `softness` pixels of it. Their shadow is displaced by
  `shadow_offset` units, and fades over `shadow_width` units. `light` has the
  channels overall level, gradient along x, along y, and ripple.
  """

  exposure: Float[Array, '']
  softness: Float[Array, 'o']
  rim: Float[Array, 'o']
  rim_width: Float[Array, 'o']
  shadow: Float[Array, '']
  shadow_offset: Float[Array, '2']
  shadow_width: Float[Array, '']
  light: Waves
  gain: Float[Array, '3']
  gamma: Float[Array, '']
  contrast: Float[Array, '']
  saturation: Float[Array, '']
  noise: Float[Array, '']


class Atlas(NamedTuple):
  """Textures of all layers at all levels of detail, concatenated.

  Level `k` is downsampled by 2**k; `start` is the index of its first texel, and
  `size` its side.
  """

  texels: Float[Array, 'm 3']
  start: Int[Array, 'l k']
  size: Int[Array, 'l k']


class Hits(NamedTuple):
  """Hits of rays: the layer and the point of its plane.

  `inside` is the distance to the layer's outline, and `clear` the distance to
  outlines of nearer layers, both in pixels.
  """

  layer: Int[Array, '*n']
  point: Float[Array, '*n 2']
  inside: Float[Array, '*n']
  clear: Float[Array, '*n']


def make_look(key: Key, config: ProceduralConfig) -> Look:
  """Draws a random look."""
  keys = jax.random.split(key, 4)
  num = config.num_objects
  chance = jax.random.uniform(keys[0], (12,))
  objects = jax.random.uniform(keys[1], (3, num))
  waves = jax.random.uniform(keys[2], (3, 4, 2))
  low, high = config.noise
  angle = 2 * jnp.pi * chance[0]
  direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
  strength = jnp.array([0.12, 0.35, 0.35, 0.25])[:, None]
  return Look(
      exposure=config.exposure * jnp.maximum(1.6 * chance[1] - 0.6, 0),
      softness=1 + 2.5 * jnp.maximum(2 * objects[0] - 1, 0) ** 2,
      rim=jnp.maximum(1.2 * objects[1] - 0.6, 0),
      rim_width=3 + 22 * objects[2],
      shadow=jnp.maximum(0.9 * chance[2] - 0.25, 0),
      shadow_offset=direction * (2 + 16 * chance[3]),
      shadow_width=3 + 14 * chance[4],
      light=Waves(
          strength * waves[0] ** 2,
          0.3 * waves[1] ** 3,
          2 * jnp.pi * waves[2],
      ),
      gain=1 + 0.12 * jax.random.normal(keys[3], (3,)),
      gamma=0.65 * 2.4 ** chance[5],
      contrast=0.65 + 0.5 * chance[6],
      saturation=jnp.where(chance[7] < 0.08, 0.0, 0.5 + 0.7 * chance[8]),
      noise=low * (high / low) ** (chance[9] ** 1.5),
  )


def make_atlas(scene: Scene) -> Atlas:
  """Downsamples textures to all levels of detail, down to four texels a side.

  The background has as many levels as objects, and twice their side.
  """
  background, objects = scene.background_texture[None], scene.object_textures
  num_levels = max(objects.shape[1].bit_length() - 2, 2)
  texels: list[Array] = []
  starts: list[list[int]] = []
  sizes: list[list[int]] = []
  total = 0
  for level in range(num_levels):
    starts.append([])
    sizes.append([])
    for group in (background, objects):
      group = _halve(group, level)
      num, size, _, _ = group.shape
      texels.append(group.reshape(-1, 3))
      starts[-1] += [total + index * size**2 for index in range(num)]
      sizes[-1] += [size] * num
      total += num * size**2
  return Atlas(
      jnp.concatenate(texels), jnp.asarray(starts).T, jnp.asarray(sizes).T
  )


def trace_rays(
    scene: Scene,
    pose: Pose,
    pixels: Float[Array, '*n 2'],
    softness: Float[Array, 'o'],
    threshold: Float[Array, ''] | float = 0.5,
) -> Hits:
  """Finds the nearest layer that covers each pixel position.

  A layer covers a ray if its opacity exceeds `threshold`. Opacity is one half
  on the outline: with this threshold the outline is the border.
  """
  shape = pixels.shape[:-1]

  def lay_over(hits: Hits, layer: Array) -> tuple[Hits, None]:
    own = select_layer(pose, layer)
    point = map_to_plane(own, pixels)
    inside = measure_layer(scene, own, layer, point)
    soft = softness[jnp.maximum(layer - 1, 0)]
    covers = inside > (threshold - 0.5) * soft
    return (
        Hits(
            jnp.where(covers, layer, hits.layer),
            jnp.where(covers[..., None], point, hits.point),
            jnp.where(covers, inside, hits.inside),
            jnp.where(covers, 1e6, jnp.minimum(hits.clear, -inside)),
        ),
        None,
    )

  nothing = Hits(
      jnp.zeros(shape, jnp.int32),
      jnp.zeros((*shape, 2)),
      jnp.zeros(shape),
      jnp.full(shape, 1e6),
  )
  hits, _ = jax.lax.scan(
      lay_over, nothing, jnp.arange(softness.shape[0] + 1, dtype=jnp.int32)
  )
  return hits


def render_frame(
    scene: Scene,
    look: Look,
    atlas: Atlas,
    time: Float[Array, ''],
    config: ProceduralConfig,
) -> Float[Array, 'h w 3']:
  """Renders surface colors with rims and shadows, before the camera model.

  `time` is the middle of the exposure, in frames.
  """
  pixels = _make_pixels(config)
  middle = compute_pose(scene, time, config.resolution)
  shadows = _cast_shadows(scene, look, middle, pixels, config)
  # Distance of rays in texels of the finest level.
  num_rays = config.samples_per_pixel
  periods = jnp.asarray(get_texture_periods(config))
  density = atlas.size[:, 0] / periods / middle.scale / num_rays**0.5
  level = jnp.clip(jnp.log2(density), 0, atlas.start.shape[1] - 1.001)

  def send(total: Array, ray: Array) -> tuple[Array, None]:
    offset, moment, threshold = ray[:2], ray[2], ray[3]
    pose = compute_pose(scene, time + look.exposure * moment, config.resolution)
    hits = trace_rays(
        scene, pose, pixels + offset[None, None], look.softness, threshold
    )
    color = _read_texture(atlas, periods, level, hits)
    shade = jnp.take_along_axis(shadows, hits.layer[None], axis=0)[0]
    index = jnp.maximum(hits.layer - 1, 0)
    rim = jnp.where(hits.layer > 0, look.rim[index], 0)
    depth = jnp.maximum(hits.inside, 0) / look.rim_width[index]
    shade *= 1 - rim * jnp.exp(-depth)
    return total + color * shade[:, :, None], None

  total, _ = jax.lax.scan(
      send,
      jnp.zeros((*config.resolution, 3)),
      jnp.asarray(_make_rays(num_rays)),
  )
  return total / num_rays


def develop_frame(
    frame: Float[Array, 'h w 3'],
    look: Look,
    key: Key,
    time: Float[Array, ''],
) -> Float[Array, 'h w 3']:
  """Applies lighting and the camera model; returns colors in [-1, 1]."""
  height, width, _ = frame.shape
  level, along_x, along_y, ripple = evaluate_waves(look.light, time)
  x = jnp.linspace(-1, 1, width)[None, :]
  y = jnp.linspace(-1, 1, height)[:, None]
  phase = look.light.phase[3, 0]
  light = level + along_x * x + along_y * y
  light += ripple * jnp.sin(3 * (jnp.cos(phase) * x + jnp.sin(phase) * y))
  frame = frame * jnp.exp(light)[:, :, None] * look.gain[None, None]
  frame = jnp.clip(frame, 0, None) ** look.gamma
  gray = frame @ jnp.array([0.3, 0.6, 0.1])
  frame = gray[:, :, None] + look.saturation * (frame - gray[:, :, None])
  frame = 0.5 + look.contrast * (frame - 0.5)
  # Grain of a gray picture is gray.
  grain = jax.random.normal(key, frame.shape)
  grain = jnp.where(
      look.saturation > 0, grain, jnp.broadcast_to(grain[..., :1], grain.shape)
  )
  return jnp.clip(2 * (frame + look.noise * grain) - 1, -1, 1)


def _halve(
    textures: Float[Array, 'l s s 3'], times: int
) -> Float[Array, 'l m m 3']:
  """Downsamples textures by 2**times, averaging squares of texels."""
  num, size, _, _ = textures.shape
  cell = 2**times
  cells = (num, size // cell, cell, size // cell, cell, 3)
  return jnp.mean(textures.reshape(cells), axis=(2, 4))


def _make_pixels(config: ProceduralConfig) -> Float[Array, 'h w 2']:
  """Returns positions (x, y) of the centers of pixels."""
  height, width = config.resolution
  x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
  return jnp.stack([x, y], axis=-1)


def _make_rays(num: int) -> Float[np.ndarray, 'm 4']:
  """Returns offsets (x, y), time and opacity threshold of each ray.

  Every column is evenly spaced over its range, in an order of its own, so that
  the mean ray passes the pixel's center at the middle of the exposure.
  """
  even = (np.arange(num) + 0.5) / num
  orders = [
      np.argsort(np.argsort((np.arange(num) * step) % 1))
      for step in (0.0, 0.618034, 0.754878, 0.569840)
  ]
  rays = np.stack([even[order] for order in orders], axis=-1)
  return (rays - np.array([[0.5, 0.5, 0.5, 0]])).astype(np.float32)


def _cast_shadows(
    scene: Scene,
    look: Look,
    pose: Pose,
    pixels: Float[Array, 'h w 2'],
    config: ProceduralConfig,
) -> Float[Array, 'l h w']:
  """Returns the fraction of light on each layer behind nearer objects."""
  unit = min(config.resolution) / FRAME_UNITS
  source = pixels - look.shadow_offset[None, None] * unit

  def darken(light: Array, layer: Array) -> tuple[Array, Array]:
    own = select_layer(pose, layer)
    inside = measure_layer(scene, own, layer, map_to_plane(own, source))
    cover = jax.nn.sigmoid(4 * inside / (look.shadow_width * unit))
    return light * (1 - look.shadow * cover), light

  layers = jnp.arange(scene.radius.shape[0] + 1, dtype=jnp.int32)
  light = jnp.ones(config.resolution)
  _, shadows = jax.lax.scan(darken, light, layers, reverse=True)
  return shadows


def _read_texture(
    atlas: Atlas,
    periods: Float[Array, 'l'],
    level: Float[Array, 'l'],
    hits: Hits,
) -> Float[Array, 'h w 3']:
  """Samples texture colors of hits, between texels and between levels."""
  finer = level.astype(jnp.int32)
  place = hits.point / periods[hits.layer][..., None] + 0.5
  layers = jnp.arange(level.shape[0])

  def read(step: int) -> Array:
    start = atlas.start[layers, finer + step][hits.layer]
    size = atlas.size[layers, finer + step][hits.layer]
    texel = place * size[..., None] - 0.5
    corner = jnp.floor(texel)
    fraction = texel - corner
    low = corner.astype(jnp.int32) % size[..., None]
    high = jnp.where(low + 1 == size[..., None], 0, low + 1)
    x, y = fraction[..., :1], fraction[..., 1:]

    def take(row: Array, column: Array) -> Array:
      return atlas.texels[start + row * size + column]

    upper = take(low[..., 1], low[..., 0]) * (1 - x)
    upper += take(low[..., 1], high[..., 0]) * x
    lower = take(high[..., 1], low[..., 0]) * (1 - x)
    lower += take(high[..., 1], high[..., 0]) * x
    return upper * (1 - y) + lower * y

  blend = (level - finer)[hits.layer][..., None]
  return read(0) * (1 - blend) + read(1) * blend
