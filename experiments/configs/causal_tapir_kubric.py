"""Causal TAPIR on panning MOVi-E, as it was published.

python -m experiments.run --task=train \
  --config=experiments/configs/causal_tapir_kubric.py --workdir=DIR \
  --set data.root=KUBRIC

Hardware: see `tapir_kubric.py`, whose data and recipe this is. Expected Average
Jaccard, query first: 56.2 on TAP-Vid-DAVIS, 51.2 on Kinetics, 59.1 on RoboTAP.
The full run has not been completed here.
"""

import dataclasses

from experiments.configs import tapir_kubric
from experiments.recipes.kubric import KubricTrainConfig


def get_config() -> KubricTrainConfig:
  """Returns the default config."""
  # Without a model, it is the preset's.
  return dataclasses.replace(
      tapir_kubric.get_config(), preset='causal_tapir', model=None
  )
