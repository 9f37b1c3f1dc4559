"""Data in CoTracker's formats and conventions.

They differ from those of the benchmarks: normalized coordinates are multiplied
by (width - 1, height - 1), as if they spanned the centers of the outermost
pixels, and colors are 0 to 255.
"""

import pathlib
from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import checkpoints
from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import decode_images
from tapjax.data.queries import sample_queries
from tapjax.geometry import Resolution

_MAX_BYTES = 4 << 30
# Tracks farther from the center of the frame, in pixels, are dropped.
_FARTHEST = 1000.0


class CoTrackerClip(NamedTuple):
  """A clip in CoTracker's conventions.

  The video is float32 in 0 to 255. Query points are (t, y, x), trajectories
  (x, y), in pixels of the module's convention.
  """

  video: Float[np.ndarray, 't 3 h w']
  trajectory: Float[np.ndarray, 't n 2']
  visibility: Bool[np.ndarray, 't n']
  query_points: Float[np.ndarray, 'n 3']


class KubricSequence(NamedTuple):
  """A sequence of MOVi-F with CoTracker's tracks (x, y) in pixels.

  Points outside of the frame are not visible.
  """

  frames: UInt8[np.ndarray, 't h w 3']
  points: Float[np.ndarray, 'n t 2']
  visible: Bool[np.ndarray, 'n t']


def make_cotracker_clip(
    video: AnnotatedVideo, resolution: Resolution | None, query_mode: str
) -> CoTrackerClip:
  """Converts a benchmark video to CoTracker's conventions."""
  resized = video.resize(resolution)
  height, width = resized.frames.shape[1:3]
  points = resized.points_unit * np.asarray([width - 1, height - 1])
  queries = sample_queries(points, resized.occluded, query_mode)
  return CoTrackerClip(
      video=resized.frames.transpose(0, 3, 1, 2).astype(np.float32),
      trajectory=queries.target_points.swapaxes(0, 1).astype(np.float32),
      visibility=~queries.occluded.T,
      query_points=queries.query_points,
  )


def list_kubric_sequences(root: str) -> list[pathlib.Path]:
  """Returns the folders `SEQUENCE` with `SEQUENCE.npy`, in order.

  Raises FileNotFoundError if there is none.
  """
  folder = pathlib.Path(root)
  found = sorted(
      p.parent for p in folder.glob('*/*.npy') if p.stem == p.parent.name
  )
  if not found:
    raise FileNotFoundError(
        f"{root} must hold folders of CoTracker's Kubric data, such as "
        '0000/0000.npy beside 0000/frames; there are none'
    )
  return found


def read_kubric_sequence(folder: pathlib.Path) -> KubricSequence:
  """Reads `<sequence>/<sequence>.npy` and the images of `frames` beside it.

  Raises ValueError for a malformed file.
  """
  file = folder / f'{folder.name}.npy'
  root = checkpoints.read_npy_object(file, max_bytes=_MAX_BYTES)
  checkpoints.refuse_placeholders(root, str(file), 'the annotation')
  if not isinstance(root, dict) or not {'coords', 'visibility'} <= root.keys():
    raise ValueError(
        f'{file} must hold a dict with coords and visibility - is it a file of '
        "CoTracker's Kubric data?"
    )
  pictures = sorted((folder / 'frames').iterdir())
  frames = decode_images([p.read_bytes() for p in pictures], str(folder))
  points = np.asarray(root['coords'], np.float32)
  # Despite its name the field is true for occluded points.
  occluded = np.asarray(root['visibility'], bool)
  if occluded.shape != points.shape[:2] or points.shape[1:] != (
      len(frames),
      2,
  ):
    raise ValueError(
        f'{file}: coords must be [n, {len(frames)}, 2] and visibility '
        f'[n, {len(frames)}], as there are {len(frames)} images; got '
        f'{points.shape} and {occluded.shape}'
    )
  limit = np.asarray(frames.shape[2:0:-1])[None, None] - 1
  inside = ((points >= 0) & (points <= limit)).all(axis=-1)
  return KubricSequence(frames, points, ~occluded & inside)


def choose_kubric_rows(
    sequence: KubricSequence,
    num_tracks: int,
    generator: np.random.Generator,
    num_frames: int | None = None,
) -> Int[np.ndarray, 'k'] | None:
  """Draws indices of training points; None if the sequence has too few.

  Candidates are the points visible on the first frame and those visible on the
  middle one; a point visible on both may be drawn twice.
  """
  length = num_frames or len(sequence.frames)
  points = sequence.points[:, :length]
  visible = sequence.visible[:, :length]
  middle = length // 2
  candidates = np.concatenate(
      [np.flatnonzero(visible[:, 0]), np.flatnonzero(visible[:, middle])]
  )
  center = np.asarray(sequence.frames.shape[2:0:-1]) / 2
  far = np.abs(points - center[None, None]).max(axis=(1, 2)) > _FARTHEST
  candidates = candidates[~far[candidates]]
  if len(candidates) < num_tracks:
    return None
  return generator.permutation(candidates)[:num_tracks]


def choose_kubric_tracks(
    sequence: KubricSequence,
    num_tracks: int,
    generator: np.random.Generator,
    num_frames: int | None = None,
) -> CoTrackerClip | None:
  """Returns the tracks of `choose_kubric_rows` in CoTracker's conventions."""
  chosen = choose_kubric_rows(sequence, num_tracks, generator, num_frames)
  if chosen is None:
    return None
  length = num_frames or len(sequence.frames)
  points = sequence.points[:, :length]
  visible = sequence.visible[:, :length]
  frames = np.argmax(visible[chosen], axis=1)
  own = points[chosen, frames].astype(np.float64)
  return CoTrackerClip(
      video=sequence.frames[:length].transpose(0, 3, 1, 2).astype(np.float32),
      trajectory=points[chosen].swapaxes(0, 1),
      visibility=visible[chosen].T,
      query_points=np.stack([frames, own[:, 1], own[:, 0]], axis=-1),
  )
