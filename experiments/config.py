"""Configs of experiments: read from a file, changed by `--set a.b=c`."""

import ast
from collections.abc import Iterable
import dataclasses
import pathlib
import runpy
from typing import Any

from tapjax.data.pool import PoolConfig
from tapjax.data.procedural import ProceduralConfig
from tapjax.models import registry
from tapjax.settings import freeze
from tapjax.settings import replace_settings
from tapjax.training.loop import LoopConfig
from tapjax.training.step import StepConfig


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
  """Held-out procedural videos, the same ones at every evaluation.

  Attributes:
    video: what they are like.
    num_videos: how many.
    seed: of the videos; training ones come from other keys.
  """

  video: ProceduralConfig = dataclasses.field(
      default_factory=lambda: ProceduralConfig(num_queries=64)
  )
  num_videos: int = 8
  seed: int = 1_000_003


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Everything that a training run depends on.

  Attributes:
    preset: whose architecture is trained.
    model: its settings; those of the preset by default.
    data: what is learned from.
    validation: what weights are judged by.
    step: losses and optimizer.
    loop: how often what happens.
    initial: weights to begin with; None draws them at random.
    seed: of the weights and of the data.
  """

  preset: str
  model: Any = None
  data: PoolConfig = dataclasses.field(default_factory=PoolConfig)
  validation: ValidationConfig = dataclasses.field(
      default_factory=ValidationConfig
  )
  step: StepConfig = dataclasses.field(default_factory=StepConfig)
  loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
  initial: str | None = None
  seed: int = 0

  def __post_init__(self):
    if self.model is None:
      preset = registry.get_preset(self.preset)
      object.__setattr__(self, 'model', preset.config)


def read_config(path: str) -> TrainConfig:
  """Runs a config file and returns what its `get_config` does."""
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
        f'--config must be a Python file, such as those in experiments/configs;'
        f' there is no {path}'
    )
  make_config = runpy.run_path(path).get('get_config')
  if make_config is None:
    raise ValueError(f'{path} must define get_config(); it does not')
  config = make_config()
  if not isinstance(config, TrainConfig):
    raise ValueError(
        f'get_config() of {path} must return a TrainConfig; got {config!r}'
    )
  return config


def override_config(config: Any, changes: Iterable[str]) -> Any:
  """Applies changes such as `step.optimizer.peak_lr=3e-4`, in order.

  Values are Python literals, or else strings. Raises ValueError for a field
  that does not exist, with those that do, or a value of the wrong type.
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
  return replace_settings(config, {name: value})


def _parse(text: str) -> Any:
  """Returns a literal, with tuples for lists, or the text itself."""
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
  return freeze(value)
