"""Files of PointOdyssey, in both versions of their layout."""

import numpy as np
import pytest

from tapjax.data.point_odyssey import files as point_odyssey
from tests.support.stored_tracks import assert_tracks


@pytest.mark.parametrize('num_points', [16, 1000])
def test_tracks_of_whole_scenes(num_points, pips_loaders):
  visible, valid = point_odyssey.decode_visibilities(
      pips_loaders['full_anno_visibilities']
  )
  annotations = point_odyssey.PointAnnotations(
      pips_loaders['full_anno_trajs_2d'], visible, valid
  )
  tracks = point_odyssey.select_full_tracks(annotations, num_points=num_points)
  assert_tracks(tracks, pips_loaders, 'full', f'_n{num_points}')


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
