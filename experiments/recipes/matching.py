"""Recipe of contrastive training of features, before tracking."""

from collections.abc import Callable
import dataclasses

import jax
import numpy as np

from experiments.config import Draw
from experiments.config import RunConfig
from experiments.config import ValidationConfig
from experiments.recipes import procedural
from experiments.recipes.recipe import load_initial
from experiments.recipes.recipe import make_functions
from experiments.recipes.recipe import Recipe
from experiments.recipes.recipe import Workplace
from experiments.recipes.validation import make_examples
from tapjax import parallel
from tapjax.data.procedural.stored_videos import StoredConfig
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.tapir.config import TapirConfig
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.training.matching import compute_matching_losses
from tapjax.training.matching import make_matching_update
from tapjax.training.matching import MatchingConfig
from tapjax.training.matching import MatchingLosses
from tapjax.training.step import make_train_state
from tapjax.training.step import StepConfig
from tapjax.types import Example


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

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: jax.sharding.Mesh) -> Draw:
    return procedural.make_input(
        self.data, self.model.resolution, self.seed, mesh
    )


def make_recipe(config: MatchingTrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on all devices."""
  del place  # There are no tracks to draw.
  functions = make_functions(config)
  mesh = parallel.make_mesh()
  draw = procedural.make_input(
      config.data, config.model.resolution, config.seed, mesh
  )
  optimizer = config.matching.optimizer
  state = make_train_state(
      functions, StepConfig(optimizer=optimizer), jax.random.key(config.seed)
  )
  if (params := load_initial(config)) is not None:
    state = state._replace(params=params)
  return Recipe(
      state=parallel.replicate(mesh, state),
      update=make_matching_update(functions, config.matching, mesh),
      draw=draw,
      num_steps=optimizer.num_steps,
      max_bad_steps=optimizer.max_bad_steps,
      loop=config.loop,
      evaluate=_make_evaluate(functions, config.matching, config.validation),
      data=procedural.describe_input(config.data),
  )


def _make_evaluate(
    functions: TrackerFunctions,
    config: MatchingConfig,
    validation: ValidationConfig,
) -> Callable[[int, Params], Evaluation]:
  """Returns the evaluation of weights, by the loss of coarse features.

  The loss still falls when nearly all matches are correct.
  """
  examples = make_examples(validation)

  @jax.jit
  def measure(params: Params, example: Example) -> MatchingLosses:
    batch = jax.tree.map(lambda array: array[None], example)
    return compute_matching_losses(functions, params, batch, config)

  def evaluate(step: int, params: Params) -> Evaluation:
    del step
    rows = [parallel.fetch(measure(params, example)) for example in examples]
    means = jax.tree.map(lambda *values: float(np.mean(values)), *rows)
    scalars = {
        'validation/match_accuracy': 100 * means.accuracy,
        'validation/coarse_loss': means.coarse,
        'validation/fine_loss': means.fine,
    }
    return Evaluation(-means.coarse, scalars)

  return evaluate
