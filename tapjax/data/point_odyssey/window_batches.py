"""Batches of PointOdyssey's windows, in the order of epochs.

scenes ──list_windows──► windows ──split──► to train on, to validate on
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
  """Where windows come from and how they are put together.

  Attributes:
    root: folder of scenes.
    scenes: names of those to use; None takes all.
    batch_size: windows of a batch; the last one of an epoch may have fewer.
    most_frames: of a scene that are used, from its beginning.
    split: 'scene' keeps whole scenes for validation. 'window', as published,
      does so with single windows, nearly all frames of which are trained on.
    train_share: of scenes, or windows, that are trained on.
    num_workers: threads that read what comes next.
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
  """Windows side by side; positions are (x, y) as shares of the frame."""

  frames: UInt8[np.ndarray, 'b t h w 3']
  positions_unit: Float[np.ndarray, 'b t n 2']


class WindowBatches(NamedTuple):
  """A set of windows as batches, as many as an epoch has.

  Attributes:
    num_batches: of an epoch.
    draw: from the number of a batch, counted through all epochs.
  """

  num_batches: int
  draw: Callable[[int], WindowBatch]


def find_windows(
    config: PointDataConfig, windows: WindowConfig, seed: int
) -> tuple[list[PointWindow], list[PointWindow]]:
  """Returns the windows to train on and those to validate on.

  Points and split depend on the seed and the scenes alone. Raises ValueError or
  FileNotFoundError if there are no windows for either.
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
  """Returns batches of windows, in another order in each epoch with a seed.

  What is drawn depends on the number of the batch and the seed alone, so a
  resumed run draws what an uninterrupted one would have.
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
