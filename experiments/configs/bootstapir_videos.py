"""BootsTAPIR's second stage: it learns from videos without truth.

python -m experiments.run --task=finetune --model=bootstapir \
  --config=experiments/configs/bootstapir_videos.py --workdir=DIR \
  --checkpoint=FIRST_STAGE/best.safetensors --set data.videos=FOLDER

`bootstapir_kubric.py` is the first stage. A running average of the weights, the
teacher, tracks random points of clean clips; the student is shown them shrunk,
moving and degraded, begins at another point of a track, and learns what the
teacher says where it finds back to within 4 pixels. Procedural videos go on
beside it, with an optimizer of their own, in the place of Kubric's.

Hardware: not published; about 15 million clips. By the count of operations, a
clip and a procedural video take five times as long as one of `tapir_kubric.py`.
Expected Average Jaccard, query first, behind both stages: 62.4 on
TAP-Vid-DAVIS, 55.8 on Kinetics, 69.2 on RoboTAP. The learning rate, the
teacher's decay, the sizes of frames and the quality of pictures are not those
of the paper, which were not at hand. It has not been run to its end here.
"""

from experiments.config import SelfTrainConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.unlabeled.clips import UnlabeledConfig
from tapjax.training.bootstrap import SelfTrainingConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.losses import LossConfig
from tapjax.training.optimizers import OptimizerConfig


def get_config() -> SelfTrainConfig:
  """Returns what is run by default."""
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
