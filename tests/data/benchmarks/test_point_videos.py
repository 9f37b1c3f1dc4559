"""Benchmark videos of PIPs++, in the coordinates of its protocol."""

import pickle

import numpy as np
import pytest

from tapjax.data.benchmarks import point_videos
from tapjax.media.lazy import LazyFrames


def read_first(source, resolution):
  (entry,) = source.entries()
  return entry, entry.read().resize(resolution)


def test_davis_is_resized_without_rounding(tmp_path):
  generator = np.random.default_rng(0)
  frames = generator.integers(0, 256, (4, 10, 12, 3), np.uint8)
  points = generator.uniform(0, 1, (3, 4, 2)).astype(np.float32)
  occluded = np.zeros((3, 4), bool)
  occluded[1, 0] = occluded[2, 2] = True
  content = {'goat': {'video': frames, 'points': points, 'occluded': occluded}}
  (tmp_path / 'tapvid_davis.pkl').write_bytes(pickle.dumps(content))
  source = point_videos.open_davis(tmp_path)
  entry, video = read_first(source, (20, 36))
  assert (entry.name, video.name) == ('goat', 'goat')
  # The second point is hidden on the first frame.
  np.testing.assert_array_equal(video.valid, ~occluded[[0, 2]])
  expected = points[[0, 2]] * [11, 9] * [3, 2] + 0.5
  np.testing.assert_allclose(video.positions, expected, atol=1e-5)
  assert video.frames.shape == (4, 20, 36, 3)
  assert video.frames.dtype == np.float32
  # Halfway between the centers of two pixels, a level need not be whole.
  levels = (video.frames + 1) * 127.5
  assert np.abs(levels - np.rint(levels)).max() > 0.2
  middle = levels[:, 1:-1:2, 1::3]
  expected = frames[:, :-1] * 0.75 + frames[:, 1:] * 0.25
  np.testing.assert_allclose(middle, expected, atol=1e-3)
  _, native = read_first(source, None)
  np.testing.assert_allclose(native.frames, frames / 127.5 - 1, atol=1e-6)


def test_point_odyssey_stays_on_disk(reference):
  split = reference / 'tapvid' / 'samples' / 'point_odyssey' / 'test'
  with np.load(reference / 'tapvid' / 'golden_point_odyssey.npz') as file:
    stored = dict(file)
  entry, video = read_first(point_videos.open_point_odyssey(split), (512, 896))
  assert entry.num_frames == len(video.frames) == 12
  assert isinstance(video.frames, LazyFrames)
  assert video.frames[np.asarray([3])].shape == (1, 512, 896, 3)
  # With fewer tracks than may be kept, all of the stored ones are there.
  scale = np.asarray([896 / 960, 512 / 540])
  expected = stored['trajs'].swapaxes(0, 1) * scale + 0.5
  for track in expected:
    distances = np.abs(video.positions - track[None]).max(axis=(1, 2))
    assert distances.min() < 1e-3


def test_crohd_stays_on_disk(reference, tmp_path):
  image = pytest.importorskip('PIL.Image')
  with np.load(reference / 'pips2' / 'golden_loaders_synthetic.npz') as file:
    rows = file['crohd_gt']
  folder = tmp_path / 'HT21' / 'train' / 'HT21-01'
  (folder / 'gt').mkdir(parents=True)
  (folder / 'img1').mkdir()
  last = rows[-1:].copy()
  last[:, 0] = 200
  np.savetxt(
      folder / 'gt' / 'gt.txt', np.concatenate([rows, last]), delimiter=','
  )
  for frame in (1, 7):
    picture = np.full((1080, 1920, 3), 10 * frame, np.uint8)
    image.fromarray(picture).save(folder / 'img1' / f'{frame:06}.jpg')
  entry, video = read_first(point_videos.open_crohd(tmp_path), (54, 96))
  assert entry.num_frames == len(video.frames) == 200
  frames = video.frames[np.asarray([6, 0])]
  np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [70, 10], atol=1)
  assert video.positions.shape[1:] == (200, 2)
  inside = video.positions[:, 0]
  assert ((inside > 1) & (inside < [95, 53])).all()
  with pytest.raises(ValueError, match=r'000002\.jpg is no image'):
    video.frames[np.asarray([1])]


def test_a_video_without_a_point_is_told(tmp_path):
  content = {
      'empty': {
          'video': np.zeros((2, 8, 8, 3), np.uint8),
          'points': np.zeros((1, 2, 2), np.float32),
          'occluded': np.asarray([[True, False]]),
      }
  }
  (tmp_path / 'tapvid_davis.pkl').write_bytes(pickle.dumps(content))
  with pytest.raises(ValueError, match='empty: no point is visible'):
    read_first(point_videos.open_davis(tmp_path), (16, 16))
