"""Settings of fine-tuning."""

import pytest

from experiments.config import read_config
from experiments.tasks import finetune
from tests.experiments.test_self_training import CONFIGS


def test_parts_are_frozen_by_name():
  config = finetune.make_self_training_config('tapir_tiny', 'videos')
  frozen = finetune.freeze_parts(config, ('*resnet*',))
  assert frozen.training.optimizer.frozen == ('*resnet*',)
  config = read_config(str(CONFIGS / 'tapir_kubric.py'))
  frozen = finetune.freeze_parts(config, ('*mixer*', '*resnet*'))
  assert frozen.step.optimizer.frozen == ('*mixer*', '*resnet*')
  assert finetune.freeze_parts(config, ()) == config
  taptr = read_config(str(CONFIGS / 'taptrv2_procedural.py'))
  with pytest.raises(ValueError, match='--frozen is not for a Taptr'):
    finetune.freeze_parts(taptr, ('*backbone*',))
