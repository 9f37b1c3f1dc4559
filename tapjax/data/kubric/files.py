"""Readers of MOVi videos: MOVi-E, panning MOVi-E and MOVi-F.

The data sets are in the format of tensorflow-datasets: `movi_e/256x256` and
`movi_f/...` at gs://kubric-public/tfds, and `panning_movi_e/256x256` published
by LocoTrack. Only the features that tracks need are decoded.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from tapjax.data.kubric import tf_records
from tapjax.data.kubric.movi import MoviRecord


class MoviVideos:
  """The videos of a split, by index."""

  def __init__(self, root: str, name: str, split: str):
    """Opens a data set; see `tf_records.open_records`."""
    self._records = tf_records.open_records(root, name, split)
    self._origin = f'{root} ({name}, {split})'

  def __len__(self) -> int:
    return len(self._records)

  def read(self, index: int) -> MoviRecord:
    """Reads a video; ValueError for a damaged or foreign record."""
    features = self._records.read(index)
    try:
      return decode_movi(features)
    except ValueError as error:
      raise ValueError(f'{self._origin}: record {index}: {error}') from None


class FramesOnDemand:
  """Pictures `[t, h, w, c]`, decoded frame by frame on access.

  Tracks need normals and object coordinates only on query frames, one frame in
  four, and these pictures are the largest. They are indexed by arrays of
  frames, rows and columns, or sliced along time.
  """

  def __init__(self, files: Sequence[bytes], shape: tuple[int, ...], name: str):
    """Initializes from encoded pictures `[h, w, c]` of 16 bits.

    Args:
      files: encoded pictures, one for each frame.
      shape: (h, w, c) of a picture.
      name: of the feature, for messages.
    """
    self._files = list(files)
    self._size = shape
    self._name = name
    self._decoded: dict[int, np.ndarray] = {}

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of all frames, `[t, h, w, c]`."""
    return len(self._files), *self._size

  def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
    del copy  # The array is always new.
    frames = [self._get(frame) for frame in range(len(self._files))]
    return np.stack(frames).astype(dtype or np.uint16)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return FramesOnDemand(self._files[index], self._size, self._name)
    frames, rows, columns = np.broadcast_arrays(*index)
    values = np.zeros((*frames.shape, self._size[-1]), np.uint16)
    for frame in np.unique(frames):
      here = frames == frame
      values[here] = self._get(int(frame))[rows[here], columns[here]]
    return values

  def _get(self, frame: int) -> np.ndarray:
    if frame not in self._decoded:
      dtype = np.dtype(np.uint16)
      file = self._files[frame]
      picture = decode_pngs([file], dtype, self._size[-1], self._name)[0]
      if picture.shape != self._size:
        raise ValueError(
            f'{self._name} must be pictures {self._size}; got {picture.shape}'
        )
      self._decoded[frame] = picture
    return self._decoded[frame]


def decode_movi(features: Mapping[str, tf_records.Feature]) -> MoviRecord:
  """Decodes the features of a record; ValueError for malformed ones.

  Normals and object coordinates are decoded on demand; see `FramesOnDemand`.
  """

  def numbers(name: str) -> np.ndarray:
    return tf_records.get_numbers(features, name)

  files = tf_records.get_strings(features, 'video')
  video = decode_pngs(files, np.dtype(np.uint8), 3, 'video')
  num_frames = len(video)

  def pictures(name: str, kind: type, channels: int) -> np.ndarray:
    value = features.get(name)
    if isinstance(value, np.ndarray):  # Plain numbers.
      return value.reshape(*video.shape[:3], channels).astype(kind)
    files = tf_records.get_strings(features, name)
    return decode_pngs(files, np.dtype(kind), channels, name)

  def on_demand(name: str) -> Any:
    value = features.get(name)
    if isinstance(value, np.ndarray):
      return pictures(name, np.uint16, 3)
    files = tf_records.get_strings(features, name)
    return FramesOnDemand(files, video.shape[1:], name)

  record = MoviRecord(
      video=video,
      depth=pictures('depth', np.uint16, 1)[..., 0],
      depth_range=numbers('metadata/depth_range'),
      segmentations=pictures('segmentations', np.uint8, 1)[..., 0],
      normals=on_demand('normal'),
      object_coordinates=on_demand('object_coordinates'),
      boxes=numbers('instances/bboxes_3d').reshape(-1, num_frames, 8, 3),
      quaternions=numbers('instances/quaternions').reshape(-1, num_frames, 4),
      camera_positions=numbers('camera/positions').reshape(num_frames, 3),
      camera_quaternions=numbers('camera/quaternions').reshape(num_frames, 4),
      focal_length=float(numbers('camera/focal_length')[0]),
      sensor_width=float(numbers('camera/sensor_width')[0]),
  )
  shape = record.video.shape[:3]
  for name in ('depth', 'segmentations', 'normals', 'object_coordinates'):
    if getattr(record, name).shape[:3] != shape:
      raise ValueError(
          f'{name} must be [{", ".join(map(str, shape))}] as the video is; got '
          f'{getattr(record, name).shape}'
      )
  most = int(record.segmentations.max())
  if most > len(record.boxes) or len(record.boxes) != len(record.quaternions):
    raise ValueError(
        f'there must be a box and a turn for every one of {most} objects; got '
        f'{len(record.boxes)} and {len(record.quaternions)}'
    )
  return record


def decode_pngs(
    files: list[bytes], dtype: np.dtype, channels: int, name: str
) -> np.ndarray:
  """Decodes PNG files of one size, gray or RGB, of 8 or 16 bits.

  Raises ValueError for pictures of another type, or of several sizes.
  """
  cv2 = _import_opencv()
  pictures = []
  for file in files:
    picture = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
      raise ValueError(f'{name}: a picture cannot be decoded')
    if picture.ndim == 2:
      picture = picture[..., None]
    if picture.dtype != dtype or picture.shape[2] != channels:
      raise ValueError(
          f'{name} must be pictures of {dtype} with {channels} channels; got '
          f'{picture.dtype} with {picture.shape[2]}'
      )
    # OpenCV's order is blue, green, red.
    pictures.append(picture[..., ::-1])
  if not pictures or any(p.shape != pictures[0].shape for p in pictures):
    raise ValueError(f'{name} must be pictures of one size, at least one')
  return np.stack(pictures)


def _import_opencv() -> Any:
  try:
    import cv2
  except ImportError as error:
    raise ImportError(
        'videos of Kubric have pictures of 16 bits, which OpenCV reads and '
        "which is not installed - pip install 'tapjax[train]'"
    ) from error
  return cv2
