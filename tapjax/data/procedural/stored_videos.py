"""Stored procedural videos, and batches of augmented clips of them.

On a CPU, rendering a video takes longer than training on it once, so videos are
rendered in advance, by any number of processes, and drawn repeatedly. Clips
differ in frames, warps, colors and points.

  folder/000000.npz   video, target_points, occluded; see `Example`

video ──draw frames, warps, colors, points──► clip ──develop──► Example

Batches depend on the step, the seed and the files alone.
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import math
import pathlib
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.data.kubric.augmentation import change_colors
from tapjax.data.kubric.augmentation import Colors
from tapjax.data.kubric.augmentation import draw_colors
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.procedural.videos import render_example
from tapjax.data.read_ahead import read_ahead
from tapjax.data.shuffled import make_draws
from tapjax.files import write_atomically
from tapjax.geometry import normalize_frames
from tapjax.geometry import Resolution
from tapjax.ops.sampling import read_in_frames
from tapjax.settings import check_at_least
from tapjax.types import Example

_NAME = '{:06}.npz'


@dataclasses.dataclass(frozen=True)
class StoredConfig:
  """Settings of augmented clips of stored videos.

  Every clip is rotated by multiples of 90 degrees, mirrored and zoomed at
  random. With 'scattered' frames, each frame has a warp of its own as well;
  this is for matching, without continuity in time.

  Attributes:
    folder: of `write_stored_videos`.
    batch_size: clips per batch, over all devices.
    frames: 'consecutive' frames of a video, forward or backward, or 'scattered'
      frames in random order.
    num_frames: frames per clip.
    longest_step: largest step between consecutive frames, in frames of the
      video; each clip draws a step.
    resolution: (height, width) of clips, which are crops of the video.
    zoom: range of pixels of a clip per pixel of the video, sampled uniformly in
      the logarithm.
    drift_zoom: largest change of scale from the first to the last of
      consecutive frames, as a logarithm.
    drift_turn: largest angle between these, in radians.
    frame_zoom: largest change of scale of a scattered frame, as a logarithm.
    frame_turn: largest angle of a scattered frame, in radians.
    recolor: whether colors are changed.
    num_points: points per clip, drawn from those of the video.
    num_workers: threads that read ahead.
  """

  folder: str = ''
  batch_size: int = 4
  frames: Literal['consecutive', 'scattered'] = 'consecutive'
  num_frames: int = 16
  longest_step: int = 1
  resolution: Resolution = (192, 192)
  zoom: tuple[float, float] = (0.75, 1.3)
  drift_zoom: float = 0.0
  drift_turn: float = 0.0
  frame_zoom: float = 0.3
  frame_turn: float = 0.5
  recolor: bool = True
  num_points: int = 128
  num_workers: int = 2

  def __post_init__(self):
    check_at_least(
        1, self, ('batch_size', 'num_frames', 'longest_step', 'num_points')
    )
    if not 0 < self.zoom[0] <= self.zoom[1]:
      raise ValueError(f'zoom must be two growing numbers; got {self.zoom}')


class StoredVideo(NamedTuple):
  """A stored video and its tracks, (x, y) in raster pixels."""

  video: UInt8[np.ndarray, 't h w 3']
  target_points: Float[np.ndarray, 'n t 2']
  occluded: Bool[np.ndarray, 'n t']


class Clip(NamedTuple):
  """A drawn clip, before its pixels are computed.

  `to_video` maps pixels (x, y, 1) of the clip to pixels of each frame of the
  video.
  """

  frames: UInt8[np.ndarray, 't h w 3']
  to_video: Float[np.ndarray, 't 2 3']
  colors: Colors
  query_points: Float[np.ndarray, 'n 3']
  target_points: Float[np.ndarray, 'n t 2']
  occluded: Bool[np.ndarray, 'n t']


def write_stored_videos(
    folder: pathlib.Path,
    indices: Iterable[int],
    config: ProceduralConfig,
    seed: int,
    progress: Callable[[], object] = lambda: None,
) -> None:
  """Renders and stores procedural videos, by index and seed.

  Existing files are kept. `progress` is called after each video.
  """
  folder.mkdir(parents=True, exist_ok=True)
  key = jax.random.key(seed)
  for index in indices:
    path = folder / _NAME.format(index)
    if not path.is_file():
      example = parallel.fetch(
          render_example(jax.random.fold_in(key, index), config)
      )
      with write_atomically(path) as file:
        np.savez(
            file,
            video=np.round((example.video + 1) * 127.5).astype(np.uint8),
            target_points=example.target_points,
            occluded=example.occluded,
        )
    progress()


def read_stored_video(path: pathlib.Path) -> StoredVideo:
  """Reads a stored video."""
  with np.load(path, allow_pickle=False) as arrays:
    return StoredVideo(*(arrays[name] for name in StoredVideo._fields))


def list_stored_videos(config: StoredConfig) -> list[pathlib.Path]:
  """Returns the files of the folder; ValueError if there are none."""
  paths = sorted(pathlib.Path(config.folder).glob('*.npz'))
  if not paths:
    raise ValueError(
        'data.folder must hold stored videos; there are none in '
        f'{config.folder!r} - write some with --task=generate'
    )
  return paths


def make_stored_draw(
    config: StoredConfig, seed: int, mesh: Mesh
) -> Callable[[int], Example]:
  """Returns a function from a step to its batch, sharded over the mesh.

  Every epoch has each video once, in a new order. Raises ValueError for a
  folder without videos.
  """
  paths = list_stored_videos(config)
  draw = make_draws(len(paths), config.batch_size, seed, mesh)

  def read(step: int) -> Clip:
    clips = [
        draw_clip(read_stored_video(paths[index]), config, generator)
        for index, generator in draw(step)
    ]
    return jax.tree.map(lambda *parts: np.stack(parts), *clips)

  def develop(_: tuple, clips: Clip) -> Example:
    return jax.lax.map(lambda clip: develop_clip(clip, config), clips)

  develop_shards = parallel.map_shards(develop, mesh)
  get = read_ahead(read, config.num_workers)
  return lambda step: develop_shards((), parallel.shard(mesh, get(step)))


def draw_clip(
    stored: StoredVideo, config: StoredConfig, generator: np.random.Generator
) -> Clip:
  """Draws the random parameters and the points of a clip."""
  numbers = _draw_frame_numbers(len(stored.video), config, generator)
  to_video = _draw_warps(stored.video.shape[1:3], config, generator)
  turned, moved = to_video[:, :, :2], to_video[:, :, 2]
  offsets = stored.target_points[:, numbers] - moved[None]
  targets = np.einsum('tij,ntj->nti', np.linalg.inv(turned), offsets)
  height, width = config.resolution
  outside = np.any((targets < 0) | (targets >= (width, height)), axis=-1)
  occluded = stored.occluded[:, numbers] | outside
  rows, times = _draw_points(occluded, config.num_points, generator)
  targets, occluded = targets[rows], occluded[rows]
  points = targets[np.arange(len(rows)), times, ::-1]
  return Clip(
      stored.video[numbers],
      to_video.astype(np.float32),
      draw_colors(generator),
      np.concatenate([times[:, None], points], axis=1).astype(np.float32),
      targets.astype(np.float32),
      occluded,
  )


def develop_clip(clip: Clip, config: StoredConfig) -> Example:
  """Computes the pixels of a clip, interpolated in its video.

  Pixels outside of the video have the value of its border.
  """
  height, width = config.resolution
  x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
  pixels = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)
  places = jnp.einsum('hwj,tij->thwi', pixels, jnp.asarray(clip.to_video))
  numbers = jnp.repeat(jnp.arange(config.num_frames), height * width)
  video = read_in_frames(
      normalize_frames(clip.frames), numbers, places[..., ::-1].reshape(-1, 2)
  ).reshape(-1, height, width, 3)
  if config.recolor:
    video = change_colors(video, clip.colors)
  return Example(video, *(jnp.asarray(array) for array in clip[-3:]))


def _draw_frame_numbers(
    length: int, config: StoredConfig, generator: np.random.Generator
) -> np.ndarray:
  """Draws the frame numbers of a clip of a video."""
  needed = config.num_frames
  if length < needed:
    raise ValueError(
        f'num_frames must be at most that of the stored videos, {length}; got '
        f'{needed}'
    )
  if config.frames == 'scattered':
    return generator.permutation(length)[:needed]
  longest = min(config.longest_step, (length - 1) // max(needed - 1, 1))
  step = int(generator.integers(1, longest + 1))
  start = int(generator.integers(length - (needed - 1) * step))
  numbers = start + step * np.arange(needed)
  return numbers[::-1] if generator.random() < 0.5 else numbers


def _draw_warps(
    size: tuple[int, ...], config: StoredConfig, generator: np.random.Generator
) -> Float[np.ndarray, 't 2 3']:
  """Draws the affine maps from pixels of a clip to pixels of the video."""
  count = config.num_frames
  low, high = (math.log(bound) for bound in config.zoom)
  zoom = np.full(count, generator.uniform(low, high))
  angle = np.full(count, generator.integers(4) * (math.pi / 2))
  if config.frames == 'scattered':
    zoom += generator.uniform(-config.frame_zoom, config.frame_zoom, count)
    angle += generator.uniform(-config.frame_turn, config.frame_turn, count)
  else:
    way = np.linspace(-0.5, 0.5, count)
    zoom += way * generator.uniform(-config.drift_zoom, config.drift_zoom)
    angle += way * generator.uniform(-config.drift_turn, config.drift_turn)
  cos, sin = np.cos(angle), np.sin(angle)
  turned = np.stack([cos, -sin, sin, cos], axis=-1).reshape(count, 2, 2)
  turned *= np.exp(-zoom)[:, None, None]
  if generator.random() < 0.5:
    turned[:, :, 0] *= -1
  # The crop stays inside of the frame, or is centered if it is larger.
  height, width = size
  middle = np.asarray(config.resolution[::-1]) / 2
  free = np.asarray([width, height])[None] / 2 - np.abs(turned) @ middle
  free = np.maximum(free, 0)
  if config.frames == 'scattered':
    shift = generator.uniform(-1, 1, (count, 2))
  else:
    shift = generator.uniform(-1, 1, (1, 2))
  center = np.asarray([width, height])[None] / 2 + free * shift
  moved = center - turned @ middle
  return np.concatenate([turned, moved[:, :, None]], axis=-1)


def _draw_points(
    occluded: Bool[np.ndarray, 'm t'],
    num_points: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws points and, for each, a visible query frame.

  Points visible on a single frame come last, and points never visible are left
  out. Too few points are repeated, with a query frame of their own.
  """
  seen = np.sum(~occluded, axis=1)
  order = generator.permutation(len(seen))
  order = order[np.argsort(-np.minimum(seen[order], 2), kind='stable')]
  usable = np.count_nonzero(seen)
  if not usable:
    raise ValueError('a clip must show points; it shows none')
  rows = order[np.arange(num_points) % usable]
  chance = generator.random((num_points, occluded.shape[1]))
  return rows, np.argmax(np.where(occluded[rows], -1, chance), axis=1)
