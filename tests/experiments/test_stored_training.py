"""From stored videos to a tracker: matching first, then what it serves."""

import dataclasses

import numpy as np
import pytest

from experiments.configs import tapir_tiny_matching
from experiments.configs import tapir_tiny_stored
from experiments.tasks import training
import tapjax
from tapjax.data.procedural.stored_videos import write_stored_videos
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.summaries import read_curves
from tests.support.narrow import SCENE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

MODEL = TapirTinyConfig(
    resolution=SCENE.resolution,
    channels=(4, 4, 4, 4),
    mixer_blocks=1,
    mixer_channels=8,
)


def make_small(config, folder, **changes):
  return dataclasses.replace(
      config,
      model=MODEL,
      data=dataclasses.replace(
          config.data,
          folder=str(folder),
          batch_size=8,
          num_frames=3,
          resolution=SCENE.resolution,
          num_points=4,
      ),
      validation=dataclasses.replace(
          config.validation, video=SCENE, num_videos=2
      ),
      loop=LoopConfig(report_every=1, evaluate_every=2, save_every=2),
      **changes,
  )


def test_tracking_learns_behind_matching(tmp_path):
  videos = tmp_path / 'videos'
  write_stored_videos(videos, range(8), SCENE, seed=1)
  config = tapir_tiny_matching.get_config()
  optimizer = dataclasses.replace(
      config.matching.optimizer, num_steps=4, warmup_steps=1
  )
  config = make_small(
      config,
      videos,
      matching=dataclasses.replace(config.matching, optimizer=optimizer),
  )
  training.train_tracker(config, tmp_path / 'matching')
  curves = read_curves(tmp_path / 'matching' / 'curves.csv')
  assert {'train/accuracy', 'validation/match_accuracy'} <= set(curves)
  best = tmp_path / 'matching' / 'best.safetensors'
  matched = tapjax.load('tapir_tiny', checkpoint=best)

  config = tapir_tiny_stored.get_config()
  optimizer = dataclasses.replace(
      config.step.optimizer, num_steps=2, warmup_steps=1
  )
  config = make_small(
      config,
      videos,
      initial=str(best),
      step=dataclasses.replace(config.step, optimizer=optimizer),
  )
  training.train_tracker(config, tmp_path / 'tracking')
  tracker = tapjax.load(checkpoint=tmp_path / 'tracking' / 'best.safetensors')
  assert tracker.config == MODEL
  for module, arrays in tracker.params.params.items():
    same = all(
        np.array_equal(array, matched.params.params[module][name])
        for name, array in arrays.items()
    )
    assert same == ('resnet' in module), module


def test_resolutions_must_agree(tmp_path):
  config = make_small(tapir_tiny_stored.get_config(), tmp_path)
  config = dataclasses.replace(
      config, data=dataclasses.replace(config.data, resolution=(24, 24))
  )
  with pytest.raises(ValueError, match='must be the same; got'):
    training.train_tracker(config, tmp_path / 'run')
