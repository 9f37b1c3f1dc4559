"""Configs of experiments, from files, with overrides `--set a.b=c`.

Each recipe has its config class, in its own module of `recipes`.
"""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import pathlib
import runpy
from typing import Any, TYPE_CHECKING

import jax

from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.models import registry
from tapjax.settings import parse_value
from tapjax.settings import replace_settings

if TYPE_CHECKING:
  from experiments.recipes.recipe import Recipe
  from experiments.recipes.recipe import Workplace

# Takes a step and returns its batch.
Draw = Callable[[int], Any]
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
    loop: intervals of the loop, with the default of each recipe.
  """

  preset: str
  model: Any = None
  initial: str | None = None
  seed: int = 0
  loop: Any = None

  def __post_init__(self):
    if self.model is None:
      preset = registry.get_preset(self.preset)
      object.__setattr__(self, 'model', preset.config)

  def make_recipe(self, place: 'Workplace') -> 'Recipe':
    """Returns how to train by this config, in a folder."""
    raise ValueError(f'config must have a recipe; got {type(self).__name__}')

  def make_draw(self, mesh: jax.sharding.Mesh) -> Draw:
    """Returns the function from a step to its batch, on the devices of a mesh.

    Raises ValueError for data that are missing or do not fit the model.
    """
    raise ValueError(f'config must have a recipe; got {type(self).__name__}')


def read_config(path: str) -> RunConfig:
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
  if not isinstance(config, RunConfig):
    raise ValueError(
        f'get_config() of {path} must return a TrainConfig; got {config!r} - '
        'or another config of experiments/recipes'
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
      config = _replace(config, path.split('.'), parse_value(text))
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
