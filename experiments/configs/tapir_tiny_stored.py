"""tapir_tiny on stored procedural videos, from pretrained features.

python -m experiments.run --task=train \
  --config=experiments/configs/tapir_tiny_stored.py --workdir=DIR \
  --set data.folder=VIDEOS --set initial=MATCHING/latest.safetensors

`tapir_tiny_matching.py` documents how to make VIDEOS and MATCHING. Features are
frozen, which halves the time of a step; a second run trains all weights, with

  --set initial=DIR/latest.safetensors --set 'step.optimizer.frozen=()' \
  --set step.optimizer.peak_lr=6e-4

Two CPU cores; scores are in the README.
"""

import dataclasses

from experiments.config import ValidationConfig
from experiments.configs import tapir_tiny_matching
from experiments.recipes.procedural import TrainConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.losses import LossConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig

_SIDE = (224, 224)


def get_config() -> TrainConfig:
  """Returns the default config."""
  first = tapir_tiny_matching.get_config()
  return TrainConfig(
      preset=first.preset,
      model=dataclasses.replace(first.model, resolution=_SIDE),
      data=dataclasses.replace(
          first.data,
          batch_size=2,
          frames='consecutive',
          num_frames=24,
          resolution=_SIDE,
          # The tracker sees small videos enlarged, and large ones as they are.
          zoom=(0.9, 1.9),
          # Videos have too few turns by which to learn to follow them.
          drift_zoom=0.6,
          drift_turn=1.8,
          num_points=64,
      ),
      validation=ValidationConfig(
          video=dataclasses.replace(
              first.validation.video, num_frames=20, resolution=_SIDE
          ),
          num_videos=12,
      ),
      step=StepConfig(
          # An error of a quarter of a pixel pulls as much as one of ten pixels,
          # for the sake of what is nearly right.
          losses=LossConfig(
              position_weight=0.8, huber_delta=0.25, heatmap_weight=0.5
          ),
          optimizer=OptimizerConfig(
              peak_lr=1e-3,
              warmup_steps=100,
              num_steps=2000,
              weight_decay=1e-2,
              max_norm=1.0,
              frozen=('*resnet*',),
          ),
      ),
      loop=LoopConfig(report_every=20, evaluate_every=200, save_every=200),
      seed=1,
  )
