"""Batches of PointOdyssey windows, in epochs.

scenes ──list_windows──► windows ──split──► training, validation
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import pathlib
from typing import Literal, NamedTuple

from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.point_odyssey.windows import list_windows
from tapjax.data.point_odyssey.windows import PointWindow
from tapjax.data.point_odyssey.windows import read_window
from tapjax.data.point_odyssey.windows import split_windows
from tapjax.data.point_odyssey.windows import WindowConfig
from tapjax.data.read_ahead import read_ahead


@dataclasses.dataclass(frozen=True)
class PointDataConfig:
  """Settings of batches of PointOdyssey windows.

  Attributes:
    root: folder of scenes.
    scenes: names of the scenes to use; None uses all.
    batch_size: windows per batch; the last batch of an epoch may have fewer.
    most_frames: number of frames used of a scene, from its beginning.
    split: 'scene' validates on whole scenes. 'window', as published, validates
      on single windows, which share nearly all frames with training windows.
    train_share: fraction of scenes, or windows, for training.
    num_workers: threads that read ahead.
  """

  root: str = ''
  scenes: tuple[str, ...] | None = None
  batch_size: int = 4
  most_frames: int = 20
  split: Literal['scene', 'window'] = 'scene'
  train_share: float = 0.8
  num_workers: int = 4

  def __post_init__(self):
    if self.batch_size < 1:
      raise ValueError(f'batch_size must be at least 1; got {self.batch_size}')
    if not 0 < self.train_share < 1:
      raise ValueError(
          f'train_share must be between 0 and 1; got {self.train_share}'
      )
    if self.num_workers < 0:
      raise ValueError(
          f'num_workers must be at least 0; got {self.num_workers}'
      )


class WindowBatch(NamedTuple):
  """A batch of windows; positions are normalized (x, y)."""

  frames: UInt8[np.ndarray, 'b t h w 3']
  positions_unit: Float[np.ndarray, 'b t n 2']


class WindowBatches(NamedTuple):
  """Batches of a set of windows.

  Attributes:
    num_batches: batches per epoch.
    draw: from the number of a batch, counted over all epochs, to the batch.
  """

  num_batches: int
  draw: Callable[[int], WindowBatch]


def find_windows(
    config: PointDataConfig, windows: WindowConfig, seed: int
) -> tuple[list[PointWindow], list[PointWindow]]:
  """Returns the training and the validation windows.

  Points and split depend on the seed and the scenes alone. Raises ValueError or
  FileNotFoundError if one of the sets is empty.
  """
  root = pathlib.Path(config.root)
  if not config.root or not root.is_dir():
    raise ValueError(
        'data.root must be a folder of scenes, such as PointOdyssey/train; got '
        f'{config.root!r} - pass --set data.root=DIR'
    )
  if config.scenes is not None:
    for name in config.scenes:
      if not (root / name).is_dir():
        raise ValueError(
            f'data.scenes must name folders in {root}; there is no {name!r}'
        )
  generator = np.random.default_rng([seed, 0])
  found = list_windows(root, windows, generator, config.scenes)
  train, validation = split_windows(
      found, np.random.default_rng([seed, 1]), config.split, config.train_share
  )
  if not train or not validation:
    raise ValueError(
        f'data must have a {config.split} to train on and one to validate on; '
        f'{root} gives {len(train)} and {len(validation)} windows - more '
        'scenes, another data.train_share, or data.split=window?'
    )
  return train, validation


def make_batches(
    windows: Sequence[PointWindow],
    config: WindowConfig,
    batch_size: int,
    num_workers: int,
    shuffle_seed: int | None = None,
) -> WindowBatches:
  """Returns batches of windows, shuffled in each epoch if given a seed.

  A batch depends on its number and the seed alone, so a resumed run draws the
  same batches as an uninterrupted one.
  """
  num_batches = -(-len(windows) // batch_size)

  @functools.lru_cache(maxsize=2)
  def get_order(epoch: int) -> Int[np.ndarray, 'k']:
    if shuffle_seed is None:
      return np.arange(len(windows))
    generator = np.random.default_rng([shuffle_seed, 2, epoch])
    return generator.permutation(len(windows))

  def draw(number: int) -> WindowBatch:
    epoch, index = divmod(number, num_batches)
    rows = get_order(epoch)[index * batch_size :][:batch_size]
    examples = [read_window(windows[row], config) for row in rows]
    return WindowBatch(
        np.stack([example.frames for example in examples]),
        np.stack([example.positions_unit for example in examples]),
    )

  return WindowBatches(num_batches, read_ahead(draw, num_workers))
