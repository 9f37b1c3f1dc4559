"""TAPTRv2 on CoTracker's Kubric, as it was published.

python -m experiments.run --task=train \
  --config=experiments/configs/taptrv2_kubric.py --workdir=DIR \
  --set data.root=KUBRIC_MOVIF

Hardware: as published eight GPUs with one video each, and four updates added
up; 32 videos at once here, four for each of eight GPUs of 80 GB. By the count
of operations, 37 hours on eight GPUs that make 30 TFLOP/s of float32 each; not
measured.
Expected Average Jaccard on TAP-Vid, query first: 63.5 on DAVIS, 49.7 on
Kinetics. The full run has not been completed here.

KUBRIC_MOVIF is the folder of CoTracker's MOVi-F, about 11 000 videos, with
0000/0000.npy beside the images of 0000/frames. Of each, 24 frames of 512x512
and 800 points that are visible on the first frame or on the middle one, each
queried where it is first visible, except for a quarter that are queried on any
frame where they are visible. Videos with fewer points are replaced by others.
On frames after the first, rectangles of one color or of another frame occlude
the video; some videos get other colors, or blur; then the camera pans and
zooms, and videos are mirrored. Colors are RGB, in training as in evaluation;
the published program trains on BGR.

The residual network begins with torchvision's ImageNet weights, which are
downloaded; `--set backbone=FILE` takes a file. The optimizer is that of
`taptrv2_procedural.py`. Weights are evaluated on procedural videos, as this
set has no validation split. On one GPU, `--set data.batch_size=4
--set training.average_parts=1`.
"""

from experiments.config import ValidationConfig
from experiments.recipes.taptr_videos import TaptrTrainConfig
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.panning import PanningConfig
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.models import registry
from tapjax.training.loop import LoopConfig
from tapjax.training.taptr import TaptrTrainingConfig


def get_config() -> TaptrTrainConfig:
  """Returns the default config."""
  preset = registry.get_preset('taptrv2')
  return TaptrTrainConfig(
      preset=preset.name,
      data=KubricConfig(
          format='cotracker',
          resolution=preset.config.resolution,
          num_frames=24,
          batch_size=32,
          tracks=MoviTrackConfig(num_points=800),
          queries='first_or_middle',
          random_crop=False,
          recolor=False,
      ),
      panning=PanningConfig(),
      validation=ValidationConfig(num_videos=16),
      training=TaptrTrainingConfig(),
      loop=LoopConfig(report_every=50, evaluate_every=1000, save_every=1000),
  )
