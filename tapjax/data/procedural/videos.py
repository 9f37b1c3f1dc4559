"""Procedural training videos with exact tracks, rendered on the device.

Every example is a scene of its own: textured, bending objects that move at all
speeds in front of each other, seen by a moving camera. An example is a function
of a key, without files, and a batch is a `jax.vmap`:

  batch = make_batch(key, ProceduralConfig(), batch_size=8)

A target is the pixel of a point by the closed form of `planes`, at the middle
of the frame's exposure. It is occluded exactly if the outline of a nearer layer
covers it, or outside of the frame.
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
# Least distance of queries to outlines and borders, in pixels.
_MARGIN = 0.5
# Distance to an outline, in pixels, below which points are preferred.
_NEAR_OUTLINE = 5.0


def make_batch(key: Key, config: ProceduralConfig, batch_size: int) -> Example:
  """Renders a batch of examples, with a leading axis `b`."""
  keys = jax.random.split(key, batch_size)
  return jax.vmap(functools.partial(make_example, config=config))(keys)


def make_example(key: Key, config: ProceduralConfig) -> Example:
  """Renders one example; shapes depend on the config only."""
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

  # Frame by frame, which bounds the memory.
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
  """Renders one example, compiled once for each config."""
  return make_example(key, config)


def trace_points(
    scene: Scene,
    layers: Int[Array, 'n'],
    points: Float[Array, 'n 2'],
    config: ProceduralConfig,
) -> tuple[Float[Array, 'n t 2'], Bool[Array, 'n t']]:
  """Returns pixels (x, y) and occlusion of points of planes on all frames."""
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
  """Draws visible points: query frames, layers and points of their planes.

  Candidates are the points shown by random pixels of random frames. Points are
  drawn from them without replacement, with probabilities that balance objects
  of different sizes.
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
  # The number of points of an object grows with the square root of its weight.
  is_layer = hits.layer[:, None] == jnp.arange(config.num_objects + 1)[None]
  total = jnp.sum(weight[:, None] * is_layer, axis=0)
  portion = jnp.sqrt(total).at[0].set(0)
  portion *= config.object_share / jnp.maximum(jnp.sum(portion), 1e-6)
  portion = portion.at[0].set(1 - config.object_share)
  weight *= (portion / jnp.maximum(total, 1e-6))[hits.layer]
  # Points closest to an outline are drawn only if there are no others.
  weight = jnp.where(distance > _MARGIN, weight, 1e-20)
  chance = jnp.log(weight) + jax.random.gumbel(keys[2], (num,))
  _, chosen = jax.lax.top_k(chance, config.num_queries)
  return frames[chosen], hits.layer[chosen], hits.point[chosen]
