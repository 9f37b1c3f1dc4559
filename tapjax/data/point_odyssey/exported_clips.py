"""Augmented training clips in the exported layout of PIPs++.

ROOT/000000/rgb.mp4      frames, H.264, 24 per second
ROOT/000000/track.npz    `track_g` [t, n, 4]: x, y, visible and valid

A clip is a folder named by its number; rejected clips have none. Positions are
in pixels, with (0, 0) at the center of the upper-left one.
"""

import pathlib
import re
import secrets
import shutil
import zipfile

from jaxtyping import Float
import numpy as np

from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.data.point_odyssey.clips import ClipConfig
from tapjax.data.point_odyssey.clips import TrainingClip
from tapjax.files import write_atomically
from tapjax.media import video as video_files

VIDEO = 'rgb.mp4'
TRACKS = 'track.npz'
_FRAME_RATE = 24
# Constant rate factor of x264.
_QUALITY = 20
_NAME = re.compile(r'\d{6,}')


def get_folder(root: pathlib.Path, index: int) -> pathlib.Path:
  """Returns the folder of the clip with an index."""
  return root / f'{index:06}'


def list_exported_clips(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of complete clips, by number."""
  if not root.is_dir():
    return []
  return sorted(
      folder
      for folder in root.iterdir()
      if _NAME.fullmatch(folder.name)
      and all((folder / name).is_file() for name in (VIDEO, TRACKS))
  )


def remove_unfinished_clips(root: pathlib.Path) -> None:
  """Removes incomplete folders of killed processes."""
  for folder in root.glob('.*.part'):
    shutil.rmtree(folder, ignore_errors=True)


def write_clip(folder: pathlib.Path, clip: TrainingClip) -> None:
  """Writes a clip into a new folder, atomically.

  The bytes depend on the clip alone. Raises OSError if writing fails.
  """
  part = folder.with_name(f'.{folder.name}.{secrets.token_hex(4)}.part')
  part.mkdir()
  try:
    # The output of x264 depends on the number of threads.
    video_files.write_video(
        part / VIDEO,
        clip.frames,
        _FRAME_RATE,
        quality=_QUALITY,
        num_threads=1,
    )
    with write_atomically(part / TRACKS) as file:
      np.savez(file, track_g=_pack(clip.tracks))
    try:
      part.rename(folder)
    except OSError:
      # Another process may have written the same clip.
      if not folder.is_dir():
        raise
  finally:
    shutil.rmtree(part, ignore_errors=True)


def read_exported_clip(
    folder: pathlib.Path, config: ClipConfig, generator: np.random.Generator
) -> TrainingClip:
  """Reads a clip, with `config.num_points` of its tracks, at random.

  Raises ValueError for a damaged clip, or one of other settings.
  """
  frames = video_files.read_video(folder / VIDEO)
  tracks = _read_tracks(folder / TRACKS)
  expected = (config.num_frames, *config.crop)
  if frames.shape[:3] != expected or tracks.valid.shape[1] != len(frames):
    raise ValueError(
        f'{folder} must have {config.num_frames} frames of '
        f'{config.crop[0]}x{config.crop[1]}; got {frames.shape} and tracks of '
        f'{tracks.valid.shape[1]} frames - were clips exported with other '
        'settings?'
    )
  total = len(tracks.positions)
  if total < config.num_points:
    raise ValueError(
        f'{folder} must have {config.num_points} tracks; it has {total} - '
        f'--set data.clips.num_points={total}'
    )
  if total > config.num_points:
    rows = generator.choice(total, config.num_points, replace=False)
    tracks = tracks.take(rows)
  return TrainingClip(frames, tracks)


def _pack(tracks: PointTracks) -> Float[np.ndarray, 't n 4']:
  x, y = np.moveaxis(tracks.positions, -1, 0)
  packed = np.stack([x, y, tracks.visible, tracks.valid], axis=-1)
  return packed.swapaxes(0, 1).astype(np.float32)


def _read_tracks(path: pathlib.Path) -> PointTracks:
  try:
    with path.open('rb') as opened, np.load(opened) as file:
      packed = np.asarray(file['track_g'])
  except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
        f'{path} must hold track_g [t, n, 4]; it cannot be read: {error}'
    ) from None
  if packed.ndim != 3 or packed.shape[-1] != 4 or packed.dtype.kind != 'f':
    raise ValueError(
        f'{path} must hold track_g [t, n, 4] of floats; got {packed.dtype} '
        f'{packed.shape}'
    )
  packed = packed.swapaxes(0, 1)
  return PointTracks(packed[..., :2], packed[..., 2] > 0, packed[..., 3] > 0)
