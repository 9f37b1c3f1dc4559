"""CoTracker's formats, against stored outputs of its readers."""

import json

import numpy as np
import pytest

from tapjax.data.benchmarks import tapvid
from tapjax.data.kubric import cotracker


@pytest.fixture(scope='module')
def stored(reference):
  with np.load(reference / 'tapvid' / 'golden_cotracker_formats.npz') as file:
    return dict(file)


def test_benchmark_videos(reference, stored):
  path = reference / 'tapvid' / 'samples' / 'tapvid_davis.pkl'
  videos = [entry.read() for entry in tapvid.open_davis(path).entries()]
  cases = {
      tuple(key.split('/')[1:4]) for key in stored if 'tapvid_davis/' in key
  }
  assert cases
  for mode, size, index in cases:
    resolution = None
    if size != 'none':
      resolution = tuple(int(side) for side in size.split('x'))
    clip = cotracker.make_cotracker_clip(videos[int(index)], resolution, mode)
    prefix = f'tapvid_davis/{mode}/{size}/{index}/'
    for name in ('trajectory', 'visibility', 'query_points'):
      expected = stored[prefix + name]
      np.testing.assert_allclose(getattr(clip, name), expected, atol=1e-4)
      assert getattr(clip, name).dtype == expected.dtype
    np.testing.assert_allclose(
        clip.video.sum(dtype=np.float64), stored[prefix + 'video_sum']
    )


def test_kubric(reference, stored):
  settings = json.loads(str(stored['meta']))['settings']
  folder = next((reference / 'tapvid' / 'samples' / 'kubric_movif').iterdir())
  sequence = cotracker.read_kubric_sequence(folder)
  np.testing.assert_array_equal(sequence.frames, stored['frames'])
  np.testing.assert_allclose(sequence.points, stored['coords'], atol=1e-4)
  number = settings['traj_per_sample']
  clip = cotracker.choose_kubric_tracks(
      sequence, number, np.random.default_rng(0), settings['seq_len']
  )
  np.testing.assert_array_equal(clip.video, stored['video'])
  assert clip.trajectory.shape == stored['trajectory'].shape

  # Both draw at random, from the same candidates: each of the published tracks
  # is one that could have been drawn, with its visibility.
  pool = cotracker.choose_kubric_tracks(sequence, 1, np.random.default_rng(0))
  assert pool is not None
  everything = [
      cotracker.choose_kubric_tracks(sequence, 1, np.random.default_rng(seed))
      for seed in range(200)
  ]
  for track in range(number):
    wanted = stored['trajectory'][:, track]
    matches = [
        one
        for one in everything
        if np.allclose(one.trajectory[:, 0], wanted, atol=1e-4)
    ]
    assert matches
    np.testing.assert_array_equal(
        matches[0].visibility[:, 0], stored['visibility'][:, track]
    )


def test_queries_are_where_the_point_is_first_seen(reference):
  folder = next((reference / 'tapvid' / 'samples' / 'kubric_movif').iterdir())
  sequence = cotracker.read_kubric_sequence(folder)
  clip = cotracker.choose_kubric_tracks(sequence, 4, np.random.default_rng(3))
  for row, (t, y, x) in enumerate(clip.query_points):
    assert clip.visibility[int(t), row]
    assert not clip.visibility[: int(t), row].any()
    np.testing.assert_allclose(clip.trajectory[int(t), row], [x, y])


def test_too_few_tracks(reference):
  folder = next((reference / 'tapvid' / 'samples' / 'kubric_movif').iterdir())
  sequence = cotracker.read_kubric_sequence(folder)
  generator = np.random.default_rng(0)
  assert cotracker.choose_kubric_tracks(sequence, 1000, generator) is None


def test_other_arrays(tmp_path):
  folder = tmp_path / '0001'
  (folder / 'frames').mkdir(parents=True)
  holder = np.empty((), object)
  holder[()] = {'points': np.zeros(3)}
  np.save(folder / '0001.npy', holder)
  with pytest.raises(ValueError, match='coords and visibility'):
    cotracker.read_kubric_sequence(folder)
