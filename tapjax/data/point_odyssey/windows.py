"""Short windows of PointOdyssey, as the point transformer is trained on them.

A root is a folder of scenes, each with `frames/frame_000000.jpg` (or `.png`) or
with `rgbs/rgb_00000.jpg` as the data set was published, and with `anno.npz`.
Only the first frames of a scene are used, and the points of a window are drawn
once, from those that its first frame shows.

Positions are (x, y) as shares of the frame: the data set's pixels, divided by
width and height.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Literal, NamedTuple
import warnings

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax.data.point_odyssey.files import list_frames
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.files import read_annotations
from tapjax.geometry import Resolution
from tapjax.media.pictures import import_pillow

_CENTER = 0.5


@dataclasses.dataclass(frozen=True)
class WindowConfig:
  """Settings of windows.

  Attributes:
    num_frames: of a window.
    num_points: of a window; where fewer are visible, points that stay in the
      middle of the frame fill it up.
    resolution: (height, width) of its frames; the aspect ratio is not kept.
    most_frames: of a scene that are used, from its beginning.
  """

  num_frames: int = 8
  num_points: int = 8
  resolution: Resolution = (256, 256)
  most_frames: int = 20


class PointWindow(NamedTuple):
  """A window whose images are still on disk.

  Attributes:
    scene: its name.
    start: the first frame.
    frame_paths: of its images.
    positions: in the data set's pixels.
    visible: which of them can be seen.
  """

  scene: str
  start: int
  frame_paths: tuple[pathlib.Path, ...]
  positions: Float[np.ndarray, 't k 2']
  visible: Bool[np.ndarray, 't k']


class WindowExample(NamedTuple):
  """A window to train on; the first positions are what the network is told."""

  frames: UInt8[np.ndarray, 't h w 3']
  positions_unit: Float[np.ndarray, 't n 2']
  visible: Bool[np.ndarray, 't n']


def list_window_frames(scene: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Returns the images of a scene in order, in either layout."""
  frames = sorted((scene / 'frames').glob('frame_*.*'))
  return tuple(frames) or list_frames(scene, 'rgb')


def list_windows(
    root: pathlib.Path,
    config: WindowConfig,
    generator: np.random.Generator,
    scenes: Iterable[str] | None = None,
) -> list[PointWindow]:
  """Returns the windows of all scenes below a folder, or of those named.

  Scenes without images or without annotations that can be read are left out
  with a warning. Raises FileNotFoundError if no window is left.
  """
  if scenes is None:
    scenes = sorted(path.name for path in root.glob('*') if path.is_dir())
  windows: list[PointWindow] = []
  for name in scenes:
    frames = list_window_frames(root / name)
    try:
      if not frames:
        raise ValueError(f'{root / name} must have images in frames or rgbs')
      annotations = read_annotations(root / name)
    except ValueError as error:
      warnings.warn(f'left out: {error}', stacklevel=2)
      continue
    windows += cut_windows(name, frames, annotations, config, generator)
  if not windows:
    raise FileNotFoundError(
        f'there must be scenes of at least {config.num_frames} frames and with '
        f'visible points in {root}; found none - is it the folder of a split?'
    )
  return windows


def cut_windows(
    scene: str,
    frame_paths: Sequence[pathlib.Path],
    annotations: PointAnnotations,
    config: WindowConfig,
    generator: np.random.Generator,
) -> list[PointWindow]:
  """Returns a window for each frame of a scene where one can begin.

  Points are drawn from those that are visible on the first frame; those that
  are not finite in all of the window are left out.
  """
  length = config.num_frames
  num_frames = min(
      config.most_frames, len(frame_paths), len(annotations.positions)
  )
  windows = []
  for start in range(num_frames - length + 1):
    span = slice(start, start + length)
    finite = np.isfinite(annotations.positions[span]).all(axis=(0, 2))
    shown = np.flatnonzero(annotations.visible[start] & finite)
    if not len(shown):
      continue
    number = min(config.num_points, len(shown))
    rows = generator.choice(shown, number, replace=False)
    windows.append(
        make_window(scene, start, frame_paths[span], annotations, rows)
    )
  return windows


def make_window(
    scene: str,
    start: int,
    frame_paths: Sequence[pathlib.Path],
    annotations: PointAnnotations,
    rows: Int[np.ndarray, 'k'],
) -> PointWindow:
  """Returns the window of some images with the points of some rows."""
  span = slice(start, start + len(frame_paths))
  return PointWindow(
      scene,
      start,
      tuple(frame_paths),
      annotations.positions[span, rows],
      annotations.visible[span, rows],
  )


def split_windows(
    windows: Sequence[PointWindow],
    generator: np.random.Generator,
    by: Literal['scene', 'window'] = 'scene',
    share: float = 0.8,
) -> tuple[list[PointWindow], list[PointWindow]]:
  """Splits windows at random, to train on and to validate on.

  By scene, no scene is in both. By window, as published, nearly every frame is:
  windows overlap by all frames but one.
  """
  groups = [
      window.scene if by == 'scene' else index
      for index, window in enumerate(windows)
  ]
  unique = list(dict.fromkeys(groups))
  order = generator.permutation(len(unique))
  chosen = {unique[i] for i in order[: int(share * len(unique))]}
  parts: tuple[list[PointWindow], list[PointWindow]] = ([], [])
  for group, window in zip(groups, windows, strict=True):
    parts[group not in chosen].append(window)
  return parts


def read_window(window: PointWindow, config: WindowConfig) -> WindowExample:
  """Reads the images of a window and fills up its points.

  Needs Pillow, and raises ValueError for images that cannot be read.
  """
  pillow = import_pillow()
  height, width = config.resolution
  frames, sizes = [], set()
  for path in window.frame_paths:
    try:
      with pillow.open(path) as image:
        sizes.add(image.size)
        resized = image.convert('RGB').resize(
            (width, height), pillow.Resampling.BICUBIC
        )
        frames.append(np.asarray(resized))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError):
      raise ValueError(
          f'{path} is no image that can be read - is the file damaged?'
      ) from None
  if len(sizes) != 1:
    raise ValueError(
        f'frames of {window.scene} must all have one size; got {sorted(sizes)}'
    )
  length, number = window.visible.shape
  missing = config.num_points - number
  positions = np.full((length, config.num_points, 2), _CENTER, np.float32)
  positions[:, :number] = window.positions / np.asarray(sizes.pop(), np.float32)
  visible = np.pad(window.visible, ((0, 0), (0, missing)))
  return WindowExample(np.stack(frames), positions, visible)
