"""Batches of Kubric's videos with point tracks, to train on.

videos ──read, in threads──► frames, window, tracks, colors ──to the device──►
cut, resized and recolored there ──► Example

A batch depends on its number and the seed alone, whatever the number of
processes, devices and threads, so a run may stop and go on anywhere.
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
from tapjax.data.kubric.augmentation import draw_window
from tapjax.data.kubric.cotracker import choose_kubric_rows
from tapjax.data.kubric.cotracker import KubricSequence
from tapjax.data.kubric.cotracker import list_kubric_sequences
from tapjax.data.kubric.cotracker import read_kubric_sequence
from tapjax.data.kubric.files import MoviVideos
from tapjax.data.kubric.movi import MoviRecord
from tapjax.data.kubric.tracks import make_tracks
from tapjax.data.kubric.tracks import MoviTrackConfig
from tapjax.data.kubric.tracks import Window
from tapjax.data.queries import sample_queries_first
from tapjax.data.queries import sample_queries_random
from tapjax.data.read_ahead import read_ahead
from tapjax.data.shuffled import make_draws
from tapjax.geometry import Resolution
from tapjax.types import Example

# From CoTracker's pixels, whose centers are integers, to raster coordinates.
_SHIFT = 0.5
# Videos that may have too few points, one after the other.
_MOST_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class KubricConfig:
  """Where Kubric's videos come from and what is made of them.

  Attributes:
    root: folder of the data.
    format: 'movi' is a data set of tensorflow-datasets with all that a scene
      holds, from which tracks are made; 'cotracker' is folders of pictures and
      finished tracks.
    name: of the data set and its variant, of 'movi'.
    split: of the data set, of 'movi'.
    resolution: (height, width) that videos are resized to.
    num_frames: the first ones of a video that are used; None takes all.
    batch_size: videos of a batch, over all devices.
    tracks: which points, of 'movi'; of 'cotracker' only how many.
    queries: of 'cotracker', which points: 'random' ones, each asked where it is
      visible; or as CoTracker and TAPTRv2 are trained ('first_or_middle'),
      those that are visible on the first frame or on the middle one, asked
      where they are first visible, of videos that have enough of them.
    random_crop: whether a random window of each video is resized.
    recolor: whether colors change at random.
    num_workers: threads that read what comes next.
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
  """A video as it is read, and what is to be made of it on the device.

  Points are in pixels of the resized window.
  """

  frames: UInt8[Any, '*b t h w 3']
  window: Int[Any, '*b 4']
  colors: Colors
  query_points: Float[Any, '*b n 3']
  target_points: Float[Any, '*b n t 2']
  occluded: Bool[Any, '*b n t']


@runtime_checkable
class Clips(Protocol):
  """Videos by number, each of which random choices are made about."""

  def __len__(self) -> int:
    ...

  def open(self, index: int) -> Any:
    """Reads a video."""

  def make_clip(
      self, record: Any, generator: np.random.Generator
  ) -> Clip | None:
    """Chooses points of a video; None where it has too few."""

  def read(self, index: int, generator: np.random.Generator) -> Clip:
    """Returns a video with its points, or one of another that has enough."""


def open_clips(config: KubricConfig) -> Clips:
  """Opens the videos of a config; raises FileNotFoundError for none."""
  if not config.root:
    raise ValueError(
        "data.root must be the folder of Kubric's videos - pass "
        '--set data.root=DIR'
    )
  if config.format == 'movi':
    return _MoviClips(config)
  return _CoTrackerClips(config)


class _MoviClips:
  """Videos of MOVi, whose tracks are made from scenes."""

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
    window = _draw_window(record.video, config, generator)
    tracks = make_tracks(
        record, window, config.resolution, config.tracks, generator
    )
    # Trackers that learn from the first points alone learn from all objects.
    order = generator.permutation(len(tracks.query_points))
    return Clip(
        record.video,
        np.asarray(window, np.int32),
        draw_colors(generator),
        tracks.query_points[order],
        tracks.target_points[order],
        tracks.occluded[order],
    )


class _CoTrackerClips:
  """Videos of MOVi-F as CoTracker stores them, with their tracks."""

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
    window = _draw_window(frames, config, generator)
    corner = np.asarray([window.left, window.top])
    size = np.asarray([window.right, window.bottom]) - corner
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
        np.asarray(window, np.int32),
        draw_colors(generator),
        queries.query_points.astype(np.float32),
        queries.target_points,
        queries.occluded,
    )


def make_kubric_draw(
    config: KubricConfig, seed: int, mesh: Mesh, clips: Clips | None = None
) -> Callable[[int], Example]:
  """Returns the function from a step to its batch, sharded over the mesh.

  Every epoch shuffles all videos anew. Each process reads its own share of a
  batch only. `clips` are those of the config, if they are open already.
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
  """Puts clips of one shape side by side; ValueError if they are not."""
  shapes = {clip.frames.shape for clip in clips}
  if len(shapes) > 1:
    raise ValueError(
        f'videos of a batch must be of one size; got {sorted(shapes)} - use '
        'one variant of the data set, or set num_frames'
    )
  return jax.tree.map(lambda *arrays: np.stack(arrays), *clips)


def make_develop(config: KubricConfig) -> Callable[[tuple, Clip], Example]:
  """Returns the function that makes examples of clips, on the device."""

  def develop_one(
      frames: UInt8[Array, 't h w 3'], window: Int[Array, '4'], colors: Colors
  ) -> Float[Array, 't _ _ 3']:
    if not config.recolor:
      nothing = jnp.zeros((), bool)
      colors = colors._replace(is_changed=nothing, is_gray=nothing)
    return apply_augmentation(
        frames,
        window,
        colors,
        config.resolution,
        as_published=config.tracks.as_published,
    )

  def develop(_: tuple, clip: Clip) -> Example:
    return Example(
        jax.vmap(develop_one)(clip.frames, clip.window, clip.colors),
        clip.query_points,
        clip.target_points,
        clip.occluded,
    )

  return develop


class InputProfile(NamedTuple):
  """Seconds that an example takes, by what they are for.

  Reading and tracks are of one core's work, what the device does by the clock.
  """

  num_examples: int
  read: float
  tracks: float
  device: float

  @property
  def per_core(self) -> float:
    """Examples that one core reads and prepares in a second."""
    return 1 / (self.read + self.tracks)


def profile_input(
    config: KubricConfig, num_examples: int, seed: int
) -> InputProfile:
  """Measures where the time goes, one example after the other.

  What the device does is compiled before.
  """
  clips = open_clips(config)
  develop = jax.jit(make_develop(config))
  seconds = np.zeros(3)
  for index in range(num_examples + 1):
    generator = np.random.default_rng([seed, index])
    # Of this thread alone, whatever else the machine does.
    begin = time.thread_time()
    record = clips.open(index % len(clips))
    read = time.thread_time()
    clip = clips.make_clip(record, generator)
    tracked = time.thread_time()
    if clip is None:
      # Of too few points; reading it takes as long.
      clip = clips.read(index % len(clips), generator)
    start = time.perf_counter()
    jax.block_until_ready(develop((), stack_clips([clip])))
    waited = time.perf_counter() - start
    if index:  # The first one compiles.
      seconds += [read - begin, tracked - read, waited]
  return InputProfile(num_examples, *(seconds / num_examples).tolist())


def _draw_window(
    video: UInt8[np.ndarray, 't h w 3'],
    config: KubricConfig,
    generator: np.random.Generator,
) -> Window:
  height, width = video.shape[1:3]
  if not config.random_crop:
    return Window(0, 0, height, width)
  return draw_window((height, width), generator)
