"""Batches of PointOdyssey clips, selected and augmented as for PIPs++.

scenes ──choose──► clip ──make_training_clip──► batch; rejected clips are
replaced, and counted by reason
"""

import collections
from collections.abc import Callable
import dataclasses
import functools
import pathlib
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.point_odyssey.clip_augmentation import AugmentationConfig
from tapjax.data.point_odyssey.clips import ClipConfig
from tapjax.data.point_odyssey.clips import ClipRejectedError
from tapjax.data.point_odyssey.clips import list_clips
from tapjax.data.point_odyssey.clips import make_training_clip
from tapjax.data.point_odyssey.clips import read_clip
from tapjax.data.point_odyssey.clips import TrainingClip
from tapjax.data.point_odyssey.color_augmentation import ColorConfig
from tapjax.data.point_odyssey.color_augmentation import recolor_clip
from tapjax.data.point_odyssey.exported_clips import list_exported_clips
from tapjax.data.point_odyssey.exported_clips import read_exported_clip
from tapjax.data.point_odyssey.files import list_frames
from tapjax.data.point_odyssey.files import list_scenes
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.files import read_annotations
from tapjax.data.read_ahead import read_ahead
from tapjax.settings import check_at_least

_MOST_ATTEMPTS = 100
# Number of scenes whose annotations are held in memory.
_HELD_SCENES = 4
# From pixels of the data set to raster coordinates.
_SHIFT = 0.5


@dataclasses.dataclass(frozen=True)
class ClipDataConfig:
  """Settings of batches of PointOdyssey clips.

  Attributes:
    root: folder of scenes, or of exported clips.
    validation_root: folder of validation scenes; None validates on the training
      scenes, as published.
    batch_size: clips per batch.
    clips: settings of the clips.
    augmentation: of training clips; None disables it.
    num_workers: threads that read ahead.
    num_validation: number of validation batches.
  """

  root: str = ''
  validation_root: str | None = None
  batch_size: int = 4
  clips: ClipConfig = dataclasses.field(default_factory=ClipConfig)
  augmentation: AugmentationConfig | None = dataclasses.field(
      default_factory=AugmentationConfig
  )
  num_workers: int = 4
  num_validation: int = 4

  def __post_init__(self):
    check_at_least(1, self, ('batch_size', 'num_validation'))
    if self.num_workers < 0:
      raise ValueError(
          f'num_workers must be at least 0; got {self.num_workers}'
      )


class ClipBatch(NamedTuple):
  """A batch of clips; positions are (x, y) in raster pixels."""

  frames: UInt8[np.ndarray, 'b t h w 3']
  target_points: Float[np.ndarray, 'b n t 2']
  valid: Bool[np.ndarray, 'b n t']


def make_clip_draw(
    root: str,
    config: ClipDataConfig,
    augmentation: AugmentationConfig | None,
    seed: int,
) -> Callable[[int], ClipBatch]:
  """Returns a function from the number of a batch to the batch.

  A batch depends on its number, the seed and the scenes alone. For a folder of
  exported clips, only the color augmentation is applied, again. Raises
  ValueError for a folder without clips; the function raises it after too many
  rejected clips.
  """
  if not root or not pathlib.Path(root).is_dir():
    raise ValueError(
        'data.root must be a folder of scenes, such as PointOdyssey/train, or '
        f'of exported clips; got {root!r} - pass --set data.root=DIR'
    )
  if exported := list_exported_clips(pathlib.Path(root)):
    color = None if augmentation is None else augmentation.color
    return _make_exported_draw(exported, config, color, seed)
  clips = find_clips(pathlib.Path(root), config.clips)

  @functools.lru_cache(maxsize=_HELD_SCENES)
  def get_annotations(scene: pathlib.Path) -> PointAnnotations:
    return read_annotations(scene)

  def draw_clip(number: int, item: int) -> TrainingClip:
    reasons: collections.Counter[str] = collections.Counter()
    generator = np.random.default_rng([seed, number, item])
    for _ in range(_MOST_ATTEMPTS):
      scene, numbers = clips[generator.integers(len(clips))]
      clip = read_clip(scene, get_annotations(scene), numbers)
      try:
        return make_training_clip(clip, config.clips, augmentation, generator)
      except ClipRejectedError as error:
        reasons[str(error)] += 1
    listed = ', '.join(f'{n} x {why}' for why, n in reasons.most_common(3))
    raise ValueError(
        f'{root} must have clips with enough good tracks; {_MOST_ATTEMPTS} in '
        f'a row had not ({listed}) - fewer points, or data.clips.least_share?'
    )

  return _make_batches(draw_clip, config)


def count_clips(root: str, config: ClipConfig) -> int:
  """Returns the number of clips that `make_clip_draw` draws from."""
  folder = pathlib.Path(root)
  return len(list_exported_clips(folder) or find_clips(folder, config))


def find_clips(
    root: pathlib.Path, config: ClipConfig
) -> list[tuple[pathlib.Path, Int[np.ndarray, 't']]]:
  """Returns all clips below a folder: the scene and its frame numbers.

  Raises ValueError or FileNotFoundError if there is none.
  """
  scenes = list_scenes(root)
  clips = [
      (scene, numbers)
      for scene in scenes
      for numbers in list_clips(len(list_frames(scene, 'rgb')), config)
  ]
  if not clips:
    raise ValueError(
        f'{root} must have scenes of at least {config.num_frames} frames '
        f'in rgbs; none of {len(scenes)} has'
    )
  return clips


def _make_exported_draw(
    folders: list[pathlib.Path],
    config: ClipDataConfig,
    color: ColorConfig | None,
    seed: int,
) -> Callable[[int], ClipBatch]:
  """Returns a function from a number to a batch of exported clips."""

  def draw_clip(number: int, item: int) -> TrainingClip:
    generator = np.random.default_rng([seed, number, item])
    folder = folders[generator.integers(len(folders))]
    clip = read_exported_clip(folder, config.clips, generator)
    if color is None:
      return clip
    return clip._replace(frames=recolor_clip(clip.frames, color, generator))

  return _make_batches(draw_clip, config)


def _make_batches(
    draw_clip: Callable[[int, int], TrainingClip], config: ClipDataConfig
) -> Callable[[int], ClipBatch]:
  """Returns a function from a number to a batch of drawn clips."""

  def draw(number: int) -> ClipBatch:
    drawn = [draw_clip(number, item) for item in range(config.batch_size)]
    return ClipBatch(
        np.stack([clip.frames for clip in drawn]),
        np.stack([clip.tracks.positions for clip in drawn]).astype(np.float32)
        + np.float32(_SHIFT),
        np.stack([clip.tracks.valid for clip in drawn]),
    )

  return read_ahead(draw, config.num_workers)
