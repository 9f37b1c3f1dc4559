"""Configs of experiments, from files, with overrides `--set a.b=c`."""

import ast
from collections.abc import Iterable
import dataclasses
import pathlib
import runpy
from typing import Any

from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.panning import PanningConfig
from tapjax.data.point_odyssey.clip_batches import ClipDataConfig
from tapjax.data.point_odyssey.window_batches import PointDataConfig
from tapjax.data.point_odyssey.windows import WindowConfig
from tapjax.data.procedural.distractors import DistractorConfig
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.stored_videos import StoredConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.unlabeled.clips import UnlabeledConfig
from tapjax.models import registry
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.taptr.config import TaptrConfig
from tapjax.settings import freeze
from tapjax.settings import replace_settings
from tapjax.training.backbones import IMAGENET
from tapjax.training.bootstrap import SelfTrainingConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.matching import MatchingConfig
from tapjax.training.pips import PipsTrainingConfig
from tapjax.training.point_transformer import PointTrainingConfig
from tapjax.training.step import StepConfig
from tapjax.training.taptr import TaptrTrainingConfig

# What stands for the weights that a preset was published with.
PUBLISHED = 'published'


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
  """Held-out procedural videos, the same at every evaluation.

  Attributes:
    video: settings of the videos.
    num_videos: number of videos.
    seed: seed of the videos; training videos use other keys.
  """

  video: ProceduralConfig = dataclasses.field(
      default_factory=lambda: ProceduralConfig(num_queries=64)
  )
  num_videos: int = 8
  seed: int = 1_000_003


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Settings of every training run.

  Attributes:
    preset: preset of the trained architecture.
    model: config of the architecture; None for that of the preset, also after
      an override of `preset`.
    initial: initial weights: a file, or 'published' for those of the preset;
      None for random ones.
    seed: seed of the weights and of the data.
  """

  preset: str
  model: Any = None
  initial: str | None = None
  seed: int = 0

  def __post_init__(self):
    if self.model is None:
      preset = registry.get_preset(self.preset)
      object.__setattr__(self, 'model', preset.config)


@dataclasses.dataclass(frozen=True)
class TrainConfig(RunConfig):
  """Training on procedural videos.

  Attributes:
    data: training videos, generated during training or stored.
    validation: videos of the evaluation.
    step: losses and optimizer.
    loop: intervals of the loop.
  """

  data: PoolConfig | StoredConfig = dataclasses.field(
      default_factory=PoolConfig
  )
  validation: ValidationConfig = dataclasses.field(
      default_factory=ValidationConfig
  )
  step: StepConfig = dataclasses.field(default_factory=StepConfig)
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)


@dataclasses.dataclass(frozen=True)
class MatchingTrainConfig(RunConfig):
  """Training of a TAPIR's features on stored procedural videos.

  Attributes:
    data: training videos.
    validation: videos of the evaluation.
    matching: loss and optimizer.
    loop: intervals of the loop.
  """

  data: StoredConfig = dataclasses.field(
      default_factory=lambda: StoredConfig(frames='scattered', num_frames=4)
  )
  validation: ValidationConfig = dataclasses.field(
      default_factory=ValidationConfig
  )
  matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.model, TapirConfig):
      raise ValueError(f'preset must be a TAPIR; got {self.preset!r}')


@dataclasses.dataclass(frozen=True)
class KubricTrainConfig(RunConfig):
  """Training on videos of Kubric.

  Attributes:
    data: training videos.
    validation_split: split of the same data set with the videos of the
      evaluation; None for procedural videos, which are also used for
      CoTracker's format, as it has no splits.
    num_validation: number of videos of the evaluation.
    step: losses and optimizer.
    loop: intervals of the loop.
  """

  data: KubricConfig = dataclasses.field(default_factory=KubricConfig)
  validation_split: str | None = 'validation'
  num_validation: int = 16
  step: StepConfig = dataclasses.field(default_factory=StepConfig)
  loop: LoopConfig = dataclasses.field(
      default_factory=lambda: LoopConfig(
          report_every=50, evaluate_every=10_000, save_every=1000
      )
  )


@dataclasses.dataclass(frozen=True)
class SelfTrainConfig(RunConfig):
  """Self-training on unlabeled videos.

  Attributes:
    data: unlabeled clips, at the resolution of the model, which
      `data.resolution` repeats.
    labeled: procedural videos for simultaneous supervised training, against
      forgetting.
    labeled_batch: number of labeled videos per update, over all devices; 0 for
      none.
    held_out: number of videos of the folder, the last ones by name, that are
      held out; the score of weights is the fraction of their points with a
      small forward-backward error.
    training: losses and optimizer.
    loop: intervals of the loop.
  """

  initial: str | None = PUBLISHED
  data: UnlabeledConfig = dataclasses.field(default_factory=UnlabeledConfig)
  labeled: ProceduralConfig = dataclasses.field(
      default_factory=ProceduralConfig
  )
  labeled_batch: int = 0
  held_out: int = 1
  training: SelfTrainingConfig = dataclasses.field(
      default_factory=SelfTrainingConfig
  )
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)

  def __post_init__(self):
    super().__post_init__()
    if self.held_out < 1:
      raise ValueError(f'held_out must be at least 1; got {self.held_out}')


@dataclasses.dataclass(frozen=True)
class EpochLoopConfig:
  """Intervals of training by epochs.

  Each epoch ends with an evaluation and a snapshot.

  Attributes:
    report_every: interval of scalars, in updates.
    draw_every: interval of figures of training batches, in updates of an epoch.
    num_latest: number of latest snapshots to keep, besides the best one.
  """

  report_every: int = 1
  draw_every: int = 50
  num_latest: int = 2

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if getattr(self, field.name) < 1:
        raise ValueError(
            f'{field.name} must be at least 1; got {getattr(self, field.name)}'
        )


@dataclasses.dataclass(frozen=True)
class PointTrainConfig(RunConfig):
  """Training of a point transformer on windows of PointOdyssey.

  Numbers of frames and points and the resolution of windows are those of the
  model.

  Attributes:
    backbone: initial weights of the residual network: 'imagenet', which
      downloads those of torchvision, or a file in that layout; None for random
      ones. `initial` takes precedence.
    resume: a latest.pth of the published program to resume from, with its
      weights, optimizer, epoch and losses; `initial` takes only weights.
      Existing snapshots of the run take precedence.
    data: training windows.
    training: loss and optimizer.
    loop: intervals of the loop.
  """

  backbone: str | None = IMAGENET
  resume: str | None = None
  data: PointDataConfig = dataclasses.field(default_factory=PointDataConfig)
  training: PointTrainingConfig = dataclasses.field(
      default_factory=PointTrainingConfig
  )
  loop: EpochLoopConfig = dataclasses.field(default_factory=EpochLoopConfig)

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.model, PointTransformerConfig):
      raise ValueError(
          'preset must be a point transformer, such as '
          f'point_transformer_resnet18; got {self.preset!r}'
      )
    if self.resume is not None and self.initial is not None:
      raise ValueError(
          'resume and initial must not both be set; got '
          f'{self.resume!r} and {self.initial!r}'
      )

  @property
  def windows(self) -> WindowConfig:
    """Settings of the training windows."""
    return WindowConfig(
        num_frames=self.model.window,
        num_points=self.model.num_points,
        resolution=self.model.resolution,
        most_frames=self.data.most_frames,
    )


@dataclasses.dataclass(frozen=True)
class PipsTrainConfig(RunConfig):
  """Training of PIPs++ on clips of PointOdyssey.

  Clips have the resolution of the model, which `data.clips.crop` repeats.

  Attributes:
    data: training clips.
    training: loss and optimizer.
    loop: intervals of the loop; a line is printed with every report.
  """

  data: ClipDataConfig = dataclasses.field(default_factory=ClipDataConfig)
  training: PipsTrainingConfig = dataclasses.field(
      default_factory=PipsTrainingConfig
  )
  loop: LoopConfig = dataclasses.field(
      default_factory=lambda: LoopConfig(
          report_every=1, evaluate_every=1000, save_every=1000
      )
  )

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.model, PipsPlusPlusConfig):
      raise ValueError(f'preset must be pips_plus_plus; got {self.preset!r}')


@dataclasses.dataclass(frozen=True)
class TaptrTrainConfig(RunConfig):
  """Training of TAPTRv2 on procedural videos, or those of Kubric.

  Videos have the resolution of the model, which `data.video.resolution`, or
  `data.resolution` of Kubric, repeats.

  Attributes:
    backbone: initial weights of the residual network: 'imagenet', which
      downloads those of torchvision, or a file in that layout; None for random
      ones. `initial` takes precedence.
    data: training videos.
    distractors: added to training videos; None for none.
    panning: settings of the camera motion added after them; None for none, as
      in procedural videos, whose cameras move.
    validation: videos of the evaluation.
    training: losses and optimizer.
    loop: intervals of the loop.
  """

  backbone: str | None = IMAGENET
  data: PoolConfig | KubricConfig = dataclasses.field(
      default_factory=PoolConfig
  )
  distractors: DistractorConfig | None = dataclasses.field(
      default_factory=DistractorConfig
  )
  panning: PanningConfig | None = None
  validation: ValidationConfig = dataclasses.field(
      default_factory=ValidationConfig
  )
  training: TaptrTrainingConfig = dataclasses.field(
      default_factory=TaptrTrainingConfig
  )
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.model, TaptrConfig):
      raise ValueError(f'preset must be taptrv2; got {self.preset!r}')


# Everything that can be trained.
ExperimentConfig = (
    KubricTrainConfig
    | MatchingTrainConfig
    | PipsTrainConfig
    | PointTrainConfig
    | SelfTrainConfig
    | TaptrTrainConfig
    | TrainConfig
)


def read_config(path: str) -> ExperimentConfig:
  """Runs a config file and returns the result of its `get_config`."""
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
        f'--config must be a Python file, such as those in experiments/configs;'
        f' there is no {path}'
    )
  make_config = runpy.run_path(path).get('get_config')
  if make_config is None:
    raise ValueError(f'{path} must define get_config(); it does not')
  config = make_config()
  if not isinstance(config, ExperimentConfig):
    raise ValueError(
        f'get_config() of {path} must return a TrainConfig; got {config!r} - '
        'or another config of experiments/config.py'
    )
  return config


def override_config(config: Any, changes: Iterable[str]) -> Any:
  """Applies changes such as `step.optimizer.peak_lr=3e-4`, in order.

  Values are Python literals, or else strings.

  Raises:
    ValueError: a field does not exist, or a value has the wrong type; the
      message lists the existing fields.
  """
  for change in changes:
    path, equals, text = change.partition('=')
    if not equals or not path:
      raise ValueError(
          f'--set must be a.b=value, such as data.batch_size=4; got {change!r}'
      )
    try:
      config = _replace(config, path.split('.'), _parse(text))
    except ValueError as error:
      raise ValueError(f'--set {change}: {error}') from None
  return config


def _replace(config: Any, path: list[str], value: Any) -> Any:
  name, *rest = path
  if not dataclasses.is_dataclass(config):
    raise ValueError(f'there is nothing called {name!r} in a value')
  if rest:
    if not hasattr(config, name):
      replace_settings(config, {name: None})  # Raises, and says what there is.
    value = _replace(getattr(config, name), rest, value)
  changed = replace_settings(config, {name: value})
  if isinstance(changed, RunConfig) and name == 'preset':
    # Settings of one preset are not those of another.
    return dataclasses.replace(changed, model=None)
  return changed


def _parse(text: str) -> Any:
  """Parses a literal, with tuples for lists; returns other texts unchanged."""
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
  return freeze(value)
