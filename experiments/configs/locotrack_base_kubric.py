"""LocoTrack, the base network, on panning MOVi-E, as published.

python -m experiments.run --task=train \
  --config=experiments/configs/locotrack_base_kubric.py --workdir=DIR \
  --set data.root=KUBRIC

Hardware: GPUs with 4 videos each, how many is not published; 300 000 steps.
Expected Average Jaccard, query first: 62.6 on TAP-Vid-DAVIS, as measured by
others on the published weights. `--set preset=locotrack_small` trains the small
network. The full run has not been completed here.

Of Kubric's data sets, published weights were trained on panning MOVi-E: 24
frames of 256x256, 256 points of each video, spread over its objects, windows of
random shape and place, and other colors. `--set data.name=movi_e/256x256` takes
the set whose camera does not pan. The folder KUBRIC is one of
tensorflow-datasets, with panning_movi_e/256x256/1.0.0 below it.
"""

from experiments.recipes.kubric import KubricTrainConfig
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config() -> KubricTrainConfig:
  """Returns the default config."""
  return KubricTrainConfig(
      preset='locotrack_base',
      data=KubricConfig(batch_size=4, tracks=MoviTrackConfig(most_segments=40)),
      step=StepConfig(
          optimizer=OptimizerConfig(
              peak_lr=1e-3,
              warmup_steps=1000,
              num_steps=300_000,
              weight_decay=1e-3,
              max_norm=1.0,
          )
      ),
  )
