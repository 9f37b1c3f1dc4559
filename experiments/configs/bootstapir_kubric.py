"""BootsTAPIR on panning MOVi-E: its first stage.

python -m experiments.run --task=train \
  --config=experiments/configs/bootstapir_kubric.py --workdir=DIR \
  --set data.root=KUBRIC

Hardware: see `tapir_kubric.py`, whose data and recipe this is; the extra
convolutions double its hours. The second stage is `bootstapir_videos.py`, on
unlabeled videos. Expected Average Jaccard, query first, after both stages: 62.4
on TAP-Vid-DAVIS, 55.8 on Kinetics, 69.2 on RoboTAP. The full run has not been
completed here.
"""

import dataclasses

from experiments.configs import tapir_kubric
from experiments.recipes.kubric import KubricTrainConfig


def get_config() -> KubricTrainConfig:
  """Returns the default config."""
  # Without a model, it is the preset's.
  return dataclasses.replace(
      tapir_kubric.get_config(), preset='bootstapir', model=None
  )
