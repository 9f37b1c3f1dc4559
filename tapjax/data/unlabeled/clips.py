"""Clips of unlabeled videos with random query points.

videos ──decode once, resize──► frames ──draw a clip and points──► batch

A batch depends on its number, the seed and the videos alone.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.data.labeled import resize_frames
from tapjax.data.read_ahead import read_ahead
from tapjax.data.shuffled import make_draws
from tapjax.geometry import normalize_frames
from tapjax.geometry import Resolution
from tapjax.media import video as video_files
from tapjax.settings import check_at_least

_BLOCK = 32


@dataclasses.dataclass(frozen=True)
class UnlabeledConfig:
  """Settings of clips of unlabeled videos.

  Attributes:
    videos: a file, or a folder of files.
    num_frames: frames per clip. A shorter video is played back and forth.
    longest_step: largest step between frames of a clip, in frames of the video;
      each clip draws a step.
    resolution: (height, width) of clips.
    batch_size: clips per batch, over all devices.
    num_queries: random points per clip.
    most_frames: number of frames used of a video, from its beginning.
    held_videos: number of decoded videos held in memory.
    num_workers: threads that read ahead.
  """

  videos: str = ''
  num_frames: int = 24
  longest_step: int = 2
  resolution: Resolution = (256, 256)
  batch_size: int = 4
  num_queries: int = 128
  most_frames: int = 600
  held_videos: int = 32
  num_workers: int = 2

  def __post_init__(self):
    check_at_least(
        1, self, ('num_frames', 'longest_step', 'batch_size', 'num_queries')
    )


class UnlabeledBatch(NamedTuple):
  """Videos in [-1, 1], and random query points (t, y, x) in their pixels."""

  video: Float[Array, 'b t h w 3']
  query_points: Float[Array, 'b n 3']


class _Clips(NamedTuple):
  """A batch before normalization."""

  frames: UInt8[np.ndarray, 'b t h w 3']
  query_points: Float[np.ndarray, 'b n 3']


def make_unlabeled_draw(
    paths: Sequence[pathlib.Path],
    config: UnlabeledConfig,
    seed: int,
    mesh: Mesh,
) -> Callable[[int], UnlabeledBatch]:
  """Returns a function from a step to its batch, sharded over the mesh.

  Every epoch has each video once, in a new order. The function raises
  ValueError or FileNotFoundError for a video that cannot be read.
  """
  draw = make_draws(len(paths), config.batch_size, seed, mesh)

  @functools.lru_cache(maxsize=config.held_videos)
  def get_frames(index: int) -> UInt8[np.ndarray, 't h w 3']:
    return read_frames(paths[index], config.resolution, config.most_frames)

  def read_clip(
      index: int, generator: np.random.Generator
  ) -> tuple[np.ndarray, np.ndarray]:
    frames = get_frames(index)
    numbers = draw_frame_numbers(len(frames), config, generator)
    return frames[numbers], _draw_points(config, generator)

  def read(step: int) -> _Clips:
    clips = [read_clip(*drawn) for drawn in draw(step)]
    frames, points = zip(*clips, strict=True)
    return _Clips(np.stack(frames), np.stack(points))

  def develop(_: tuple, clips: _Clips) -> UnlabeledBatch:
    return UnlabeledBatch(
        normalize_frames(clips.frames), jnp.asarray(clips.query_points)
    )

  develop_shards = parallel.map_shards(develop, mesh)
  get = read_ahead(read, config.num_workers)
  return lambda step: develop_shards((), parallel.shard(mesh, get(step)))


def read_frames(
    path: pathlib.Path, resolution: Resolution, most_frames: int
) -> UInt8[np.ndarray, 't h w 3']:
  """Reads the first frames of a video, resized."""
  blocks = []
  count = 0
  with video_files.open_video(path) as reader:
    for block in reader.read_blocks(_BLOCK):
      blocks.append(resize_frames(block[: most_frames - count], resolution))
      count += len(blocks[-1])
      if count >= most_frames:
        break
  return np.concatenate(blocks)


def draw_frame_numbers(
    length: int, config: UnlabeledConfig, generator: np.random.Generator
) -> np.ndarray:
  """Draws the frame numbers of a clip of a video."""
  needed = config.num_frames
  fitting = (length - 1) // max(needed - 1, 1)
  step = int(generator.integers(1, config.longest_step + 1))
  step = max(min(step, fitting), 1)
  span = (needed - 1) * step + 1
  if span <= length:
    start = int(generator.integers(length - span + 1))
    return start + step * np.arange(needed)
  # Back and forth, without repeating the first and the last frame.
  period = max(2 * (length - 1), 1)
  places = np.arange(needed) % period
  return np.minimum(places, period - places) if length > 1 else places * 0


def _draw_points(
    config: UnlabeledConfig, generator: np.random.Generator
) -> Float[np.ndarray, 'n 3']:
  count = config.num_queries
  times = generator.integers(config.num_frames, size=(count, 1))
  places = generator.uniform(0, config.resolution, (count, 2))
  return np.concatenate([times, places], axis=1).astype(np.float32)
