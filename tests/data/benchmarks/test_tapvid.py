"""Benchmark files, against tapvid_loaders outputs of the published readers."""

import functools
import pathlib
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from tapjax.data.benchmarks import jhmdb
from tapjax.data.benchmarks import point_tables
from tapjax.data.benchmarks import tapvid
from tapjax.data.queries import sample_queries
from tests.support.videos_with_truth import read_all

READERS = {
    'davis': (tapvid.open_davis, 'tapvid_davis.pkl'),
    'rgb_stacking': (tapvid.open_rgb_stacking, 'tapvid_rgb_stacking.pkl'),
    'robotap/split0': (
        functools.partial(tapvid.open_robotap, splits=[0]),
        'robotap',
    ),
    'robotap/split1': (
        functools.partial(tapvid.open_robotap, splits=[1]),
        'robotap',
    ),
    'kinetics': (tapvid.open_kinetics, 'tapvid_kinetics'),
    'robotap_csv': (
        lambda path: point_tables.open_point_table(
            path / 'robotap.csv', path / 'videos'
        ),
        'robotap_csv',
    ),
    'robotap_csv_split5': (
        lambda path: point_tables.open_point_table(
            path / 'robotap.csv', path / 'videos', 5
        ),
        'robotap_csv',
    ),
}
LEVELS = {'kinetics': 1, 'robotap_csv': 3, 'robotap_csv_split5': 3}


def parse_key(key):
  """Splits `<dataset>/<mode>/<resolution>[/<split>]/<i>/<array>`."""
  parts = key.split('/')
  if len(parts) < 5 or parts[1] not in ('first', 'strided'):
    return None
  dataset, mode, size = parts[:3]
  if len(parts) == 6:
    dataset = f'{dataset}/{parts[3]}'
  return dataset, mode, size, int(parts[-2])


def list_cases(stored):
  return sorted({case for key in stored if (case := parse_key(key))})


@pytest.mark.parametrize('dataset', READERS)
def test_readers(dataset, samples, tapvid_loaders):
  open_source, path = READERS[dataset]
  videos = read_all(open_source(samples / path))
  cases = [case for case in list_cases(tapvid_loaders) if case[0] == dataset]
  assert cases
  assert {index for *_, index in cases} <= set(range(len(videos)))
  for _, mode, size, index in cases:
    name, *split = dataset.split('/')
    prefix = '/'.join([name, mode, size, *split, str(index), ''])
    resolution = None
    if size != 'none':
      resolution = tuple(int(side) for side in size.split('x'))
    video = videos[index].resize(resolution)
    queries = sample_queries(video.target_points, video.occluded, mode)
    for name, array in (
        ('query_points', queries.query_points),
        ('target_points', queries.target_points),
        ('occluded', queries.occluded),
        ('trackgroup', queries.track_group),
    ):
      if prefix + name in tapvid_loaders:
        (expected,) = tapvid_loaders[prefix + name]
        np.testing.assert_allclose(array, expected, rtol=0, atol=1e-9)
        assert str(array.dtype) == str(tapvid_loaders[f'{prefix}{name}_dtype'])
    assert (
        tuple(tapvid_loaders[prefix + 'video_shape'][1:]) == video.frames.shape
    )
    if prefix + 'video_uint8' in tapvid_loaders:
      (expected,) = tapvid_loaders[prefix + 'video_uint8']
      difference = video.frames[: len(expected)].astype(int) - expected
      assert np.abs(difference).max() <= LEVELS.get(dataset, 0)


def test_reading_twice_gives_the_same(samples):
  source = tapvid.open_davis(samples / 'tapvid_davis.pkl')
  first, second = read_all(source), read_all(source)
  np.testing.assert_array_equal(first[0].target_points, second[0].target_points)


@pytest.fixture
def davis(tmp_path):
  """A small benchmark file, with an optional defect."""
  generator = np.random.default_rng(0)

  def make(length):
    return {
        'video': generator.integers(
            256, size=(length, 6, 8, 3), dtype=np.uint8
        ),
        'points': generator.random((2, length, 2), np.float32),
        'occluded': np.zeros((2, length), bool),
    }

  return {'a': make(4), 'b': make(5)}


