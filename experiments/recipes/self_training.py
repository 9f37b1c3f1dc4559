"""Recipe of self-training on unlabeled videos."""

from collections.abc import Callable
import dataclasses
import pathlib

import jax
import numpy as np

from experiments.config import Draw
from experiments.config import PUBLISHED
from experiments.config import RunConfig
from experiments.recipes.recipe import bind_key
from experiments.recipes.recipe import check_resolutions
from experiments.recipes.recipe import load_initial
from experiments.recipes.recipe import make_functions
from experiments.recipes.recipe import make_tracker
from experiments.recipes.recipe import Recipe
from experiments.recipes.recipe import Workplace
from experiments.tasks.forward_backward import list_videos
from tapjax import parallel
from tapjax.data.procedural.pool import make_draw
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.unlabeled.clips import make_unlabeled_draw
from tapjax.data.unlabeled.clips import read_frames
from tapjax.data.unlabeled.clips import UnlabeledBatch
from tapjax.data.unlabeled.clips import UnlabeledConfig
from tapjax.evaluation.forward_backward import measure_forward_backward
from tapjax.geometry import sample_grid_points
from tapjax.models.contract import Params
from tapjax.training.bootstrap import make_self_training_state
from tapjax.training.bootstrap import make_self_training_update
from tapjax.training.bootstrap import SelfTrainingConfig
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.types import Example

_GRID = 16
# Frames that a point is tracked through, forward and backward.
_NUM_FRAMES = 48

Batch = tuple[UnlabeledBatch, Example | None]


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

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: jax.sharding.Mesh) -> Draw:
    return make_input(self, mesh)


def make_recipe(config: SelfTrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on all devices of all processes."""
  del place  # There are no pictures.
  mesh = parallel.make_mesh()
  weight_key, _, update_key = jax.random.split(jax.random.key(config.seed), 3)
  draw = make_input(config, mesh)
  paths = list_videos(config.data.videos)
  functions = make_functions(config)
  params = load_initial(config)
  if params is None:
    params = functions.init(weight_key)
  update = make_self_training_update(functions, config.training, mesh)
  optimizer = config.training.optimizer
  state = make_self_training_state(params, config.training)
  return Recipe(
      state=parallel.replicate(mesh, state),
      update=bind_key(update, update_key),
      draw=draw,
      num_steps=optimizer.num_steps,
      max_bad_steps=optimizer.max_bad_steps,
      loop=config.loop,
      evaluate=_make_evaluate(config, paths[-config.held_out :]),
      data=(
          f'{len(paths) - config.held_out:,} videos in {config.data.videos}, '
          f'and {config.held_out:,} to validate on'
      ),
  )


def make_input(
    config: SelfTrainConfig, mesh: jax.sharding.Mesh
) -> Callable[[int], tuple[UnlabeledBatch, Example | None]]:
  """Returns the function from a step to its unlabeled and labeled batch."""
  check_resolutions(config.model.resolution, config.data.resolution)
  paths = list_videos(config.data.videos)
  if len(paths) <= config.held_out:
    raise ValueError(
        f'{config.data.videos} must have more videos than held_out; it has '
        f'{len(paths)}, of which {config.held_out} are held out'
    )
  _, data_key, _ = jax.random.split(jax.random.key(config.seed), 3)
  draw_clips = make_unlabeled_draw(
      paths[: -config.held_out], config.data, config.seed, mesh
  )
  draw_labeled = _make_labeled_draw(config, data_key, mesh)
  return lambda step: (draw_clips(step), draw_labeled(step))


def _make_labeled_draw(
    config: SelfTrainConfig, key: jax.Array, mesh: jax.sharding.Mesh
) -> Callable[[int], Example | None]:
  if not config.labeled_batch:
    return lambda step: None
  if config.labeled.resolution != config.data.resolution:
    raise ValueError(
        'labeled.resolution and data.resolution must be the same; got '
        f'{config.labeled.resolution} and {config.data.resolution}'
    )
  pool = PoolConfig(
      video=config.labeled,
      batch_size=config.labeled_batch,
      num_videos=config.labeled_batch,
      num_queries=config.labeled.num_queries,
  )
  return make_draw(key, pool, mesh)


def _make_evaluate(
    config: SelfTrainConfig, paths: list[pathlib.Path]
) -> Callable[[int, Params], Evaluation]:
  """Returns the evaluation of weights by forward-backward errors.

  Errors are on held-out videos, in pixels of the model's resolution.
  """
  resolution = config.data.resolution
  videos = [read_frames(path, resolution, _NUM_FRAMES) for path in paths]
  points = np.asarray(sample_grid_points(resolution, _GRID))[:, 1:]

  def evaluate(step: int, params: Params) -> Evaluation:
    del step
    tracker = make_tracker(config, params)
    errors = [
        measure_forward_backward(tracker.track, frames, points)
        for frames in videos
    ]
    came_back = [
        each.share_within * each.num_returned / each.num_points
        if each.num_returned
        else 0.0
        for each in errors
    ]
    score = 100 * float(np.mean(came_back))
    medians = [each.median for each in errors]
    returned = [each.num_returned / each.num_points for each in errors]
    scalars = {
        'validation/came_back_within_4px': score,
        'validation/median_cycle_error': float(np.mean(medians)),
        'validation/seen_at_the_end': 100 * float(np.mean(returned)),
    }
    return Evaluation(score, scalars)

  return evaluate
