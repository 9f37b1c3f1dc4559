"""locotrack_small on procedural videos, with the published loss and recipe.

python -m experiments.run --task=train \
  --config=experiments/configs/locotrack_small_procedural.py --workdir=DIR

The recipe is that of the JAX program: equal weights for the first guess and
each of four iterations, gradients clipped to norm 1, Adam with a weight decay
of 1e-3, a warm-up of 1000 steps to a learning rate of 1e-3, and a half-cosine
decay to 0 at step 300 000. Videos have the format of
that program: 24 frames of 256x256 with 256 tracks.

Made for GPUs; no run has been made to its end, and there is no score yet.
"""

from experiments.config import ValidationConfig
from experiments.recipes.procedural import TrainConfig
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.losses import LossConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> TrainConfig:
  """Returns the default config."""
  video = ProceduralConfig(
      num_frames=24, resolution=(256, 256), num_queries=256
  )
  return TrainConfig(
      preset='locotrack_small',
      data=PoolConfig(
          video=video, batch_size=8, num_videos=8, num_uses=1, num_queries=256
      ),
      validation=ValidationConfig(num_videos=16),
      step=StepConfig(
          losses=LossConfig(
              position_weight=0.05,
              huber_delta=4.0,
              uncertainty_threshold=6.0,
              rebalance_factor=0.0,
          ),
          optimizer=OptimizerConfig(
              kind='adam',
              peak_lr=1e-3,
              end_lr=0.0,
              schedule='cosine',
              warmup_steps=1000,
              num_steps=300_000,
              weight_decay=1e-3,
              max_norm=1.0,
              b1=0.9,
              b2=0.95,
              eps=1e-8,
              max_bad_steps=5,
          ),
      ),
      loop=LoopConfig(report_every=50, evaluate_every=1000, save_every=1000),
      seed=42,
  )
