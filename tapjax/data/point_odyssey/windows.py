"""Short windows of PointOdyssey, for training the point transformer.

A root is a folder of scenes, each with `anno.npz` and with images
`frames/frame_000000.jpg` (or `.png`) or, as published, `rgbs/rgb_00000.jpg`.
Only the first frames of a scene are used, and the points of a window are drawn
once, from those visible on its first frame.

Positions are (x, y) in normalized coordinates: pixels of the data set, divided
by width and height.
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
    num_frames: frames per window.
    num_points: points per window; if fewer are visible, constant points in the
      middle of the frame are added.
    resolution: (height, width) of the frames; the aspect ratio is not kept.
    most_frames: number of frames used of a scene, from its beginning.
  """

  num_frames: int = 8
  num_points: int = 8
  resolution: Resolution = (256, 256)
  most_frames: int = 20


class PointWindow(NamedTuple):
  """A window with its images on disk.

  Attributes:
    scene: name of the scene.
    start: number of the first frame.
    frame_paths: paths of the images.
    positions: (x, y) in pixels of the data set.
    visible: mask of the visible positions.
  """

  scene: str
  start: int
  frame_paths: tuple[pathlib.Path, ...]
  positions: Float[np.ndarray, 't k 2']
  visible: Bool[np.ndarray, 't k']


class WindowExample(NamedTuple):
  """A training window; positions on the first frame are the queries."""

  frames: UInt8[np.ndarray, 't h w 3']
  positions_unit: Float[np.ndarray, 't n 2']
  visible: Bool[np.ndarray, 't n']


def list_window_frames(scene: pathlib.Path) -> tuple[pathlib.Path, ...]:
  """Returns the paths of the images of a scene, in either layout."""
  frames = sorted((scene / 'frames').glob('frame_*.*'))
  return tuple(frames) or list_frames(scene, 'rgb')


def list_windows(
    root: pathlib.Path,
    config: WindowConfig,
    generator: np.random.Generator,
    scenes: Iterable[str] | None = None,
) -> list[PointWindow]:
  """Returns the windows of all scenes below a folder, or of named scenes.

  Scenes without images or readable annotations are left out with a warning.
  Raises FileNotFoundError if no window is left.
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
  """Returns the windows of a scene, starting at every possible frame.

  Points are drawn from those visible on the first frame of a window and finite
  on all of its frames.
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
  """Returns the window of images from frame `start` on, with some points."""
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
  """Splits windows at random into training and validation.

  By scene, the sets have no scene in common. By window, as published, they have
  nearly all frames in common: windows overlap by all frames except one.

  Args:
    windows: to split.
    generator: of the random order.
    by: 'scene' or 'window'.
    share: fraction of scenes, or windows, for training.
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
  """Reads the images of a window, and pads its points to `num_points`.

  Needs Pillow. Raises ValueError for an unreadable image.
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
