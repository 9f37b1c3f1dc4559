"""PIPs++ on clips of PointOdyssey, the first of its two published stages.

python -m experiments.run --task=train \
  --config=experiments/configs/pips_plus_plus_pointodyssey.py \
  --workdir=DIR --set data.root=POINT_ODYSSEY/train

One GPU; the published weights, with the second stage, score a d_avg of 70.6 on
TAP-Vid-DAVIS. For tests, load the weights with resolution=(512, 896) and
num_iterations=16.
"""

import dataclasses

from experiments.recipes.pips_clips import PipsTrainConfig
from tapjax.data.point_odyssey.clip_batches import ClipDataConfig
from tapjax.data.point_odyssey.clips import ClipConfig
from tapjax.models import registry
from tapjax.training.pips import PipsTrainingConfig


def get_config() -> PipsTrainConfig:
  """Returns the default config."""
  side = (256, 384)
  model = registry.get_preset('pips_plus_plus').config
  return PipsTrainConfig(
      preset='pips_plus_plus',
      model=dataclasses.replace(model, resolution=side, num_iterations=6),
      data=ClipDataConfig(
          batch_size=4,
          clips=ClipConfig(num_frames=36, num_points=128, crop=side),
      ),
      training=PipsTrainingConfig(num_steps=200_000, max_norm=5.0),
  )
