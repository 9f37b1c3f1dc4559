"""TAPIR on panning MOVi-E, as it was published.

python -m experiments.run --task=train \
  --config=experiments/configs/tapir_kubric.py --workdir=DIR \
  --set data.root=KUBRIC

Hardware: as published 64 TPU-v3 cores with 4 videos each, 50 000 steps; the
published config, as this one, has 100 000 steps and 8 videos for every device,
so pass `--set data.batch_size=` 8 times their number. By the count of
operations, 22 hours on a GPU that makes 30 TFLOP/s of float32; not measured.
Expected Average Jaccard, query first: 58.5 on TAP-Vid-DAVIS, 50.0 on Kinetics,
59.6 on RoboTAP. The full run has not been completed here.

Of Kubric's data sets, published weights were trained on panning MOVi-E: 24
frames of 256x256, 256 points of each video, spread over its objects, windows of
random shape and place, and other colors. `--set data.name=movi_e/256x256` takes
the set whose camera does not pan. The folder KUBRIC is one of
tensorflow-datasets, with panning_movi_e/256x256/1.0.0 below it.
"""

from experiments.recipes.kubric import KubricTrainConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> KubricTrainConfig:
  """Returns the default config."""
  return KubricTrainConfig(
      preset='tapir',
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
