"""tapir_tiny at 192x192, from weights of `tapir_tiny_procedural.py`.

python -m experiments.run --task=train \
  --config=experiments/configs/tapir_tiny_procedural_192.py --workdir=DIR \
  --set initial=FIRST/best.safetensors

Two CPU cores; scores on its own held-out videos are in the README.
"""

import dataclasses

from experiments.configs import tapir_tiny_procedural
from experiments.recipes.procedural import TrainConfig
from tapjax.data.procedural.pool import PoolConfig

_SIDE = (192, 192)


def get_config() -> TrainConfig:
  """Returns the default config."""
  first = tapir_tiny_procedural.get_config()
  assert isinstance(first.data, PoolConfig)
  # As large and as fast, in pixels, as in videos of 256x256.
  video = dataclasses.replace(
      first.data.video,
      num_frames=16,
      resolution=_SIDE,
      object_radius=(24.0, 147.0),
      object_speed=(0.27, 21.0),
      camera_speed=(0.13, 13.0),
      samples_per_pixel=3,
      texture_size=256,
  )
  return dataclasses.replace(
      first,
      model=dataclasses.replace(first.model, resolution=_SIDE),
      data=dataclasses.replace(
          first.data, video=video, batch_size=1, num_videos=16, num_queries=80
      ),
      validation=dataclasses.replace(
          first.validation,
          video=dataclasses.replace(video, num_queries=64),
          num_videos=12,
      ),
      step=dataclasses.replace(
          first.step,
          optimizer=dataclasses.replace(
              first.step.optimizer,
              peak_lr=1e-3,
              warmup_steps=50,
              num_steps=1000,
          ),
      ),
      loop=dataclasses.replace(first.loop, save_every=100),
      seed=1,
  )
