"""PIPs++ at high resolution: the second of its two published stages.

python -m experiments.run --task=train \
  --config=experiments/configs/pips_plus_plus_pointodyssey_high_resolution.py \
  --workdir=DIR --set data.root=POINT_ODYSSEY/train \
  --set initial=FIRST/best.safetensors

One GPU; d_avg of the published weights on TAP-Vid-DAVIS: 70.6.
"""

import dataclasses

from experiments.configs import pips_plus_plus_pointodyssey
from experiments.recipes.pips_clips import PipsTrainConfig
from tapjax.data.point_odyssey.clips import ClipConfig


def get_config() -> PipsTrainConfig:
  """Returns the default config."""
  first = pips_plus_plus_pointodyssey.get_config()
  side = (512, 896)
  return dataclasses.replace(
      first,
      model=dataclasses.replace(first.model, resolution=side, num_iterations=4),
      data=dataclasses.replace(
          first.data,
          batch_size=1,
          clips=ClipConfig(
              num_frames=64,
              num_points=64,
              crop=side,
              strides=(1, 2),
              least_share=0.5,
          ),
      ),
      training=dataclasses.replace(
          first.training, num_steps=10_000, max_norm=1.0
      ),
  )
