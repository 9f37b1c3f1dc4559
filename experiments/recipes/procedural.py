"""Recipe of a tracker trained on procedural videos."""

from collections.abc import Callable
import dataclasses
import functools

import jax
from jax.sharding import Mesh

from experiments.config import Draw
from experiments.config import RunConfig
from experiments.config import ValidationConfig
from experiments.recipes.recipe import bind_key
from experiments.recipes.recipe import check_resolutions
from experiments.recipes.recipe import load_initial
from experiments.recipes.recipe import make_functions
from experiments.recipes.recipe import make_tracker
from experiments.recipes.recipe import Recipe
from experiments.recipes.recipe import Workplace
from experiments.recipes.validation import make_evaluate
from tapjax import parallel
from tapjax.data.procedural.pool import make_draw
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.stored_videos import list_stored_videos
from tapjax.data.procedural.stored_videos import make_stored_draw
from tapjax.data.procedural.stored_videos import StoredConfig
from tapjax.geometry import Resolution
from tapjax.training.loop import LoopConfig
from tapjax.training.step import make_train_state
from tapjax.training.step import make_update
from tapjax.training.step import StepConfig
from tapjax.types import Example


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

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: Mesh) -> Draw:
    return make_input(self.data, self.model.resolution, self.seed, mesh)


def make_recipe(config: TrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on all devices."""
  functions = make_functions(config)
  mesh = parallel.make_mesh()
  weight_key, _, update_key = jax.random.split(jax.random.key(config.seed), 3)
  draw = make_input(config.data, config.model.resolution, config.seed, mesh)
  state = make_train_state(functions, config.step, weight_key)
  if (params := load_initial(config)) is not None:
    state = state._replace(params=params)
  return Recipe(
      state=parallel.replicate(mesh, state),
      update=bind_key(make_update(functions, config.step, mesh), update_key),
      draw=draw,
      num_steps=config.step.optimizer.num_steps,
      max_bad_steps=config.step.optimizer.max_bad_steps,
      loop=config.loop,
      evaluate=make_evaluate(
          functools.partial(make_tracker, config),
          config.validation,
          place.write_picture,
      ),
      data=describe_input(config.data),
  )


def describe_input(data: PoolConfig | StoredConfig) -> str:
  """Returns a description of the training data."""
  if isinstance(data, StoredConfig):
    number = len(list_stored_videos(data))
    return f'{number:,} stored videos in {data.folder}'
  return 'procedural videos, made on the way'


def make_input(
    data: PoolConfig | StoredConfig,
    resolution: Resolution,
    seed: int,
    mesh: Mesh,
) -> Callable[[int], Example]:
  """Returns the function from a step to its batch.

  Raises ValueError if stored videos have another resolution than the model.
  """
  if isinstance(data, StoredConfig):
    check_resolutions(resolution, data.resolution)
    return make_stored_draw(data, seed, mesh)
  _, data_key, _ = jax.random.split(jax.random.key(seed), 3)
  return make_draw(data_key, data, mesh)
