"""Files of MOVi videos."""

import numpy as np
import pytest

from tapjax.data.kubric.files import FramesOnDemand
from tapjax.data.kubric.files import MoviVideos
from tests.support import movi_writer


def test_what_is_written_is_read(movi, records):
  videos = MoviVideos(str(movi), movi_writer.NAME, 'train')
  assert len(videos) == 5
  # Shards hold every other record.
  for index, expected in zip(range(5), (0, 2, 4, 1, 3), strict=True):
    record = videos.read(index)
    for name in record._fields:
      ours, theirs = getattr(record, name), getattr(records[expected], name)
      np.testing.assert_array_equal(
          ours,
          np.asarray(theirs, np.float32)
          if name.startswith('camera')
          else theirs,
      )
  assert len(MoviVideos(str(movi), movi_writer.NAME, 'validation')) == 2
  # The folder with the shards itself will do as well.
  assert (
      len(MoviVideos(str(movi / movi_writer.NAME / '1.0.0'), 'any', 'train'))
      == 5
  )


def test_frames_are_decoded_when_they_are_read(movi, records):
  normals = MoviVideos(str(movi), movi_writer.NAME, 'train').read(0).normals
  assert normals.shape == (6, 32, 32, 3)
  frames, rows, columns = np.asarray([[4, 4, 1], [0, 31, 7], [5, 9, 31]])
  expected = records[0].normals
  np.testing.assert_array_equal(
      normals[frames, rows, columns], expected[frames, rows, columns]
  )
  np.testing.assert_array_equal(
      normals[frames[:, None], rows[:, None], columns[None]],
      expected[frames[:, None], rows[:, None], columns[None]],
  )
  assert sorted(normals._decoded) == [1, 4]
  np.testing.assert_array_equal(normals[:3], expected[:3])
  wrong = FramesOnDemand([b'nothing'], (32, 32, 3), 'normal')
  with pytest.raises(ValueError, match='normal: a picture cannot be decoded'):
    wrong[np.asarray([0]), np.asarray([0]), np.asarray([0])]


def test_array_record(records, tmp_path):
  module = pytest.importorskip('array_record.python.array_record_module')
  folder = tmp_path / 'panning_movi_e' / '32x32' / '1.0.0'
  folder.mkdir(parents=True)
  path = folder / 'panning_movi_e-train.array_record-00000-of-00001'
  writer = module.ArrayRecordWriter(str(path), 'group_size:1')
  for record in records[:3]:
    features = movi_writer.make_features(record)
    writer.write(movi_writer.encode_example(features))
  writer.close()
  videos = MoviVideos(str(tmp_path), 'panning_movi_e/32x32', 'train')
  assert len(videos) == 3
  np.testing.assert_array_equal(videos.read(1).depth, records[1].depth)
