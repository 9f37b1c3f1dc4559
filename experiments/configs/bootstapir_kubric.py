"""BootsTAPIR on panning MOVi-E: its first stage.

python -m experiments.run --task=train \
  --config=experiments/configs/bootstapir_kubric.py --workdir=DIR \
  --set data.root=KUBRIC

Hardware: see `tapir_kubric.py`, whose recipe this is; the extra convolutions
double its hours. Behind it comes `bootstapir_videos.py`, which learns from
videos without truth. Expected Average Jaccard, query first, behind both stages:
62.4 on TAP-Vid-DAVIS, 55.8 on Kinetics, 69.2 on RoboTAP. It has not been run to
its end here.

Of Kubric's data sets, published weights were trained on panning MOVi-E: 24
frames of 256x256, 256 points of each video, spread over its objects, windows of
random shape and place, and other colors. `--set data.name=movi_e/256x256` takes
the set whose camera does not pan. The folder KUBRIC is one of
tensorflow-datasets, with panning_movi_e/256x256/1.0.0 below it.
"""

from experiments.config import KubricTrainConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> KubricTrainConfig:
  """Returns what is run by default."""
  return KubricTrainConfig(
      preset='bootstapir',
      step=StepConfig(
          optimizer=OptimizerConfig(
              peak_lr=1e-3,
              warmup_steps=1000,
              num_steps=100_000,
              weight_decay=1e-1,
          ),
          refined_queries=32,
      ),
  )
