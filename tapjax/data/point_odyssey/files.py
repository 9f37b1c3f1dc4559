"""PointOdyssey: long synthetic videos with surface tracks.

A split is a folder of scenes, each with frames `rgbs/rgb_00000.jpg`, segments
`masks/mask_00000.png` and tracks in `anno.npz`. Frames are numbered from 0.

Positions are (x, y) in pixels, with (0, 0) at the center of the upper-left one,
as published; raster coordinates are half a pixel larger.
"""

import pathlib
from typing import NamedTuple
import zipfile

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Shaped
import numpy as np

from tapjax.data.benchmarks.point_tracks import find_inside
from tapjax.data.benchmarks.point_tracks import limit_positions
from tapjax.data.benchmarks.point_tracks import PointSequence
from tapjax.data.benchmarks.point_tracks import PointTracks
from tapjax.geometry import Resolution

RESOLUTION: Resolution = (540, 960)
# Largest number of tracks per scene in the published test.
NUM_POINTS = 256

_CODE_VISIBLE = 1
_CODE_INVALID = 2
# In the full-sequence test: least number of visible frames of a track, largest
# step between frames and largest distance to the frame, both in pixels.
_LEAST_FRAMES = 8
_LONGEST_STEP = 512.0
_MARGIN = 32.0


class PointAnnotations(NamedTuple):
  """Tracks of a scene, as stored.

  An occluded point is valid if its position is known. Positions of invalid
  points are arbitrary, possibly NaN or infinite.
  """

  positions: Float[np.ndarray, 't m 2']
  visible: Bool[np.ndarray, 't m']
  valid: Bool[np.ndarray, 't m']


def list_scenes(split: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders of scenes with annotations, by name.

  Raises FileNotFoundError if there is none.
  """
  scenes = sorted(file.parent for file in split.glob('*/anno.npz'))
  if not scenes:
    raise FileNotFoundError(
        f'there is no scene with an anno.npz in {split} - is it the folder of '
        'one split, such as PointOdyssey/test?'
    )
  return scenes


def list_frames(scene: pathlib.Path, kind: str) -> tuple[pathlib.Path, ...]:
  """Returns the images of a scene in order; `kind` is 'rgb' or 'mask'."""
  return tuple(sorted((scene / f'{kind}s').glob(f'{kind}_*.*')))


def read_annotations(scene: pathlib.Path) -> PointAnnotations:
  """Reads `anno.npz` of a scene, of version 1.2 or earlier.

  Without `valids` all positions are valid. Raises ValueError for a malformed
  file.
  """
  path = scene / 'anno.npz'
  try:
    with path.open('rb') as opened, np.load(opened) as file:
      names = file.files
      positions = np.asarray(file['trajs_2d'])
      if 'visibilities' in names:
        visible, valid = decode_visibilities(np.asarray(file['visibilities']))
      else:
        visible = np.asarray(file['visibs']).astype(bool)
        valid = np.ones_like(visible)
        if 'valids' in names:
          valid = np.asarray(file['valids']).astype(bool)
  except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
        f'{path} must hold trajs_2d, visibs and valids as PointOdyssey has '
        f'them; it cannot be read: {error}'
    ) from None
  if (
      positions.ndim != 3
      or positions.shape[-1] != 2
      or not (positions.shape[:2] == visible.shape == valid.shape)
  ):
    raise ValueError(
        f'{path} must hold trajs_2d [t, n, 2], visibs [t, n] and valids '
        f'[t, n]; got {positions.shape}, {visible.shape} and {valid.shape}'
    )
  return PointAnnotations(positions, visible, valid)


def decode_visibilities(
    codes: Shaped[np.ndarray, 't m'],
) -> tuple[Bool[np.ndarray, 't m'], Bool[np.ndarray, 't m']]:
  """Returns masks of visible and valid points, of files before version 1.2.

  The codes are 0 for hidden, 1 for visible and 2 or more for invalid.
  """
  return codes == _CODE_VISIBLE, codes < _CODE_INVALID


def read_sequence(
    scene: pathlib.Path,
    num_points: int = NUM_POINTS,
    resolution: Resolution = RESOLUTION,
) -> PointSequence:
  """Reads a scene as in the published test; frames stay on disk.

  `resolution` is the size of the frames, by default that of PointOdyssey.
  Raises ValueError if no track is left, or if frames are missing.
  """
  tracks = select_full_tracks(read_annotations(scene), resolution, num_points)
  frames = list_frames(scene, 'rgb')
  num_frames = tracks.positions.shape[1]
  if len(frames) != num_frames:
    raise ValueError(
        f'{scene} must have an image for each of {num_frames} annotated frames '
        f'in rgbs; it has {len(frames)} - is the download complete?'
    )
  if not len(tracks.positions):
    raise ValueError(f'{scene} must have a track to follow; none is left')
  return PointSequence(scene.name, frames, tracks)


def select_full_tracks(
    annotations: PointAnnotations,
    resolution: Resolution = RESOLUTION,
    num_points: int = NUM_POINTS,
) -> PointTracks:
  """Selects tracks of a whole scene as in the published test.

  Points within a pixel of the border, or beyond, are neither visible nor valid.
  Tracks must be visible and valid on the first frame and on eight frames in
  total. Of more than `num_points` tracks, evenly spaced ones are kept.
  """
  height, width = resolution
  tracks = clean_annotations(annotations)
  inside = find_inside(
      tracks.positions, (1.0, 1.0), (width - 2.0, height - 2.0)
  )
  tracks = tracks._replace(
      visible=tracks.visible & inside, valid=tracks.valid & inside
  )
  good = tracks.visible & tracks.valid
  steps = np.linalg.norm(np.diff(tracks.positions, axis=1), axis=-1)
  kept = good[:, 0] & (good.sum(axis=1) >= _LEAST_FRAMES)
  kept &= np.max(steps, axis=1, initial=0) < _LONGEST_STEP
  tracks = limit_positions(tracks.take(kept), resolution, _MARGIN)
  total = len(tracks.positions)
  if total <= num_points:
    return tracks
  return tracks.take(np.linspace(0, total - 1, num_points).astype(int))


def clean_annotations(annotations: PointAnnotations) -> PointTracks:
  """Returns one row for each track, with zeros for positions not finite.

  Such points are neither visible nor valid.
  """
  positions, visible, valid = (array.swapaxes(0, 1) for array in annotations)
  finite = np.isfinite(positions)
  is_known = finite.all(axis=-1)
  return PointTracks(
      np.where(finite, positions, 0), visible & is_known, valid & is_known
  )
