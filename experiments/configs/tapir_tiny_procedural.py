"""tapir_tiny on procedural videos, at 128x128.

python -m experiments.run --task=train \
  --config=experiments/configs/tapir_tiny_procedural.py --workdir=DIR

Two CPU cores; scores on its own held-out videos are in the README.
"""

import dataclasses

from experiments.config import ValidationConfig
from experiments.recipes.procedural import TrainConfig
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.models import registry
from tapjax.training.loop import LoopConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> TrainConfig:
  """Returns the default config."""
  side = (128, 128)
  video = ProceduralConfig(
      num_frames=12,
      resolution=side,
      num_queries=192,
      object_radius=(30.0, 150.0),
      samples_per_pixel=2,
      texture_size=128,
  )
  model = registry.get_preset('tapir_tiny').config
  return TrainConfig(
      preset='tapir_tiny',
      model=dataclasses.replace(model, resolution=side),
      data=PoolConfig(
          video=video, batch_size=2, num_videos=32, num_uses=4, num_queries=64
      ),
      validation=ValidationConfig(
          video=dataclasses.replace(video, num_queries=64), num_videos=16
      ),
      step=StepConfig(
          optimizer=OptimizerConfig(
              peak_lr=1.5e-3,
              warmup_steps=200,
              num_steps=1900,
              weight_decay=1e-2,
              max_norm=1.0,
          )
      ),
      loop=LoopConfig(report_every=20, evaluate_every=250, save_every=250),
  )
