"""Batches of windows: order, split and errors."""

import dataclasses

import numpy as np
import pytest

from tapjax.data.point_odyssey import window_batches
from tapjax.data.point_odyssey.window_batches import PointDataConfig
from tapjax.data.point_odyssey.windows import WindowConfig
from tapjax.media.pictures import import_pillow

SMALL = WindowConfig(num_frames=3, num_points=2, resolution=(8, 8))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  """Five scenes of six frames, with colors that encode scene and frame."""
  pillow = import_pillow()
  folder = tmp_path_factory.mktemp('split')
  for scene in range(5):
    (folder / f'scene_{scene}' / 'rgbs').mkdir(parents=True)
    for t in range(6):
      frame = np.full((8, 8, 3), 40 * scene + 5 * t, np.uint8)
      path = folder / f'scene_{scene}' / 'rgbs' / f'rgb_{t:05}.png'
      pillow.fromarray(frame).save(path)
    np.savez(
        folder / f'scene_{scene}' / 'anno.npz',
        trajs_2d=np.full((6, 4, 2), 4.0, np.float32),
        visibs=np.ones((6, 4), bool),
    )
  return folder


def list_drawn(batches, epoch, num_batches):
  drawn = [batches.draw(epoch * num_batches + i) for i in range(num_batches)]
  return [int(frames[0, 0, 0, 0]) for batch in drawn for frames in batch.frames]


def test_every_epoch_has_every_window_once(root):
  config = PointDataConfig(root=str(root), batch_size=3)
  train, validation = window_batches.find_windows(config, SMALL, 0)
  assert (len(train), len(validation)) == (16, 4)
  batches = window_batches.make_batches(train, SMALL, 3, 0, 7)
  assert batches.num_batches == 6
  first, second = (list_drawn(batches, epoch, 6) for epoch in (0, 1))
  assert sorted(first) == sorted(second)
  assert len(set(first)) == 16
  assert first != second
  # Neither threads nor what was drawn before matter.
  ahead = window_batches.make_batches(train, SMALL, 3, 2, 7)
  assert list_drawn(ahead, 1, 6) == second
  assert len(batches.draw(5).frames) == 1
  still = window_batches.make_batches(validation, SMALL, 3, 0)
  assert list_drawn(still, 0, 2) == list_drawn(still, 1, 2)


def test_split_is_that_of_the_seed(root):
  config = PointDataConfig(root=str(root))
  splits = [
      window_batches.find_windows(config, SMALL, seed) for seed in (0, 0, 1)
  ]
  names = [[window.scene for window in part[1]] for part in splits]
  assert names[0] == names[1]
  assert any(
      {w.scene for w in window_batches.find_windows(config, SMALL, seed)[1]}
      != set(names[0])
      for seed in range(1, 9)
  )
  np.testing.assert_array_equal(
      splits[0][0][0].positions, splits[1][0][0].positions
  )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'root': ''}, '--set data.root=DIR'),
        ({'root': 'absent'}, "a folder of scenes, .*; got 'absent'"),
        ({'scenes': ('scene_9',)}, "there is no 'scene_9'"),
        ({'scenes': ('scene_1',)}, 'gives 0 and 4 windows'),
        ({'batch_size': 0}, 'batch_size must be at least 1'),
        ({'train_share': 1.0}, 'train_share must be between'),
        ({'num_workers': -1}, 'num_workers must be at least 0'),
    ],
    ids=str,
)
def test_what_cannot_be(root, changes, message):

  def find():
    config = dataclasses.replace(PointDataConfig(root=str(root)), **changes)
    return window_batches.find_windows(config, SMALL, 0)

  with pytest.raises(ValueError, match=message):
    find()
