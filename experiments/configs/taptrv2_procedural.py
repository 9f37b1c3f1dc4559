"""TAPTRv2 on procedural videos, with its published loss and optimizer.

python -m experiments.run --task=train \
  --config=experiments/configs/taptrv2_procedural.py --workdir=DIR

The recipe was made for Kubric, on which `taptrv2_kubric.py` trains; the videos
here are as long and as large, with as many points, as those: 24 frames of
512x512 with 800 points, each of which is queried on its first visible frame,
except for a quarter that is queried on any. On all frames except for the first,
rectangles of one color or of another frame occlude the video; some videos get
other colors, or blur. They are mirrored, and their cameras move, so nothing is
cropped. The residual network begins with torchvision's ImageNet weights, which
are downloaded; `--set backbone=FILE` takes a file. AdamW, with gradients
clipped to norm 0.1, takes batches of 32 videos: a learning rate of 2e-4, 1e-5
for the residual network, a tenth of it after 100 of 150 epochs of 11 000 videos
and again after 130. The saved weights are their running average, with a decay
of 0.9997 for every quarter of an update.

Hardware: eight large GPUs; the hours are not measured. No run has been made to
its end. Expected of the published weights, trained on Kubric: an Average
Jaccard of 63.5 on TAP-Vid-DAVIS, query first. On one GPU, `--set
data.batch_size=4 --set data.num_videos=4 --set training.average_parts=1`.
"""

from experiments.config import ValidationConfig
from experiments.recipes.taptr_videos import TaptrTrainConfig
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.models import registry
from tapjax.training.loop import LoopConfig
from tapjax.training.taptr import TaptrTrainingConfig


def get_config() -> TaptrTrainConfig:
  """Returns the default config."""
  preset = registry.get_preset('taptrv2')
  video = ProceduralConfig(
      num_frames=24, resolution=preset.config.resolution, num_queries=800
  )
  return TaptrTrainConfig(
      preset=preset.name,
      data=PoolConfig(
          video=video, batch_size=32, num_videos=32, num_uses=1, num_queries=800
      ),
      validation=ValidationConfig(num_videos=16),
      training=TaptrTrainingConfig(),
      loop=LoopConfig(report_every=50, evaluate_every=1000, save_every=1000),
  )
