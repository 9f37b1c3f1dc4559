"""BootsTAPIR's second stage: self-training on unlabeled videos.

python -m experiments.run --task=finetune --model=bootstapir \
  --config=experiments/configs/bootstapir_videos.py --workdir=DIR \
  --checkpoint=FIRST_STAGE/best.safetensors --set data.videos=FOLDER

`bootstapir_kubric.py` is the first stage. A running average of the weights, the
teacher, tracks random points of clean clips. The student sees these clips
shrunk, moving and degraded, starts at another point of a track, and is trained
on the teacher's track if its forward-backward error is below 4 pixels.
Procedural videos replace those of Kubric, with a separate optimizer.

Hardware: not published; about 15 million clips. By the count of operations, a
clip and a procedural video take five times as long as one of `tapir_kubric.py`.
Expected Average Jaccard, query first, after both stages: 62.4 on TAP-Vid-DAVIS,
55.8 on Kinetics, 69.2 on RoboTAP. The learning rate, the teacher's decay, the
sizes of frames and the quality of pictures are not those of the paper, which
are not known here. The full run has not been completed here.
"""

from experiments.recipes.self_training import SelfTrainConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.unlabeled.clips import UnlabeledConfig
from tapjax.training.bootstrap import SelfTrainingConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.losses import LossConfig
from tapjax.training.optimizers import OptimizerConfig


def get_config() -> SelfTrainConfig:
  """Returns the default config."""
  return SelfTrainConfig(
      preset='bootstapir',
      data=UnlabeledConfig(batch_size=4, num_queries=128),
      labeled=ProceduralConfig(num_queries=64),
      labeled_batch=4,
      held_out=8,
      training=SelfTrainingConfig(
          losses=LossConfig(),
          optimizer=OptimizerConfig(
              peak_lr=1e-4,
              warmup_steps=1000,
              num_steps=100_000,
              weight_decay=1e-1,
          ),
          teacher_decay=0.999,
          least_confidence=0.0,
      ),
      loop=LoopConfig(report_every=50, evaluate_every=2000, save_every=1000),
  )
