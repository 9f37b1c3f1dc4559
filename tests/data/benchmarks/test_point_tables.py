"""Tables of points with video files, as in TAP-Vid-Kinetics."""

import shutil

import numpy as np
import pytest

from tapjax.data.benchmarks import point_tables
from tests.support.videos_with_truth import read_all


def test_clips_of_kinetics(samples, tapvid_loaders):
  folder = samples / 'kinetics_source'
  with pytest.warns(UserWarning, match='1 of 3 clips'):
    source = point_tables.open_kinetics_table(
        folder / 'tapvid_kinetics.csv', folder / 'videos'
    )
  assert source.missing == ('missing_vid_000000_000010',)
  videos = read_all(source)
  num_clips = len(
      {k.split('/')[1] for k in tapvid_loaders if 'kinetics_conv' in k}
  )
  assert len(videos) == num_clips
  for index, video in enumerate(videos):
    prefix = f'kinetics_convert/{index}/'
    np.testing.assert_allclose(
        video.points_unit, tapvid_loaders[prefix + 'points'], rtol=0, atol=1e-9
    )
    assert video.points_unit.dtype == np.float64
    np.testing.assert_array_equal(
        video.occluded, tapvid_loaders[prefix + 'occluded']
    )
    assert len(video.frames) == tapvid_loaders[prefix + 'num_frames']
    np.testing.assert_allclose(
        video.frames.mean(axis=(1, 2)),
        tapvid_loaders[prefix + 'decoded_mean_rgb'],
        atol=2,
    )


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a,0.5,0.5\n', 'line 1 must have 1 names'),
        ('a,0.5,0.5,0\na,0.5,0.5,0,1,1,0\n', 'as many in each'),
        ('a,0.5,x,0\n', 'must be numbers'),
        ('', 'must have a row'),
    ],
)
def test_bad_table(tmp_path, text, message, samples):
  table = tmp_path / 'table.csv'
  table.write_text(text)
  videos = tmp_path
  shutil.copy(
      samples / 'robotap_csv' / 'videos' / 'robot_0000.mp4', tmp_path / 'a.mp4'
  )
  with pytest.raises(ValueError, match=message):
    read_all(point_tables.open_point_table(table, videos))
