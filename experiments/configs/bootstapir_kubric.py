"""BootsTAPIR on panning MOVi-E: its first stage.

python -m experiments.run --task=train \
  --config=experiments/configs/bootstapir_kubric.py --workdir=DIR \
  --set data.root=KUBRIC

Hardware: see `tapir_kubric.py`, whose data and recipe this is; the extra
convolutions double its hours. Behind it comes `bootstapir_videos.py`, which
learns from videos without truth. Expected Average Jaccard, query first, behind
both stages: 62.4 on TAP-Vid-DAVIS, 55.8 on Kinetics, 69.2 on RoboTAP. It has
not been run to its end here.
"""

import dataclasses

from experiments.config import KubricTrainConfig
from experiments.configs import tapir_kubric


def get_config() -> KubricTrainConfig:
  """Returns what is run by default."""
  # Without a model, it is the preset's.
  return dataclasses.replace(
      tapir_kubric.get_config(), preset='bootstapir', model=None
  )
