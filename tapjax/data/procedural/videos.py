"""Training videos made on the device, with exact truth.

Every example is a scene of its own: textured, bending objects that move at all
speeds in front of each other, before a camera that moves as well. A key makes
the example, so there is nothing to read, and a batch is a `jax.vmap`:

  batch = make_batch(key, ProceduralConfig(), batch_size=8)

A target is the point's pixel by the closed formula of `planes`, at the middle
of the frame's exposure. It is occluded exactly where the outline of a nearer
layer covers it, or outside the frame.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int

from tapjax.data.procedural.planes import compute_pose
from tapjax.data.procedural.planes import map_to_pixels
from tapjax.data.procedural.planes import Scene
from tapjax.data.procedural.planes import select_layer
from tapjax.data.procedural.rendering import develop_frame
from tapjax.data.procedural.rendering import Hits
from tapjax.data.procedural.rendering import make_atlas
from tapjax.data.procedural.rendering import make_look
from tapjax.data.procedural.rendering import render_frame
from tapjax.data.procedural.rendering import trace_rays
from tapjax.data.procedural.scenes import make_scene
from tapjax.data.procedural.scenes import ProceduralConfig
from tapjax.data.procedural.textures import Key
from tapjax.types import Example

__all__ = [
    'ProceduralConfig',
    'make_batch',
    'make_example',
    'render_example',
    'trace_points',
]

_CANDIDATES_PER_QUERY = 12
# Pixels that queries keep away from outlines and borders.
_MARGIN = 0.5
# Points within this many pixels of an outline are preferred.
_NEAR_OUTLINE = 5.0


def make_batch(key: Key, config: ProceduralConfig, batch_size: int) -> Example:
  """Makes a batch of examples, with `b` in front of all axes."""
  keys = jax.random.split(key, batch_size)
  return jax.vmap(functools.partial(make_example, config=config))(keys)


def make_example(key: Key, config: ProceduralConfig) -> Example:
  """Makes one example; shapes depend on the config only."""
  scene_key, look_key, noise_key, query_key = jax.random.split(key, 4)
  scene = make_scene(scene_key, config)
  look = make_look(look_key, config)
  atlas = make_atlas(scene)

  def film(frame: Int[Array, '']) -> Array:
    time = frame.astype(jnp.float32)
    picture = render_frame(scene, look, atlas, time, config)
    return develop_frame(
        picture, look, jax.random.fold_in(noise_key, frame), time
    )

  # One frame after the other, which bounds the memory.
  video = jax.lax.map(film, jnp.arange(config.num_frames))
  frames, layers, points = _choose_points(query_key, scene, config)
  targets, occluded = trace_points(scene, layers, points, config)
  own = jnp.take_along_axis(targets, frames[:, None, None], axis=1)[:, 0]
  query_points = jnp.stack(
      [frames.astype(jnp.float32), own[:, 1], own[:, 0]], axis=-1
  )
  return Example(video, query_points, targets, occluded)


@functools.partial(jax.jit, static_argnums=1)
def render_example(key: Key, config: ProceduralConfig) -> Example:
  """Makes one example by a program that is compiled once for each config."""
  return make_example(key, config)


def trace_points(
    scene: Scene,
    layers: Int[Array, 'n'],
    points: Float[Array, 'n 2'],
    config: ProceduralConfig,
) -> tuple[Float[Array, 'n t 2'], Bool[Array, 'n t']]:
  """Follows points of planes: pixels (x, y), and whether they are hidden."""
  size = jnp.asarray(config.resolution[::-1])[None]

  def trace(frame: Int[Array, '']) -> tuple[Array, Array]:
    pose = compute_pose(scene, frame.astype(jnp.float32), config.resolution)
    pixels = jax.vmap(map_to_pixels)(select_layer(pose, layers), points)
    softness = jnp.ones(config.num_objects)
    hits = trace_rays(scene, pose, pixels, softness)
    outside = jnp.any((pixels < 0) | (pixels >= size), axis=-1)
    return pixels, outside | (hits.layer > layers)

  pixels, occluded = jax.lax.map(trace, jnp.arange(config.num_frames))
  return jnp.moveaxis(pixels, 0, 1), jnp.moveaxis(occluded, 0, 1)


def _choose_points(
    key: Key, scene: Scene, config: ProceduralConfig
) -> tuple[Int[Array, 'n'], Int[Array, 'n'], Float[Array, 'n 2']]:
  """Chooses visible points: their query frames, layers and planes' points.

  Candidates are random pixels of random frames, and what they show. Those to
  keep are drawn among them with chances that even out objects of different
  size, so none is drawn twice and there are always enough.
  """
  keys = jax.random.split(key, 3)
  num = _CANDIDATES_PER_QUERY * config.num_queries
  frames = jax.random.randint(keys[0], (num,), 0, config.num_frames)
  size = jnp.asarray(config.resolution[::-1], jnp.float32)[None]
  pixels = _MARGIN + jax.random.uniform(keys[1], (num, 2)) * (
      size - 2 * _MARGIN
  )

  def look(frame: Array, pixel: Array) -> Hits:
    pose = compute_pose(scene, frame.astype(jnp.float32), config.resolution)
    return trace_rays(scene, pose, pixel, jnp.ones(config.num_objects))

  hits = jax.vmap(look)(frames, pixels)
  distance = jnp.minimum(jnp.abs(hits.inside), hits.clear)
  weight = jnp.where(distance < _NEAR_OUTLINE, 3.0, 1.0)
  # Within an object all points are alike, and large objects get more of them
  # than small ones, but not in proportion.
  is_layer = hits.layer[:, None] == jnp.arange(config.num_objects + 1)[None]
  total = jnp.sum(weight[:, None] * is_layer, axis=0)
  portion = jnp.sqrt(total).at[0].set(0)
  portion *= config.object_share / jnp.maximum(jnp.sum(portion), 1e-6)
  portion = portion.at[0].set(1 - config.object_share)
  weight *= (portion / jnp.maximum(total, 1e-6))[hits.layer]
  # Those closest to an outline are kept only if there is nothing else.
  weight = jnp.where(distance > _MARGIN, weight, 1e-20)
  chance = jnp.log(weight) + jax.random.gumbel(keys[2], (num,))
  _, chosen = jax.lax.top_k(chance, config.num_queries)
  return frames[chosen], hits.layer[chosen], hits.point[chosen]
