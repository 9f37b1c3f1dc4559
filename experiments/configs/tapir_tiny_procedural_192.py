"""tapir_tiny at 192x192, from weights that `tapir_tiny_procedural.py` made.

python -m experiments.run --task=train \
  --config=experiments/configs/tapir_tiny_procedural_192.py --workdir=DIR \
  --set initial=FIRST/best.safetensors

Two CPU cores; scores on its own held-out videos are in the README.
"""

import dataclasses

from experiments.config import TrainConfig
from experiments.config import ValidationConfig
from tapjax.data.pool import PoolConfig
from tapjax.data.procedural import ProceduralConfig
from tapjax.models import registry
from tapjax.training.loop import LoopConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> TrainConfig:
  """Returns what is run by default."""
  side = (192, 192)
  # As large and as fast, in pixels, as in videos of 256x256.
  video = ProceduralConfig(
      num_frames=16,
      resolution=side,
      num_queries=192,
      object_radius=(24.0, 147.0),
      object_speed=(0.27, 21.0),
      camera_speed=(0.13, 13.0),
      samples_per_pixel=3,
  )
  model = registry.get_preset('tapir_tiny').config
  return TrainConfig(
      preset='tapir_tiny',
      model=dataclasses.replace(
          model, resolution=side, initial_resolution=side
      ),
      data=PoolConfig(
          video=video, batch_size=1, num_videos=16, num_uses=4, num_queries=80
      ),
      validation=ValidationConfig(
          video=dataclasses.replace(video, num_queries=64), num_videos=12
      ),
      step=StepConfig(
          optimizer=OptimizerConfig(
              peak_lr=1e-3,
              warmup_steps=50,
              num_steps=1000,
              weight_decay=1e-2,
              max_norm=1.0,
          )
      ),
      loop=LoopConfig(report_every=20, evaluate_every=250, save_every=100),
      seed=1,
  )
