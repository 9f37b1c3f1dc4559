"""locotrack_base on procedural videos, as `locotrack_small_procedural.py`.

python -m experiments.run --task=train \
  --config=experiments/configs/locotrack_base_procedural.py --workdir=DIR

Made for GPUs; no run has been made to its end, and there is no score yet.
"""

import dataclasses

from experiments.configs import locotrack_small_procedural
from experiments.recipes.procedural import TrainConfig
from tapjax.models import registry


def get_config() -> TrainConfig:
  """Returns the default config."""
  preset = 'locotrack_base'
  return dataclasses.replace(
      locotrack_small_procedural.get_config(),
      preset=preset,
      model=registry.get_preset(preset).config,
  )
