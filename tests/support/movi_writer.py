"""Writes generated videos in the formats that Kubric's come in."""

import json
import struct

import cv2
import numpy as np

from tapjax.data.kubric.query_choices import CropWindow
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.data.kubric.tracks import make_tracks
from tests.support.movi_scenes import make_record
from tests.support.movi_scenes import MoviSceneConfig

SMALL = MoviSceneConfig(num_frames=6, resolution=(32, 32), num_objects=3)

# Name of small videos, as in the folders of MOVi.
NAME = 'movi_e/32x32'


def make_records(count, config=SMALL):
  return [make_record(np.random.default_rng(i), config) for i in range(count)]


def write_movi(root, name, split, records, num_shards=2):
  """Writes records as tensorflow-datasets does, with a table of its own."""
  folder = root / name / '1.0.0'
  folder.mkdir(parents=True, exist_ok=True)
  title = name.split('/')[0]
  for shard in range(num_shards):
    path = folder / f'{title}-{split}.tfrecord-{shard:05}-of-{num_shards:05}'
    with path.open('wb') as file:
      for record in records[shard::num_shards]:
        file.write(frame_record(encode_example(make_features(record))))
  (folder / 'dataset_info.json').write_text(json.dumps({'name': title}))
  return root


def make_features(record):
  return {
      'video': [encode_png(frame) for frame in record.video],
      'depth': [encode_png(frame) for frame in record.depth],
      'segmentations': [encode_png(f) for f in record.segmentations],
      'normal': [encode_png(frame) for frame in record.normals],
      'object_coordinates': [encode_png(f) for f in record.object_coordinates],
      'metadata/depth_range': record.depth_range,
      'metadata/num_frames': np.asarray([len(record.video)]),
      'instances/bboxes_3d': record.boxes,
      'instances/quaternions': record.quaternions,
      'camera/positions': record.camera_positions,
      'camera/quaternions': record.camera_quaternions,
      'camera/focal_length': np.asarray([record.focal_length]),
      'camera/sensor_width': np.asarray([record.sensor_width]),
  }


def encode_png(picture):
  done, data = cv2.imencode(
      '.png', picture[..., ::-1] if picture.ndim == 3 else picture
  )
  assert done
  return data.tobytes()


def encode_example(features):
  """A `tf.train.Example` message."""
  entries = b''
  for name, value in features.items():
    if isinstance(value, list):
      kind, content = 1, b''.join(field(1, item) for item in value)
    elif np.issubdtype(value.dtype, np.integer):
      packed = b''.join(varint(int(number)) for number in value.ravel())
      kind, content = 3, field(1, packed)
    else:
      kind, content = 2, field(1, value.astype('<f4').tobytes())
    feature = field(kind, content)
    entries += field(1, field(1, name.encode()) + field(2, feature))
  return field(1, entries)


def field(number, data):
  return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number):
  data = b''
  while number > 127:
    data += bytes([number & 127 | 128])
    number >>= 7
  return data + bytes([number])


def frame_record(data):
  # Checksums are there, and not read.
  return struct.pack('<QI', len(data), 0) + data + struct.pack('<I', 0)


def write_cotracker(root, records, num_points=40):
  """Writes records as CoTracker does: pictures, and finished tracks."""
  for index, record in enumerate(records):
    folder = root / f'{index:04}'
    (folder / 'frames').mkdir(parents=True)
    for number, frame in enumerate(record.video):
      path = folder / 'frames' / f'{number:03}.png'
      path.write_bytes(encode_png(frame))
    height, width = record.video.shape[1:3]
    tracks = make_tracks(
        record,
        CropWindow(0, 0, height, width),
        (height, width),
        MoviTrackConfig(num_points=num_points, stride=1),
        np.random.default_rng(index),
    )
    # Their pixels' centers are integers, and True says occluded.
    annotation = {
        'coords': tracks.target_points - 0.5,
        'visibility': tracks.occluded,
    }
    np.save(folder / f'{index:04}.npy', annotation, allow_pickle=True)
  return root
