"""Track files: content, and atomic writing."""

import csv
import errno
import os
import tempfile

import numpy as np
import pytest

from tapjax.media import track_files
from tapjax.media import video as video_files
from tapjax.types import Tracks

QUERIES = np.asarray([[0, 4, 5], [1, 20.5, 30.25], [2, 0, 40]], np.float32)
TIMES = np.asarray([0, 0.5, 0.75, 2])


def make_tracks(num_queries=3, num_frames=4, *, uncertainty=True):
  generator = np.random.default_rng(0)
  shape = (num_queries, num_frames)
  logits = generator.normal(size=(2, *shape)).astype(np.float32)
  return Tracks(
      generator.uniform(-5, 45, (*shape, 2)).astype(np.float32),
      logits[0] < 0,
      logits[0],
      logits[1] if uncertainty else None,
  )


@pytest.mark.parametrize('uncertainty', [True, False])
def test_arrays_round_trip(tmp_path, uncertainty):
  tracks = make_tracks(uncertainty=uncertainty)
  path = tmp_path / 'tracks.npz'
  track_files.write_arrays(path, tracks, QUERIES, 30000 / 1001, 'tapir')
  with np.load(path, allow_pickle=False) as file:
    read = dict(file)
  assert str(read.pop('model')) == 'tapir'
  assert float(read.pop('frame_rate')) == 30000 / 1001
  np.testing.assert_allclose(read.pop('times'), np.arange(4) * 1001 / 30000)
  np.testing.assert_array_equal(read.pop('query_points'), QUERIES)
  expected = {k: v for k, v in tracks._asdict().items() if v is not None}
  expected['confidence'] = tracks.confidence
  assert read.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(read[name], array)
    assert read[name].dtype == array.dtype
    assert np.isfinite(read[name]).all()


def test_table_has_a_line_per_query_and_frame(tmp_path):
  tracks = make_tracks()
  track_files.write_table(tmp_path / 'tracks.csv', tracks, TIMES)
  with (tmp_path / 'tracks.csv').open(newline='') as file:
    header, *rows = csv.reader(file)
  assert header == ['query', 'frame', 'x', 'y', 'visible', 'times']
  table = np.asarray(rows, np.float64).reshape(3, 4, 6)
  np.testing.assert_array_equal(
      table[..., 0], np.arange(3)[:, None].repeat(4, 1)
  )
  np.testing.assert_array_equal(table[..., 1], np.arange(4)[None].repeat(3, 0))
  np.testing.assert_allclose(table[..., 2:4], tracks.positions, atol=6e-4)
  np.testing.assert_array_equal(table[..., 4], tracks.visible)
  np.testing.assert_array_equal(table[..., 5], TIMES[None].repeat(3, 0))


def test_overlay_is_the_video_with_points(tmp_path):
  frames = np.full((4, 40, 45, 3), 90, np.uint8)
  tracks = make_tracks()._replace(
      positions=np.full((3, 4, 2), 20, np.float32),
      visible=np.ones((3, 4), bool),
  )
  path = tmp_path / 'tracks.mp4'
  track_files.write_overlay(path, [frames[:3], frames[3:]], tracks, 12.5)
  with video_files.open_video(path) as reader:
    assert reader.info == (40, 45, 12.5, 4)
    drawn = np.stack(list(reader)).astype(int)
  changed = np.abs(drawn - 90).max(axis=-1) > 30
  assert changed[:, 20, 20].all()
  assert not changed[:, :10].any()


def test_no_queries_make_whole_files(tmp_path):
  tracks = make_tracks(0)
  frames = np.full((4, 8, 8, 3), 90, np.uint8)
  track_files.write_arrays(
      tmp_path / 'a.npz', tracks, np.zeros((0, 3), np.float32), 25.0, 'tapir'
  )
  track_files.write_table(tmp_path / 'a.csv', tracks, TIMES)
  track_files.write_overlay(tmp_path / 'a.mp4', [frames], tracks, 25.0)
  with np.load(tmp_path / 'a.npz') as file:
    assert file['positions'].shape == (0, 4, 2)
  assert (tmp_path / 'a.csv').read_text() == 'query,frame,x,y,visible,times\n'
  assert video_files.read_video(tmp_path / 'a.mp4').shape == frames.shape


