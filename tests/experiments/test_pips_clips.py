"""Training of PIPs++ from scenes on disk, whole but small."""

import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from experiments.config import override_config
from experiments.config import read_config
from experiments.tasks import training
import tapjax
from tapjax.data.point_odyssey.files import PointAnnotations
from tapjax.data.point_odyssey.generated import SceneVideo
from tapjax.data.point_odyssey.generated import write_scene

CONFIGS = pathlib.Path(training.__file__).parents[1] / 'configs'
NAMES = (
    'pips_plus_plus_pointodyssey',
    'pips_plus_plus_pointodyssey_high_resolution',
)
SETTINGS = (
    'model.resolution=(32, 48)',
    'model.channels=(4, 4, 4, 4)',
    'model.fused_channels=4',
    'model.feature_channels=4',
    'model.levels=1',
    'model.radius=1',
    'model.frequencies=2',
    'model.block_channels=(4,)',
    'model.num_iterations=1',
    'model.window=8',
    'data.clips.crop=(32, 48)',
    'data.clips.num_frames=4',
    'data.clips.num_points=6',
    'data.clips.strides=(1,)',
    'data.augmentation=None',
    'data.batch_size=1',
    'data.num_workers=1',
    'data.num_validation=1',
    'loop.evaluate_every=3',
    'loop.save_every=3',
)


def make_config(name, *changes):
  config = read_config(str(CONFIGS / f'{name}.py'))
  return override_config(config, (*SETTINGS, *changes))


@pytest.fixture
def root(tmp_path):
  """A split of one scene: noise that moves by a pixel a frame."""
  generator = np.random.default_rng(0)
  wide = generator.integers(0, 256, (40, 70, 3), np.uint8)
  positions = generator.uniform(4, 28, (1, 20, 2)).repeat(8, axis=0)
  positions[..., 0] += np.arange(8)[:, None]
  seen = np.ones((8, 20), bool)
  scene = SceneVideo(
      np.stack([wide[:, 10 - t : 66 - t] for t in range(8)]),
      np.ones((8, 40, 56), np.uint8),
      PointAnnotations(positions.astype(np.float32), seen, seen),
  )
  (tmp_path / 'split').mkdir()
  write_scene(tmp_path / 'split' / 'scene', scene)
  return tmp_path / 'split'


@pytest.mark.slow
@pytest.mark.heavy
@pytest.mark.usefixtures('quick_compilation')
def test_runs_prints_and_resumes_exactly(root, tmp_path, capsys):
  folder = tmp_path / 'run'
  config = make_config(NAMES[0], f'data.root={root}', 'training.num_steps=6')
  state = training.train_tracker(config, folder)
  said = capsys.readouterr().out
  # One scene of eight frames has clips of four from its frames 0, 2 and 4.
  assert re.search(r'^model: pips_plus_plus\ndata: 3 clips in ', said, re.M)
  assert re.search(r'^total: [\d,]+ parameters', said, re.M)
  lines = re.findall(
      r'^run; step (\d{6})/6; rtime [\d.]+; itime [\d.]+; loss [\d.]+; '
      r'loss_t [\d.]+; d_t [\d.]+; d_v ([\d.]+|nan)$',
      said,
      re.M,
  )
  assert [int(step) for step, _ in lines] == list(range(1, 7))
  assert [validated == 'nan' for _, validated in lines] == 3 * [True] + 3 * [
      False
  ]
  latest = tapjax.load(checkpoint=folder / 'latest.safetensors')
  assert latest.config == config.model
  jax.tree.map(np.testing.assert_array_equal, latest.params, state.params)

  shutil.rmtree(folder / 'snapshots' / '6')
  resumed = training.train_tracker(config, folder)
  jax.tree.map(np.testing.assert_array_equal, resumed, state)

  # The second stage begins with what the first one has learned.
  second = make_config(
      NAMES[1],
      f'data.root={root}',
      'training.num_steps=1',
      f'initial={folder / "best.safetensors"}',
  )
  state = training.train_tracker(second, tmp_path / 'second')
  assert int(state.num_updates) == 1


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ((), '--set data.root=DIR'),
        (('data.root=.',), 'there is no scene with an anno.npz'),
        (('data.clips.crop=(32, 32)',), 'must be the same'),
    ],
    ids=str,
)
def test_what_stops_a_run_is_told_at_once(changes, message, tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    training.train_tracker(make_config(NAMES[0], *changes), tmp_path / 'run')


def test_clips_that_do_not_fit_are_counted(root, tmp_path):
  config = make_config(
      NAMES[0], f'data.root={root}', 'data.clips.num_points=30'
  )
  from tapjax.data.point_odyssey.clip_batches import make_clip_draw

  draw = make_clip_draw(str(root), config.data, None, 0)
  with pytest.raises(ValueError, match=r'100 x before cropping: 20 tracks'):
    draw(0)


def test_published_settings():
  first, second = (read_config(str(CONFIGS / f'{name}.py')) for name in NAMES)
  assert first.data.batch_size == 4
  assert first.data.clips.num_frames == 36
  assert first.data.clips.crop == first.model.resolution == (256, 384)
  assert first.model.num_iterations == 6
  assert first.training.num_steps == 200_000
  assert (first.training.peak_lr, first.training.max_norm) == (5e-4, 5.0)
  assert second.data.batch_size == 1
  assert second.data.clips.num_frames == 64
  assert second.data.clips.crop == second.model.resolution == (512, 896)
  assert second.model.num_iterations == 4
  assert second.training.num_steps == 10_000
  assert second.training.max_norm == 1.0
