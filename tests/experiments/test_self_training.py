"""Training on from weights that exist: `--task=finetune`."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.config import override_config
from experiments.config import PUBLISHED
from experiments.config import read_config
from experiments.recipes.self_training import SelfTrainConfig
from experiments.tasks import finetune
from experiments.tasks import training
import tapjax
from tapjax.data.procedural.demo import make_demo_clip
from tapjax.models import registry

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = ROOT / 'experiments' / 'configs'


def test_the_recipe_of_bootstapir():
  config = read_config(str(CONFIGS / 'bootstapir_videos.py'))
  assert isinstance(config, SelfTrainConfig)
  assert config.preset == 'bootstapir'
  assert config.initial == PUBLISHED
  assert config.training.cycle_threshold == 4
  assert config.training.losses.uncertainty_threshold == 6
  assert config.labeled_batch == config.data.batch_size == 4
  text = (CONFIGS / 'bootstapir_videos.py').read_text()
  for words in ('bootstapir_videos.py --workdir=DIR', 'Hardware:', 'Expected'):
    assert words in text


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (('data.resolution=(64,64)',), 'data.resolution must be the same'),
        (('held_out=0',), 'held_out must be at least 1'),
        (('data.videos=absent',), '--videos must name files or folders'),
    ],
    ids=str,
)
def test_what_stops_a_run_is_told_at_once(changes, message, tmp_path):
  config = finetune.make_self_training_config('tapir_tiny', 'absent')
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    training.train_tracker(override_config(config, changes), tmp_path)


def write_videos(folder, count):
  folder.mkdir()
  for index in range(count):
    clip = make_demo_clip()
    frames = np.asarray(clip.frames)[index : index + 8]
    tapjax.write_video(folder / f'{index}.mp4', frames, frame_rate=10)
  return folder


@pytest.mark.slow
@pytest.mark.heavy
def test_anybody_trains_on_their_own_videos(tmp_path):
  """From the command line, with a frozen backbone, and again from its end."""
  videos = write_videos(tmp_path / 'videos', 3)
  command = [sys.executable, '-m', 'experiments.run', '--task=finetune']
  command += ['--model=tapir_tiny', f'--videos={videos}', '--frozen=*resnet*']
  command += [f'--workdir={tmp_path / "run"}']
  settings = (
      'model.resolution=(64,64)',
      'data.resolution=(64,64)',
      'data.num_frames=6',
      'data.batch_size=1',
      'data.num_queries=16',
      'training.optimizer.num_steps=4',
      'training.optimizer.warmup_steps=1',
      'loop.evaluate_every=2',
      'loop.save_every=2',
      'loop.report_every=1',
  )
  for setting in settings:
    command += ['--set', setting]
  output = subprocess.run(
      command,
      cwd=ROOT,
      env={**os.environ, 'XLA_FLAGS': ''},
      capture_output=True,
      text=True,
      check=False,
  )
  assert output.returncode == 0, output.stderr
  tracker = tapjax.load(checkpoint=tmp_path / 'run' / 'latest.safetensors')
  assert tracker.name == 'tapir_tiny'
  before = tapjax.load('tapir_tiny').params.params
  for module, arrays in tracker.params.params.items():
    same = all(
        np.allclose(array, before[module][name], atol=0)
        for name, array in arrays.items()
    )
    assert same == ('resnet' in module), module
  resolution = tracker.config.resolution
  assert resolution == (64, 64)
  assert registry.get_preset('tapir_tiny').config.resolution == (328, 328)
  assert jax.tree.all(
      jax.tree.map(lambda a: bool(np.isfinite(a).all()), tracker.params.params)
  )
