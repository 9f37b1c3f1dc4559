"""Readers of PointOdyssey, CroHD and TAP-Vid in the protocol of PIPs++."""

import json

import numpy as np
import pytest

from tapjax.data.benchmarks import crohd
from tapjax.data.benchmarks.point_tracks import take_first_frame_tracks
from tapjax.data.point_odyssey import files as point_odyssey
from tapjax.evaluation.pips_metrics import compute_pips_metrics


@pytest.fixture(scope='module')
def stored(reference):
  with np.load(reference / 'pips2' / 'golden_loaders_synthetic.npz') as file:
    return dict(file)


def assert_tracks(tracks, stored, prefix, suffix=''):
  """Compares with stored arrays, whose first axis is time."""
  positions, visible, valid = (
      stored[f'{prefix}_{name}{suffix}'].swapaxes(0, 1)
      for name in ('trajs', 'visibs', 'valids')
  )
  np.testing.assert_allclose(tracks.positions, positions, atol=1e-3)
  np.testing.assert_array_equal(tracks.visible, visible > 0)
  np.testing.assert_array_equal(tracks.valid, valid > 0)


@pytest.mark.parametrize('num_points', [16, 1000])
def test_tracks_of_whole_scenes(num_points, stored):
  visible, valid = point_odyssey.decode_visibilities(
      stored['full_anno_visibilities']
  )
  annotations = point_odyssey.PointAnnotations(
      stored['full_anno_trajs_2d'], visible, valid
  )
  tracks = point_odyssey.select_full_tracks(annotations, num_points=num_points)
  assert_tracks(tracks, stored, 'full', f'_n{num_points}')


def test_a_sequence_and_its_scores(reference):
  """From the folder to its published metrics."""
  with np.load(reference / 'tapvid' / 'golden_point_odyssey.npz') as file:
    stored = dict(file)
  settings = json.loads(str(stored['meta']))['settings']
  split = reference / 'tapvid' / 'samples' / 'point_odyssey' / 'test'
  (scene,) = point_odyssey.list_scenes(split)
  sequence = point_odyssey.read_sequence(scene, settings['N'])
  assert sequence.name == 'tiny_seq'
  assert sequence.frame_paths[11] == scene / 'rgbs' / 'rgb_00011.jpg'
  np.testing.assert_allclose(
      sequence.tracks.positions.swapaxes(0, 1), stored['trajs'], atol=1e-4
  )
  np.testing.assert_array_equal(sequence.tracks.visible.T, stored['visibs'])
  height, width = settings['eval_size']
  scale = np.asarray([width / 960, height / 540])
  metrics = compute_pips_metrics(
      stored['pred_at_512x896'].swapaxes(0, 1),
      sequence.tracks.positions * scale,
      sequence.tracks.valid,
      (height, width),
  )
  names = [f'd_{k}' for k in (1, 2, 4, 8, 16)] + ['d_avg', 'survival']
  expected = [stored[f'metrics/{name}'] for name in (*names, 'median_l2')]
  np.testing.assert_allclose(metrics, expected, atol=1e-3)


def write_scene(folder, *, codes=None, num_frames=9):
  """A scene whose only track moves to the right."""
  (folder / 'rgbs').mkdir(parents=True)
  for frame in range(num_frames):
    (folder / 'rgbs' / f'rgb_{frame:05d}.jpg').touch()
  positions = np.full((9, 1, 2), 100, np.float32)
  positions[:, 0, 0] += np.arange(9)
  shown = {'visibs': np.ones((9, 1)), 'valids': np.ones((9, 1))}
  if codes is not None:
    shown = {'visibilities': np.asarray(codes, np.uint8)[:, None]}
  np.savez(folder / 'anno.npz', trajs_2d=positions, **shown)
  return folder


def test_both_versions_of_annotations(tmp_path):
  new = point_odyssey.read_annotations(write_scene(tmp_path / 'new'))
  assert new.visible.all()
  assert new.valid.all()
  old = point_odyssey.read_annotations(
      write_scene(tmp_path / 'old', codes=[1, 1, 1, 0, 2, 3, 1, 1, 1])
  )
  assert old.visible[:, 0].tolist() == [True] * 3 + [False] * 3 + [True] * 3
  assert old.valid[:, 0].tolist() == [True] * 4 + [False] * 2 + [True] * 3


def test_damaged_scenes_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'no scene with an anno\.npz'):
    point_odyssey.list_scenes(tmp_path)
  with pytest.raises(ValueError, match='an image for each of 9'):
    point_odyssey.read_sequence(write_scene(tmp_path / 'a', num_frames=8))
  with pytest.raises(ValueError, match='none is left'):
    point_odyssey.read_sequence(write_scene(tmp_path / 'b', codes=[0] * 9))
  np.savez(tmp_path / 'a' / 'anno.npz', trajs_2d=np.zeros((9, 1, 2)))
  with pytest.raises(ValueError, match='must hold trajs_2d, visibs'):
    point_odyssey.read_annotations(tmp_path / 'a')
  (tmp_path / 'a' / 'anno.npz').write_bytes(b'PK\x03\x04 cut')
  with pytest.raises(ValueError, match=r'anno\.npz'):
    point_odyssey.read_annotations(tmp_path / 'a')


def test_heads_of_clips(stored):
  boxes = crohd.place_heads(stored['crohd_gt'], 'gt.txt')
  clips = crohd.list_clips(boxes.positions.shape[1], 40, 12)
  np.testing.assert_array_equal(clips, stored['crohd_clips'])
  for index in (0, 2):
    tracks = crohd.select_heads(boxes, *clips[index])
    assert_tracks(tracks, stored, f'crohd_clip{index}')


def test_clips_of_a_folder(stored, tmp_path):
  folder = tmp_path / 'HT21' / 'train' / 'HT21-01'
  (folder / 'gt').mkdir(parents=True)
  rows = stored['crohd_gt']
  # A last head long after the others makes clips of the usual length.
  last = rows[-1:].copy()
  last[:, 0] = 640
  np.savetxt(
      folder / 'gt' / 'gt.txt', np.concatenate([rows, last]), delimiter=','
  )
  (sequence,) = crohd.list_sequences(tmp_path)
  first, second = crohd.read_clips(sequence)
  assert (first.name, second.name) == ('HT21-01_000000', 'HT21-01_000500')
  assert len(first.frame_paths) == 640
  assert len(second.frame_paths) == 140
  assert second.frame_paths[0] == folder / 'img1' / '000501.jpg'
  assert first.tracks.positions.shape[1:] == (640, 2)


def test_damaged_tables_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'gt\.txt in'):
    crohd.list_sequences(tmp_path)
  with pytest.raises(ValueError, match='end with the last frame'):
    crohd.place_heads(np.float32([[2, 1, *[0] * 7], [1, 1, *[0] * 7]]), 'a')
  with pytest.raises(ValueError, match='must have 9 columns'):
    crohd.place_heads(np.ones((3, 8)), 'a')


def test_tapvid_in_this_protocol(stored):
  tracks = take_first_frame_tracks(
      stored['tapvid_points'],
      stored['tapvid_occluded'],
      tuple(stored['tapvid_video_hw'].tolist()),
  )
  np.testing.assert_allclose(
      tracks.positions.swapaxes(0, 1), stored['tapvid_trajs'], atol=1e-3
  )
  np.testing.assert_array_equal(tracks.valid.T, stored['tapvid_valids'])
