"""LocoTrack with an EfficientNet on panning MOVi-E, as published.

python -m experiments.run --task=train --set data.root=KUBRIC \
  --config=experiments/configs/locotrack_efficientnet_b0_kubric.py --workdir=DIR

Hardware: see `locotrack_base_kubric.py`, whose data and recipe this is, except
for half precision in the encoder. Published weights are of 241 000 steps, those
of `locotrack_efficientnet_b0_934` of 110 000 and of b5 of 285 000. Expected
scores are not published. The full run has not been completed here.

`--set preset=locotrack_efficientnet_b2` trains another one. The input of
b5 at 384x512 is the same videos, enlarged:

  --set preset=locotrack_efficientnet_b5 --set model.precision=bfloat16 \
  --set model.resolution=(256,256) \
  --set model.refinement_resolutions=((384,512),)

Batch norms use the videos of all devices; in the published program, each device
has its own. Blocks are dropped at random for single images, as published.
"""

import dataclasses

from experiments.configs import locotrack_base_kubric
from experiments.recipes.kubric import KubricTrainConfig
from tapjax.models.locotrack.config import EFFICIENTNET_B0


def get_config() -> KubricTrainConfig:
  """Returns the default config."""
  return dataclasses.replace(
      locotrack_base_kubric.get_config(),
      preset='locotrack_efficientnet_b0',
      model=dataclasses.replace(EFFICIENTNET_B0, precision='bfloat16'),
  )
