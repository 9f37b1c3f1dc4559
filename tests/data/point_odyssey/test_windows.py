"""Windows of PointOdyssey: parity without randomness, and properties."""

import json

import numpy as np
import pytest

from tapjax.data.point_odyssey import files as point_odyssey
from tapjax.data.point_odyssey import windows as windows_module
from tapjax.data.point_odyssey.windows import WindowConfig
from tapjax.media.pictures import import_pillow

SMALL = WindowConfig(num_frames=4, num_points=4, resolution=(64, 64))


def write_scene(folder, frames, positions, visible, layout='frames/frame_'):
  pillow = import_pillow()
  digits = 6 if layout == 'frames/frame_' else 5
  for i, frame in enumerate(frames):
    path = folder / f'{layout}{i:0{digits}}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow.fromarray(frame).save(path)
  np.savez(folder / 'anno.npz', trajs_2d=positions, visibs=visible)


@pytest.fixture(scope='module')
def stored(reference):
  folder = reference / 'point_transformer'
  with np.load(folder / 'golden_dataset.npz') as file:
    return dict(file)


def test_published_examples(stored, tmp_path):
  """Parity of windows for given rows, without the random draw."""
  meta = json.loads(str(stored['meta']))
  scene = tmp_path / 'scene'
  write_scene(scene, stored['raw_frames'], stored['trajs_2d'], stored['visibs'])
  annotations = point_odyssey.read_annotations(scene)
  paths = windows_module.list_window_frames(scene)
  for i, drawn in enumerate(meta['sequences']):
    start, rows = drawn['start'], np.asarray(drawn['selected'])
    window = windows_module.make_window(
        'scene', start, paths[start : start + 4], annotations, rows
    )
    example = windows_module.read_window(window, SMALL)
    close = np.testing.assert_allclose
    points = example.positions_unit
    close(points[0], stored[f'item{i}_initial_points'], atol=1e-6)
    close(points, stored[f'item{i}_gt_trajectories'], atol=1e-6)
    close(example.visible, stored[f'item{i}_gt_visibilities'])
    if f'item{i}_frames' in stored:
      frames = example.frames.transpose(0, 3, 1, 2) / 255
      close(frames, stored[f'item{i}_frames'], atol=1.001 / 255)

  generator = np.random.default_rng(0)
  windows = windows_module.list_windows(tmp_path, SMALL, generator)
  starts = [drawn['start'] for drawn in meta['sequences']]
  # On the frame between them nothing is visible.
  assert [window.start for window in windows] == starts
  for window, drawn in zip(windows, meta['sequences'], strict=True):
    assert window.visible[0].all()
    expected = annotations.positions[drawn['start'], drawn['selected']]
    assert len(window.positions[0]) == len(expected)
    if len(expected) < SMALL.num_points:
      assert {tuple(p) for p in window.positions[0]} == {
          tuple(p) for p in expected
      }


def make_scenes(root, num_scenes, num_frames=6):
  generator = np.random.default_rng(1)
  for i in range(num_scenes):
    write_scene(
        root / f'scene_{i}',
        generator.integers(0, 256, (num_frames, 8, 12, 3), np.uint8),
        generator.uniform(0, 8, (num_frames, 9, 2)).astype(np.float32),
        np.ones((num_frames, 9), bool),
        'rgbs/rgb_' if i % 2 else 'frames/frame_',
    )


def test_windows_of_both_layouts_and_what_is_left_out(tmp_path):
  make_scenes(tmp_path, 3)
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'scene_2' / 'anno.npz').write_bytes(b'damaged')
  generator = np.random.default_rng(0)
  with pytest.warns(UserWarning, match='left out: ') as caught:
    windows = windows_module.list_windows(tmp_path, SMALL, generator)
  assert len(caught) == 2
  found = [(window.scene, window.start) for window in windows]
  assert found == [(f'scene_{i}', s) for i in range(2) for s in range(3)]
  named = windows_module.list_windows(tmp_path, SMALL, generator, ['scene_1'])
  assert {window.scene for window in named} == {'scene_1'}
  few = WindowConfig(num_frames=4, most_frames=5)
  windows = windows_module.list_windows(tmp_path, few, generator, ['scene_0'])
  assert [window.start for window in windows] == [0, 1]
  with pytest.raises(FileNotFoundError, match='at least 7 frames'):
    windows_module.list_windows(
        tmp_path, WindowConfig(num_frames=7), generator, ['scene_0']
    )


def test_points_that_are_not_finite_are_not_drawn(tmp_path):
  make_scenes(tmp_path, 1)
  annotations = point_odyssey.read_annotations(tmp_path / 'scene_0')
  annotations.positions[2, 1:] = np.nan
  paths = windows_module.list_window_frames(tmp_path / 'scene_0')
  windows = windows_module.cut_windows(
      'scene_0', paths, annotations, SMALL, np.random.default_rng(0)
  )
  numbers = [len(window.positions[0]) for window in windows]
  assert numbers == [1, 1, 1]
  example = windows_module.read_window(windows[0], SMALL)
  np.testing.assert_array_equal(example.positions_unit[:, 1:], 0.5)


@pytest.mark.parametrize('by', ['scene', 'window'])
def test_splits(by, tmp_path):
  make_scenes(tmp_path, 5)
  windows = windows_module.list_windows(
      tmp_path, SMALL, np.random.default_rng(0)
  )
  train, validation = windows_module.split_windows(
      windows, np.random.default_rng(3), by
  )
  assert (len(train), len(validation)) == (12, 3)
  both = {w.scene for w in train} & {w.scene for w in validation}
  assert (not both) == (by == 'scene')
  names = [(window.scene, window.start) for window in train + validation]
  assert len(set(names)) == 15


def test_damaged_images_are_named(tmp_path):
  make_scenes(tmp_path, 1)
  window, *_ = windows_module.list_windows(
      tmp_path, SMALL, np.random.default_rng(0)
  )
  window.frame_paths[1].write_bytes(b'damaged')
  with pytest.raises(ValueError, match=r'frame_000001\.png is no image'):
    windows_module.read_window(window, SMALL)
