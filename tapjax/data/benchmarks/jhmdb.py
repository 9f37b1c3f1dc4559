"""JHMDB: joints of people as point tracks.

Jhuang et al., "Towards understanding action recognition" (2013). The folder has
the published layout: `splits`, `joint_positions` and `Rename_Images`. All
joints on the first frame are queries; joints outside of it do not count.
"""

from collections.abc import Iterator
import functools
import pathlib

from jaxtyping import Float
import numpy as np

from tapjax.data.labeled import AnnotatedVideo
from tapjax.data.labeled import decode_images
from tapjax.data.labeled import Entry
from tapjax.data.labeled import Source
from tapjax.geometry import Resolution

NUM_JOINTS = 15
_TEST = '2'


def open_jhmdb(path: pathlib.Path) -> Source:
  """Opens the test videos of the first split.

  Videos without a file of joints are listed as missing. All joints are marked
  visible, and `points_unit` includes positions outside of the frame.
  """
  splits = sorted((path / 'splits').glob('*_test_split1.txt'))
  if not splits:
    raise FileNotFoundError(
        f'{path} must hold JHMDB with splits/<action>_test_split1.txt; there is'
        ' none - name the folder above splits'
    )
  videos = []
  for split in splits:
    action = split.name.removesuffix('_test_split1.txt')
    for number, line in enumerate(split.read_text().splitlines(), start=1):
      fields = line.split()
      if len(fields) != 2:
        if not fields:
          continue
        raise ValueError(
            f'{split}: line {number} must be a video and 1 or 2; got {line!r}'
        )
      if fields[1] == _TEST:
        videos.append(f'{action}/{fields[0].removesuffix(".avi")}')
  missing = [
      name for name in videos if not _get_joint_file(path, name).exists()
  ]

  def list_entries() -> Iterator[Entry]:
    for name in videos:
      if name not in missing:
        yield Entry(name, None, functools.partial(_read, path, name))

  return Source(list_entries, tuple(missing))


def get_joint_queries(
    joints: Float[np.ndarray, 'j t 2'],
) -> Float[np.ndarray, 'j 3']:
  """Returns queries (0, y, x) of joints (x, y), including those outside."""
  first = joints[:, 0]
  return np.concatenate([np.zeros((len(first), 1)), first[:, ::-1]], axis=-1)


def find_joints_inside(
    joints: Float[np.ndarray, 'j t 2'], resolution: Resolution
) -> np.ndarray:
  """Returns a mask of the joints inside of the first frame."""
  limit = np.asarray([[resolution[1], resolution[0]]])
  inside = (joints[:, 0] >= 0) & (joints[:, 0] < limit)
  return np.all(inside, axis=-1)


def _get_joint_file(path: pathlib.Path, name: str) -> pathlib.Path:
  return path / 'joint_positions' / name / 'joint_positions.mat'


def _read(path: pathlib.Path, name: str) -> AnnotatedVideo:
  import scipy.io  # Comes with JAX; slow to import.

  file = _get_joint_file(path, name)
  try:
    joints = scipy.io.loadmat(file, variable_names=['pos_img'])['pos_img']
  except (KeyError, ValueError, TypeError, NotImplementedError) as error:
    raise ValueError(
        f'{file} must be a MAT file with pos_img; it cannot be read ({error})'
    ) from None
  if joints.ndim != 3 or joints.shape[:2] != (2, NUM_JOINTS):
    raise ValueError(
        f'{file}: pos_img must be [2, {NUM_JOINTS}, t]; got {joints.shape}'
    )
  joints = np.moveaxis(joints, 0, -1)
  pictures = sorted((path / 'Rename_Images' / name).glob('*.png'))
  if len(pictures) < joints.shape[1]:
    raise ValueError(
        f'{name} must have a picture for each of {joints.shape[1]} frames with '
        f'joints; there are {len(pictures)}'
    )
  used = [picture.read_bytes() for picture in pictures[: joints.shape[1]]]
  frames = decode_images(used, name)
  size = np.asarray(frames.shape[2:0:-1], np.float64)
  return AnnotatedVideo(
      name, frames, joints / size, np.zeros(joints.shape[:2], bool)
  )
