"""Readers of PointOdyssey, CroHD and TAP-Vid in the protocol of PIPs++."""

import json

import numpy as np

from tapjax.data.benchmarks.point_tracks import take_first_frame_tracks
from tapjax.data.point_odyssey import files as point_odyssey
from tapjax.evaluation.pips_metrics import compute_pips_metrics


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


def test_tapvid_in_this_protocol(pips_loaders):
  tracks = take_first_frame_tracks(
      pips_loaders['tapvid_points'],
      pips_loaders['tapvid_occluded'],
      tuple(pips_loaders['tapvid_video_hw'].tolist()),
  )
  np.testing.assert_allclose(
      tracks.positions.swapaxes(0, 1), pips_loaders['tapvid_trajs'], atol=1e-3
  )
  np.testing.assert_array_equal(tracks.valid.T, pips_loaders['tapvid_valids'])
