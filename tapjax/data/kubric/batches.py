"""Training batches of Kubric videos with point tracks.

videos ──read, in threads──► frames, crop, tracks, colors ──to the device──►
cropped, resized and recolored there ──► Example

A batch depends on its number and the seed alone, for any number of processes,
devices and threads, so that a run can be resumed at any step.
"""

from collections.abc import Callable
import dataclasses
import time
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.data.kubric.augmentation import apply_augmentation
from tapjax.data.kubric.augmentation import Colors
from tapjax.data.kubric.augmentation import draw_colors
from tapjax.data.kubric.augmentation import draw_crop
from tapjax.data.kubric.cotracker import choose_kubric_rows
from tapjax.data.kubric.cotracker import KubricSequence
from tapjax.data.kubric.cotracker import list_kubric_sequences
from tapjax.data.kubric.cotracker import read_kubric_sequence
from tapjax.data.kubric.files import MoviVideos
from tapjax.data.kubric.movi import MoviRecord
from tapjax.data.kubric.query_choices import CropWindow
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.data.kubric.tracks import make_tracks
from tapjax.data.queries import sample_queries_first
from tapjax.data.queries import sample_queries_random
from tapjax.data.read_ahead import read_ahead
from tapjax.data.shuffled import make_draws
from tapjax.geometry import Resolution
from tapjax.types import Example

# From CoTracker's pixels, whose centers are integers, to raster coordinates.
_SHIFT = 0.5
# Consecutive videos with too few points before an error.
_MOST_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class KubricConfig:
  """Settings of training batches of Kubric videos.

  Attributes:
    root: folder of the data.
    format: 'movi' is a data set of tensorflow-datasets with the scenes, from
      which tracks are computed; 'cotracker' is folders of pictures and tracks.
    name: of the data set and its variant, for 'movi'.
    split: of the data set, for 'movi'.
    resolution: (height, width) of the resized videos.
    num_frames: number of frames used of a video, from its beginning; None uses
      all.
    batch_size: videos per batch, over all devices.
    tracks: selection of points, for 'movi'; for 'cotracker' only their number.
    queries: selection of points, for 'cotracker'. 'random' draws points, each
      queried on a random visible frame. 'first_or_middle', as CoTracker and
      TAPTRv2 are trained, draws points visible on the first or the middle
      frame, queried on their first visible frame, of videos with enough points.
    random_crop: whether a random crop of each video is used.
    recolor: whether colors change at random.
    num_workers: threads that read ahead.
  """

  root: str = ''
  format: Literal['movi', 'cotracker'] = 'movi'
  name: str = 'panning_movi_e/256x256'
  split: str = 'train'
  resolution: Resolution = (256, 256)
  num_frames: int | None = None
  batch_size: int = 8
  tracks: MoviTrackConfig = dataclasses.field(default_factory=MoviTrackConfig)
  queries: Literal['random', 'first_or_middle'] = 'random'
  random_crop: bool = True
  recolor: bool = True
  num_workers: int = 4

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be at least 1; got {self.batch_size}')
    if self.num_frames is not None and self.num_frames < 1:
      raise ValueError(f'num_frames must be at least 1; got {self.num_frames}')
    if self.num_workers < 0:
      raise ValueError(
          f'num_workers must be at least 0; got {self.num_workers}'
      )


class Clip(NamedTuple):
  """A video and its augmentation, which the device applies.

  Points are in raster pixels of the resized crop.
  """

  frames: UInt8[Any, '*b t h w 3']
  crop: Int[Any, '*b 4']
  colors: Colors
  query_points: Float[Any, '*b n 3']
  target_points: Float[Any, '*b n t 2']
  occluded: Bool[Any, '*b n t']


@runtime_checkable
class Clips(Protocol):
  """Training videos by index."""

  def __len__(self) -> int:
    ...

  def open(self, index: int) -> Any:
    """Reads a video."""

  def make_clip(
      self, record: Any, generator: np.random.Generator
  ) -> Clip | None:
    """Draws points and augmentation of a video; None with too few points."""

  def read(self, index: int, generator: np.random.Generator) -> Clip:
    """Returns a clip of a video, or of a random one with enough points."""


def open_clips(config: KubricConfig) -> Clips:
  """Opens the videos of a config; FileNotFoundError if there are none."""
  if not config.root:
    raise ValueError(
        "data.root must be the folder of Kubric's videos - pass "
        '--set data.root=DIR'
    )
  if config.format == 'movi':
    return _MoviClips(config)
  return _CoTrackerClips(config)


class _MoviClips:
  """Videos of MOVi, with tracks computed from the scenes."""

  def __init__(self, config: KubricConfig):
    self._videos = MoviVideos(config.root, config.name, config.split)
    self._config = config

  def __len__(self) -> int:
    return len(self._videos)

  def open(self, index: int) -> MoviRecord:
    return self._videos.read(index)

  def read(self, index: int, generator: np.random.Generator) -> Clip:
    return self.make_clip(self.open(index), generator)

  def make_clip(
      self, record: MoviRecord, generator: np.random.Generator
  ) -> Clip:
    config = self._config
    if (length := config.num_frames) is not None:
      record = record.take_frames(length)
    crop = _draw_crop(record.video, config, generator)
    tracks = make_tracks(
        record, crop, config.resolution, config.tracks, generator
    )
    # The first points are then of all objects, for trackers that use only some.
    order = generator.permutation(len(tracks.query_points))
    return Clip(
        record.video,
        np.asarray(crop, np.int32),
        draw_colors(generator),
        tracks.query_points[order],
        tracks.target_points[order],
        tracks.occluded[order],
    )


