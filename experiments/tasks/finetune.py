"""Fine-tuning of a pretrained tracker.

On the data of any config, or on unlabeled videos: `--videos=FOLDER`.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from experiments.config import override_config
from experiments.config import PUBLISHED
from experiments.config import read_config
from experiments.config import RunConfig
from experiments.recipes.self_training import SelfTrainConfig
from experiments.tasks import benchmark
from experiments.tasks import evaluate
from experiments.tasks import forward_backward
from experiments.tasks import training
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.unlabeled.clips import UnlabeledConfig
from tapjax.models import registry

_FROZEN = flags.DEFINE_list(
    'frozen',
    [],
    'Patterns of modules whose weights stay, such as *resnet*, for '
    '--task=finetune.',
)


def run(workdir: str) -> None:
  """Trains on the data and from the weights named by the flags."""
  training.train_tracker(make_config(), pathlib.Path(workdir))


def make_config() -> RunConfig:
  """Returns the config described by the flags."""
  path, videos = training.CONFIG.value, forward_backward.VIDEOS.value or []
  if (path is None) == (not videos):
    raise ValueError(
        '--task=finetune needs either --config=FILE or --videos=DIR'
    )
  models = benchmark.MODELS.value if benchmark.MODELS.present else []
  if len(models) > 1:
    raise ValueError(f'--model must be one preset; got {", ".join(models)}')
  if path is not None:
    config = read_config(path)
    if models and models[0] != config.preset:
      config = dataclasses.replace(config, preset=models[0], model=None)
  else:
    if len(videos) != 1:
      raise ValueError('--videos must be one folder for --task=finetune')
    name = models[0] if models else registry.DEFAULT
    config = make_self_training_config(name, videos[0])
  checkpoint = evaluate.CHECKPOINT.value
  config = dataclasses.replace(config, initial=checkpoint or PUBLISHED)
  config = override_config(config, training.CHANGES.value)
  return freeze_parts(config, tuple(_FROZEN.value))


def make_self_training_config(name: str, videos: str) -> SelfTrainConfig:
  """Returns a config of self-training of a preset on unlabeled videos."""
  preset = registry.get_preset(name)
  resolution = preset.config.resolution
  return SelfTrainConfig(
      preset=name,
      data=UnlabeledConfig(videos=videos, resolution=resolution),
      labeled=ProceduralConfig(resolution=resolution),
  )


def freeze_parts(config: RunConfig, patterns: tuple[str, ...]) -> RunConfig:
  """Returns a config with frozen modules, by patterns of their names."""
  if not patterns:
    return config
  for field in ('step', 'training'):
    settings: Any = getattr(config, field, None)
    optimizer: Any = getattr(settings, 'optimizer', None)
    if hasattr(optimizer, 'frozen'):
      optimizer = dataclasses.replace(optimizer, frozen=patterns)
      settings = dataclasses.replace(settings, optimizer=optimizer)
      return dataclasses.replace(config, **{field: settings})
  raise ValueError(
      f'--frozen is not for a {type(config).__name__}, whose optimizer is its '
      'own - use a config of TAP-Net, TAPIR or LocoTrack, or --videos'
  )
