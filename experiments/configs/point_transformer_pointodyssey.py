"""The point transformer on windows of PointOdyssey, as it was published.

python -m experiments.run --task=train \
  --config=experiments/configs/point_transformer_pointodyssey.py \
  --workdir=DIR --set data.root=POINT_ODYSSEY/train

One GPU; no weights or scores are published. Options of the training program,
with their names here and their defaults:

  --data_root             data.root
  --video_dirs a,b        data.scenes=('a','b')       None: all
  --batch_size            data.batch_size             4
  --num_workers           data.num_workers            4
  --epochs                training.num_epochs         50
  --lr                    training.peak_lr            1e-4
  --sequence_length       model.window                8
  --num_points            model.num_points            8
  --image_size            model.resolution            (256,256)
  --backbone resnet34     preset=point_transformer_resnet34
  --no_pretrained         backbone=None               'imagenet'
  --save_dir, --log_dir   --workdir
  --resume                the same command again; resume=latest.pth resumes
                          from a file of the training program, with optimizer,
                          epoch and losses; initial=latest.pth starts a new run
                          from its weights

and fixed values of it: training.max_norm, a cosine from the first epoch to
the last, data.train_share and data.most_frames. Whole scenes are kept for
validation; data.split=window keeps windows, as published, nearly all of
whose frames are in training windows as well.
"""

from experiments.recipes.point_windows import PointTrainConfig


def get_config() -> PointTrainConfig:
  """Returns the default config."""
  return PointTrainConfig(preset='point_transformer_resnet18')