class _CoTrackerClips:
  """Videos of MOVi-F with tracks, in CoTracker's format."""

  def __init__(self, config: KubricConfig):
    self._folders = list_kubric_sequences(config.root)
    self._config = config

  def __len__(self) -> int:
    return len(self._folders)

  def open(self, index: int) -> KubricSequence:
    return read_kubric_sequence(self._folders[index])

  def read(self, index: int, generator: np.random.Generator) -> Clip:
    for _ in range(_MOST_ATTEMPTS):
      clip = self.make_clip(self.open(index), generator)
      if clip is not None:
        return clip
      index = int(generator.integers(len(self)))
    raise ValueError(
        f'{self._config.root} must have videos with '
        f'{self._config.tracks.num_points} points visible on the first frame '
        f'or the middle one; {_MOST_ATTEMPTS} in a row had fewer - fewer '
        'data.tracks.num_points?'
    )

  def make_clip(
      self, record: KubricSequence, generator: np.random.Generator
  ) -> Clip | None:
    config, sequence = self._config, record
    frames = sequence.frames[: config.num_frames]
    crop = _draw_crop(frames, config, generator)
    corner = np.asarray([crop.left, crop.top])
    size = np.asarray([crop.right, crop.bottom]) - corner
    points = sequence.points[:, : len(frames)] + _SHIFT - corner
    inside = ((points >= 0) & (points <= size)).all(axis=-1)
    visible = sequence.visible[:, : len(frames)] & inside
    scale = np.asarray(config.resolution[::-1]) / size
    points = (points * scale).astype(np.float32)
    if config.queries == 'first_or_middle':
      rows = choose_kubric_rows(
          KubricSequence(frames, sequence.points[:, : len(frames)], visible),
          config.tracks.num_points,
          generator,
      )
      if rows is None:
        return None
      queries = sample_queries_first(points[rows], ~visible[rows])
    else:
      queries = sample_queries_random(
          points, ~visible, config.tracks.num_points, generator
      )
    return Clip(
        frames,
        np.asarray(crop, np.int32),
        draw_colors(generator),
        queries.query_points.astype(np.float32),
        queries.target_points,
        queries.occluded,
    )


def make_kubric_draw(
    config: KubricConfig, seed: int, mesh: Mesh, clips: Clips | None = None
) -> Callable[[int], Example]:
  """Returns a function from a step to its batch, sharded over the mesh.

  Every epoch shuffles all videos. Each process reads only its own rows of a
  batch. `clips` are the opened videos of the config; None opens them.
  """
  if clips is None:
    clips = open_clips(config)
  draw = make_draws(len(clips), config.batch_size, seed, mesh)

  def read(step: int) -> Clip:
    return stack_clips([clips.read(*drawn) for drawn in draw(step)])

  develop = parallel.map_shards(make_develop(config), mesh)
  get = read_ahead(read, config.num_workers)
  return lambda step: develop((), parallel.shard(mesh, get(step)))


def stack_clips(clips: list[Clip]) -> Clip:
  """Stacks clips along a new batch axis; ValueError unless of one shape."""
  shapes = {clip.frames.shape for clip in clips}
  if len(shapes) > 1:
    raise ValueError(
        f'videos of a batch must be of one size; got {sorted(shapes)} - use '
        'one variant of the data set, or set num_frames'
    )
  return jax.tree.map(lambda *arrays: np.stack(arrays), *clips)


def make_develop(config: KubricConfig) -> Callable[[tuple, Clip], Example]:
  """Returns the function from clips to examples, for the device."""

  def develop_one(
      frames: UInt8[Array, 't h w 3'], crop: Int[Array, '4'], colors: Colors
  ) -> Float[Array, 't _ _ 3']:
    if not config.recolor:
      nothing = jnp.zeros((), bool)
      colors = colors._replace(is_changed=nothing, is_gray=nothing)
    return apply_augmentation(
        frames,
        crop,
        colors,
        config.resolution,
        as_published=config.tracks.as_published,
    )

  def develop(_: tuple, clip: Clip) -> Example:
    return Example(
        jax.vmap(develop_one)(clip.frames, clip.crop, clip.colors),
        clip.query_points,
        clip.target_points,
        clip.occluded,
    )

  return develop


class InputProfile(NamedTuple):
  """Seconds per example, by stage of the input pipeline.

  `read` and `tracks` are CPU time of one core, `device` is wall-clock time.
  """

  num_examples: int
  read: float
  tracks: float
  device: float

  @property
  def per_core(self) -> float:
    """Number of examples that one core reads and prepares per second."""
    return 1 / (self.read + self.tracks)


def profile_input(
    config: KubricConfig, num_examples: int, seed: int
) -> InputProfile:
  """Measures the stages of the input pipeline, one example at a time.

  Compilation is excluded.
  """
  clips = open_clips(config)
  develop = jax.jit(make_develop(config))
  seconds = np.zeros(3)
  for index in range(num_examples + 1):
    generator = np.random.default_rng([seed, index])
    # CPU time of this thread alone.
    begin = time.thread_time()
    record = clips.open(index % len(clips))
    read = time.thread_time()
    clip = clips.make_clip(record, generator)
    tracked = time.thread_time()
    if clip is None:
      # Too few points: another video, whose time is not counted.
      clip = clips.read(index % len(clips), generator)
    start = time.perf_counter()
    jax.block_until_ready(develop((), stack_clips([clip])))
    waited = time.perf_counter() - start
    if index:  # The first one compiles.
      seconds += [read - begin, tracked - read, waited]
  return InputProfile(num_examples, *(seconds / num_examples).tolist())


def _draw_crop(
    video: UInt8[np.ndarray, 't h w 3'],
    config: KubricConfig,
    generator: np.random.Generator,
) -> CropWindow:
  height, width = video.shape[1:3]
  if not config.random_crop:
    return CropWindow(0, 0, height, width)
  return draw_crop((height, width), generator)