def write(root, path):
  path.write_bytes(pickle.dumps(root))
  return path


def test_zip_as_downloaded(davis, tmp_path):
  file = write(davis, tmp_path / 'tapvid_davis.pkl')
  expected = read_all(tapvid.open_davis(file))
  packed = tmp_path / 'tapvid_davis.zip'
  with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.write(file, 'tapvid_davis/tapvid_davis.pkl')
    archive.writestr('tapvid_davis/README.md', 'text')
  file.unlink()
  actual = read_all(tapvid.open_davis(packed))
  assert [video.name for video in actual] == ['a', 'b']
  for ours, theirs in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(ours.frames, theirs.frames)
    np.testing.assert_array_equal(ours.points_unit, theirs.points_unit)


def test_truncated_pickle(davis, tmp_path):
  file = write(davis, tmp_path / 'tapvid_davis.pkl')
  file.write_bytes(file.read_bytes()[:-40])
  with pytest.raises(ValueError, match=r'davis\.pkl cannot be read'):
    read_all(tapvid.open_davis(file))


class Bomb:

  def __init__(self, path: pathlib.Path):
    self._path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self._path,)


def test_malicious_pickle(davis, tmp_path):
  davis['b'] = Bomb(tmp_path / 'exploded')
  file = write(davis, tmp_path / 'tapvid_davis.pkl')
  good, bad = tapvid.open_davis(file).entries()
  assert len(good.read().frames) == 4
  with pytest.raises(ValueError, match='b holds an object of'):
    bad.read()
  davis['b'] = {**davis['a'], 'points': Bomb(tmp_path / 'exploded')}
  file = write(davis, tmp_path / 'tapvid_davis.pkl')
  with pytest.raises(ValueError, match='b holds an object of'):
    list(tapvid.open_davis(file).entries())[1].read()
  assert not (tmp_path / 'exploded').exists()


@pytest.mark.parametrize(
    ('field', 'spoil', 'message'),
    [
        ('points', lambda a: a + 0.5, 'b: visible points must lie in the'),
        ('points', lambda a: a[:, :3], r'b: points must be \[n, 5, 2\]'),
        ('points', lambda a: a.astype(int), 'b: points must be float'),
        ('occluded', lambda a: a.astype(int), 'b: occluded must be boolean'),
        ('video', lambda a: a / 255, 'b: video must be a uint8 array or JPEG'),
        ('video', lambda a: [b'x'] * 5, 'b: frame 0 is no image'),
        ('video', lambda a: a[:0], 'b: frames must be'),
        ('occluded', lambda a: None, 'b: occluded must be an array'),
    ],
)
def test_bad_annotation(davis, tmp_path, field, spoil, message):
  davis['b'][field] = spoil(davis['b'][field])
  file = write(davis, tmp_path / 'tapvid_davis.pkl')
  good, bad = tapvid.open_davis(file).entries()
  good.read()
  with pytest.raises(ValueError, match=message):
    bad.read()


def test_wrong_split(samples, davis, tmp_path):
  with pytest.raises(ValueError, match='no RoboTAP split 3; it has 0, 1'):
    tapvid.open_robotap(samples / 'robotap', [3])
  assert tapvid.open_robotap(samples / 'robotap').missing == (
      'robotap_split2.pkl',
      'robotap_split3.pkl',
      'robotap_split4.pkl',
  )


def test_another_benchmark(samples, tmp_path):
  with pytest.raises(FileNotFoundError, match='another benchmark'):
    tapvid.open_davis(samples / 'robotap')
  with pytest.raises(FileNotFoundError, match='no file or folder'):
    tapvid.open_davis(tmp_path / 'nothing')
  with pytest.raises(FileNotFoundError, match='JHMDB'):
    jhmdb.open_jhmdb(tmp_path)


def test_shards_of_two_conversions(samples, tmp_path):
  for file in (samples / 'tapvid_kinetics').iterdir():
    shutil.copy(file, tmp_path)
  shutil.copy(file, tmp_path / '0000_of_0007.pkl')
  with pytest.raises(ValueError, match='several conversions'):
    tapvid.open_kinetics(tmp_path)
