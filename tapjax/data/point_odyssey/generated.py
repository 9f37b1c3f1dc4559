"""Procedural scenes in PointOdyssey's format.

They are small and need no download: for trying, testing and training.

DIR/scene_000/rgbs/rgb_00000.jpg    frames
DIR/scene_000/masks/mask_00000.png  segments, 0 for none
DIR/scene_000/anno.npz              trajs_2d, visibs and valids
"""

from collections.abc import Callable
import functools
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.procedural.planes import compute_pose
from tapjax.data.procedural.rendering import trace_rays
from tapjax.data.procedural.scenes import make_scene
from tapjax.data.procedural.textures import Key
from tapjax.data.procedural.videos import make_example
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.files import write_atomically
from tapjax.media.pictures import import_pillow

_QUALITY = 95
# From raster coordinates to those of the data set, in pixels.
_SHIFT = -0.5


class SceneVideo(NamedTuple):
  """A scene in memory; positions are pixels of the data set."""

  frames: UInt8[np.ndarray, 't h w 3']
  masks: UInt8[np.ndarray, 't h w']
  annotations: PointAnnotations


def write_procedural_scenes(
    root: pathlib.Path,
    num_scenes: int,
    config: ProceduralConfig,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[pathlib.Path]:
  """Writes scenes into a folder, and returns their folders.

  A scene depends on its number, the config and the seed alone. Existing scenes
  are kept, so that an interrupted run can be resumed. `progress` is called with
  the number of written scenes.
  """
  root.mkdir(parents=True, exist_ok=True)
  folders = []
  for index in range(num_scenes):
    folder = root / f'scene_{index:03}'
    if not folder.exists():
      key = jax.random.fold_in(jax.random.key(seed), index)
      write_scene(folder, make_scene_video(key, config))
    folders.append(folder)
    if progress is not None:
      progress(index + 1)
  return folders


def make_scene_video(key: Key, config: ProceduralConfig) -> SceneVideo:
  """Renders a scene: video, segments and tracks of `config.num_queries`."""
  example, layers = jax.tree.map(np.asarray, _make(key, config))
  positions = (example.target_points + _SHIFT).swapaxes(0, 1)
  visible = ~example.occluded.swapaxes(0, 1)
  # Segments differ by more than a level, so that they can be distinguished.
  masks = (1 + layers) * (255 // (config.num_objects + 1))
  return SceneVideo(
      np.round((example.video + 1) * 127.5).astype(np.uint8),
      masks.astype(np.uint8),
      PointAnnotations(positions, visible, np.ones_like(visible)),
  )


def write_scene(folder: pathlib.Path, scene: SceneVideo) -> None:
  """Writes a scene into a new folder, atomically."""
  pillow = import_pillow()
  part = folder.with_name(f'.{folder.name}.part')
  if part.exists():
    shutil.rmtree(part)
  for kind in ('rgbs', 'masks'):
    (part / kind).mkdir(parents=True)
  for index, (frame, mask) in enumerate(
      zip(scene.frames, scene.masks, strict=True)
  ):
    pillow.fromarray(frame).save(
        part / 'rgbs' / f'rgb_{index:05}.jpg', quality=_QUALITY
    )
    pillow.fromarray(mask).save(part / 'masks' / f'mask_{index:05}.png')
  annotations = scene.annotations
  with write_atomically(part / 'anno.npz') as file:
    np.savez(
        file,
        trajs_2d=annotations.positions,
        visibs=annotations.visible,
        valids=annotations.valid,
    )
  part.rename(folder)


@functools.partial(jax.jit, static_argnums=1)
def _make(key: Key, config: ProceduralConfig) -> tuple[Any, Array]:
  return make_example(key, config), _find_layers(key, config)


def _find_layers(key: Key, config: ProceduralConfig) -> Int[Array, 't h w']:
  """Returns the layer of each pixel of `make_example(key, config)`."""
  scene_key, *_ = jax.random.split(key, 4)
  scene = make_scene(scene_key, config)
  height, width = config.resolution
  x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
  pixels = jnp.stack([x, y], axis=-1).reshape(-1, 2)
  softness = jnp.ones(config.num_objects)

  def find(frame: Int[Array, '']) -> Int[Array, 'm']:
    pose = compute_pose(scene, frame.astype(jnp.float32), config.resolution)
    return trace_rays(scene, pose, pixels, softness).layer

  layers = jax.lax.map(find, jnp.arange(config.num_frames))
  return layers.reshape(config.num_frames, height, width)
