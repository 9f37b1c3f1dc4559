"""Heads of CroHD, from tables of boxes."""

import numpy as np
import pytest

from tapjax.data.benchmarks import crohd
from tests.support.stored_tracks import assert_tracks


def test_heads_of_clips(pips_loaders):
  boxes = crohd.place_heads(pips_loaders['crohd_gt'], 'gt.txt')
  clips = crohd.list_clips(boxes.positions.shape[1], 40, 12)
  np.testing.assert_array_equal(clips, pips_loaders['crohd_clips'])
  for index in (0, 2):
    tracks = crohd.select_heads(boxes, *clips[index])
    assert_tracks(tracks, pips_loaders, f'crohd_clip{index}')


def test_clips_of_a_folder(pips_loaders, tmp_path):
  folder = tmp_path / 'HT21' / 'train' / 'HT21-01'
  (folder / 'gt').mkdir(parents=True)
  rows = pips_loaders['crohd_gt']
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
