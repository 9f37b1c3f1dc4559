"""Recipe of a tracker trained on Kubric videos."""

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import functools

import jax
import numpy as np

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
from experiments.recipes.validation import make_evaluate_examples
from tapjax import parallel
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.batches import make_develop
from tapjax.data.kubric.batches import make_kubric_draw
from tapjax.data.kubric.batches import open_clips
from tapjax.data.kubric.batches import stack_clips
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.models.contract import Params
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.training.step import make_train_state
from tapjax.training.step import make_update
from tapjax.training.step import StepConfig
from tapjax.types import Example


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

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: jax.sharding.Mesh) -> Draw:
    return make_kubric_draw(self.data, self.seed, mesh)


def make_recipe(config: KubricTrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on all devices of all processes."""
  check_resolutions(config.model.resolution, config.data.resolution)
  mesh = parallel.make_mesh()
  # Errors in the data are raised before anything is compiled.
  clips = open_clips(config.data)
  draw = make_kubric_draw(config.data, config.seed, mesh, clips)
  evaluate = _make_evaluate(config, place)
  functions = make_functions(config)
  weight_key, update_key = jax.random.split(jax.random.key(config.seed))
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
      evaluate=evaluate,
      data=f'{len(clips):,} videos in {config.data.root}',
  )


def read_examples(config: KubricConfig, count: int) -> Iterator[Example]:
  """Reads the first videos of a split, with points drawn by video index.

  Nothing else is random.
  """
  config = dataclasses.replace(
      config, random_crop=False, recolor=False, batch_size=1
  )
  clips = open_clips(config)
  develop = jax.jit(make_develop(config))
  for index in range(min(count, len(clips))):
    clip = clips.read(index, np.random.default_rng([2, index]))
    example = develop((), stack_clips([clip]))
    yield jax.tree.map(lambda array: array[0], example)


def _make_evaluate(
    config: KubricTrainConfig, place: Workplace
) -> Callable[[int, Params], Evaluation]:
  make = functools.partial(make_tracker, config)
  split = config.validation_split
  if split is None or config.data.format == 'cotracker':
    video = ProceduralConfig(resolution=config.data.resolution, num_queries=64)
    return make_evaluate(
        make,
        ValidationConfig(video=video, num_videos=config.num_validation),
        place.write_picture,
    )
  data = dataclasses.replace(config.data, split=split)
  examples = read_examples(data, config.num_validation)
  return make_evaluate_examples(make, examples, place.write_picture)