def fill_disk(*args, **kwargs):
  del args, kwargs
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize('name', ['tracks.npz', 'tracks.csv', 'tracks.mp4'])
def test_failing_writes_leave_older_files(tmp_path, monkeypatch, name):
  path = tmp_path / name
  path.write_bytes(b'older')
  monkeypatch.setattr(np, 'savez_compressed', fill_disk)
  monkeypatch.setattr(csv, 'writer', fill_disk)

  def stop():
    yield np.zeros((1, 8, 8, 3), np.uint8)
    fill_disk()

  write = {
      '.npz': lambda: track_files.write_arrays(
          path, tracks, QUERIES, 25.0, 'tapir'
      ),
      '.csv': lambda: track_files.write_table(path, tracks, TIMES),
      '.mp4': lambda: track_files.write_overlay(path, stop(), tracks, 25.0),
  }[path.suffix]
  tracks = make_tracks()
  with pytest.raises(OSError, match='No space left'):
    write()
  assert list(tmp_path.iterdir()) == [path]
  assert path.read_bytes() == b'older'


@pytest.mark.parametrize('link', [False, True])
def test_the_video_itself_is_no_output(tmp_path, link):
  video = tmp_path / 'tracks.mp4'
  video.write_bytes(b'video')
  name = video
  if link:
    name = tmp_path / 'link.mp4'
    name.symlink_to(video)
  with (
      pytest.raises(ValueError, match='output must not be the video that is'),
      track_files.make_folder(tmp_path, ['tracks.mp4'], str(name)),
  ):
    pass
  assert video.read_bytes() == b'video'
  with track_files.make_folder(tmp_path, ['other.mp4'], str(name)):
    pass


def test_folders_are_made_and_kept(tmp_path):
  folder = tmp_path / 'a' / 'b'
  with track_files.make_folder(folder, ['tracks.npz']):
    assert list(folder.iterdir()) == []
  assert folder.is_dir()
  with track_files.make_folder(folder, ['tracks.npz']):
    pass


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError])
def test_new_folders_go_when_the_work_fails(tmp_path, error):
  (tmp_path / 'a').mkdir()
  with (
      pytest.raises(error),
      track_files.make_folder(tmp_path / 'a' / 'b' / 'c'),
  ):
    raise error
  assert list(tmp_path.rglob('*')) == [tmp_path / 'a']


def test_folders_stay_where_something_was_written(tmp_path):
  folder = tmp_path / 'a' / 'b'
  with pytest.raises(OSError, match='No space'), track_files.make_folder(
      folder
  ):
    fill_disk((folder / 'done').touch())
  assert (folder / 'done').exists()


def test_folders_that_cannot_be(tmp_path, monkeypatch):
  file = tmp_path / 'file'
  file.touch()
  (tmp_path / 'd' / 'tracks.mp4').mkdir(parents=True)
  before = sorted(tmp_path.rglob('*'))

  def refuse(path, message):
    with (
        pytest.raises(ValueError, match=message),
        track_files.make_folder(path, ['tracks.npz', 'tracks.mp4']),
    ):
      pytest.fail('the folder was accepted')
    assert sorted(tmp_path.rglob('*')) == before

  refuse(file, 'output must be a folder; .*file is a file')
  refuse(file / 'x', 'Not a directory')
  refuse(tmp_path / ('x' * 300), 'name too long')
  refuse(tmp_path / 'd', r'tracks\.mp4 is a folder where a file belongs')
  # A folder without permission, which the superuser would not notice.
  monkeypatch.setattr(tempfile, 'TemporaryFile', fill_disk)
  refuse(tmp_path / 'new' / 'er', 'that can be written; .*choose another one')
