"""JHMDB, against stored outputs."""

import numpy as np

from tapjax.data.benchmarks import jhmdb
from tests.support.videos_with_truth import read_all


def test_jhmdb(samples, tapvid_loaders):
  source = jhmdb.open_jhmdb(samples / 'jhmdb')
  videos = read_all(source)
  num_videos = len(
      {k.split('/')[1] for k in tapvid_loaders if k[:6] == 'jhmdb/'}
  )
  assert len(videos) == num_videos
  for index in range(num_videos):
    case = {
        key.split('/')[2]: array
        for key, array in tapvid_loaders.items()
        if key.startswith(f'jhmdb/{index}/')
    }
    # The published order is shuffled.
    (video,) = [v for v in videos if v.name == str(case['fname'])]
    assert tuple(case['im_size']) == video.frames.shape[1:3]
    valid = jhmdb.find_joints_inside(
        video.target_points, video.frames.shape[1:3]
    )
    marked = (case['target_points'][0] == -1).all(axis=(1, 2))
    np.testing.assert_array_equal(valid, ~marked)
    expected = case['gt_pose_orig'][0]
    np.testing.assert_allclose(video.target_points, expected)
    # The published queries are in pixels before resizing.
    np.testing.assert_allclose(
        jhmdb.get_joint_queries(video.target_points), case['query_points'][0]
    )
    shape = tuple(case['video_shape'][1:].tolist())
    resized = video.resize(shape[1:3])
    np.testing.assert_array_equal(resized.frames, case['video_uint8'][0])
    np.testing.assert_allclose(
        resized.target_points[valid], case['target_points'][0][valid]
    )
