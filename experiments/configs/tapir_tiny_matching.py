"""Contrastive training of tapir_tiny's features, before tracking.

python -m experiments.run --task=generate --scene_format=stored \
  --workdir=VIDEOS --num_scenes=1000 --scene_seed=20 \
  --set num_queries=512 --set samples_per_pixel=2
python -m experiments.run --task=train \
  --config=experiments/configs/tapir_tiny_matching.py --workdir=DIR \
  --set data.folder=VIDEOS

Two CPU cores. `tapir_tiny_stored.py` starts from the resulting weights.
"""

import dataclasses

from experiments.config import ValidationConfig
from experiments.recipes.matching import MatchingTrainConfig
from tapjax.data.procedural.stored_videos import StoredConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.models import registry
from tapjax.training.loop import LoopConfig
from tapjax.training.matching import MatchingConfig
from tapjax.training.optimizers import OptimizerConfig

_SIDE = (192, 192)


def get_config() -> MatchingTrainConfig:
  """Returns the default config."""
  model = registry.get_preset('tapir_tiny').config
  video = ProceduralConfig(num_frames=12, num_queries=64, resolution=_SIDE)
  return MatchingTrainConfig(
      preset='tapir_tiny',
      model=dataclasses.replace(model, resolution=_SIDE),
      data=StoredConfig(
          batch_size=4,
          frames='scattered',
          num_frames=4,
          resolution=_SIDE,
          num_points=192,
      ),
      validation=ValidationConfig(video=video, num_videos=8),
      matching=MatchingConfig(
          optimizer=OptimizerConfig(
              peak_lr=8e-4,
              warmup_steps=100,
              num_steps=2600,
              weight_decay=1e-2,
              max_norm=1.0,
          )
      ),
      loop=LoopConfig(report_every=20, evaluate_every=250, save_every=250),
  )
