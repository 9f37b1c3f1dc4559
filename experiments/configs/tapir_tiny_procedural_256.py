"""tapir_tiny at 256x256, from weights that `tapir_tiny_procedural.py` made.

python -m experiments.run --task=train \
  --config=experiments/configs/tapir_tiny_procedural_256.py --workdir=DIR \
  --set initial=FIRST/best.safetensors

Two CPU cores; scores on its own held-out videos are in the README.
"""

import dataclasses

from experiments.config import TrainConfig
from experiments.config import ValidationConfig
from tapjax.data.pool import PoolConfig
from tapjax.data.procedural import ProceduralConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> TrainConfig:
  """Returns what is run by default."""
  video = ProceduralConfig(
      num_frames=16, num_queries=192, samples_per_pixel=3, texture_size=256
  )
  return TrainConfig(
      preset='tapir_tiny',
      data=PoolConfig(
          video=video, batch_size=1, num_videos=16, num_uses=4, num_queries=96
      ),
      validation=ValidationConfig(
          video=dataclasses.replace(video, num_queries=64), num_videos=10
      ),
      step=StepConfig(
          optimizer=OptimizerConfig(
              peak_lr=7e-4,
              warmup_steps=50,
              num_steps=800,
              weight_decay=1e-2,
              max_norm=1.0,
          )
      ),
      loop=LoopConfig(report_every=20, evaluate_every=200, save_every=100),
      seed=1,
  )
