"""Recipe of TAPTRv2 trained on procedural or Kubric videos.

As published, training videos are augmented by occluding rectangles, colors,
blur and camera motion. The evaluated and saved weights are the running average.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from experiments.config import Draw
from experiments.config import RunConfig
from experiments.config import ValidationConfig
from experiments.recipes.recipe import bind_key
from experiments.recipes.recipe import load_initial
from experiments.recipes.recipe import make_functions
from experiments.recipes.recipe import make_tracker
from experiments.recipes.recipe import Recipe
from experiments.recipes.recipe import Workplace
from experiments.recipes.validation import make_evaluate
from tapjax import parallel
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.batches import make_kubric_draw
from tapjax.data.kubric.batches import open_clips
from tapjax.data.kubric.panning import pan_example
from tapjax.data.kubric.panning import PanningConfig
from tapjax.data.procedural.distractors import add_distractors
from tapjax.data.procedural.distractors import DistractorConfig
from tapjax.data.procedural.pool import make_draw
from tapjax.data.procedural.pool import PoolConfig
from tapjax.models.taptr.config import TaptrConfig
from tapjax.training.backbones import IMAGENET
from tapjax.training.backbones import load_backbone
from tapjax.training.loop import LoopConfig
from tapjax.training.taptr import BACKBONE_PREFIX
from tapjax.training.taptr import draw_first_weights
from tapjax.training.taptr import make_taptr_state
from tapjax.training.taptr import make_taptr_update
from tapjax.training.taptr import TaptrTrainingConfig
from tapjax.types import Example


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

  def make_recipe(self, place: Workplace) -> Recipe:
    return make_recipe(self, place)

  def make_draw(self, mesh: Mesh) -> Draw:
    return make_taptr_draw(self, mesh)


def make_recipe(config: TaptrTrainConfig, place: Workplace) -> Recipe:
  """Returns the recipe, on all devices."""
  mesh = parallel.make_mesh()
  weight_key, _, update_key, _ = jax.random.split(
      jax.random.key(config.seed), 4
  )
  # Conflicting settings are refused before anything is downloaded.
  draw = make_taptr_draw(config, mesh)
  params = load_initial(config)
  if params is None:
    keys = jax.random.split(weight_key)
    params = make_functions(config).init(keys[0])
    params = draw_first_weights(keys[1], params)
    if config.backbone is not None:
      params = load_backbone(
          params, BACKBONE_PREFIX, config.model.backbone, config.backbone
      )
  update = make_taptr_update(config.model, config.training, mesh)
  return Recipe(
      state=parallel.replicate(mesh, make_taptr_state(params, config.training)),
      update=bind_key(update, update_key),
      draw=draw,
      num_steps=config.training.num_steps,
      max_bad_steps=config.training.max_bad_steps,
      loop=config.loop,
      evaluate=make_evaluate(
          functools.partial(make_tracker, config),
          config.validation,
          place.write_picture,
      ),
      data=_describe_input(config),
  )


def _describe_input(config: TaptrTrainConfig) -> str:
  """Returns a description of the training data."""
  if isinstance(config.data, PoolConfig):
    return 'procedural videos, made on the way'
  return f'{len(open_clips(config.data)):,} videos in {config.data.root}'


def make_taptr_draw(
    config: TaptrTrainConfig, mesh: Mesh
) -> Callable[[int], Example]:
  """Returns the function from a step to its augmented batch.

  Raises:
    ValueError: settings are inconsistent.
  """
  data = config.data
  if isinstance(data, PoolConfig):
    name, resolution = 'data.video.resolution', data.video.resolution
  else:
    name, resolution = 'data.resolution', data.resolution
  if config.model.resolution != resolution:
    raise ValueError(
        f'model.resolution and {name} must be the same; got '
        f'{config.model.resolution} and {resolution}'
    )
  _, data_key, _, change_key = jax.random.split(jax.random.key(config.seed), 4)
  if isinstance(data, PoolConfig):
    draw = make_draw(data_key, data, mesh)
  else:
    draw = make_kubric_draw(data, config.seed, mesh)
  if config.distractors is None and config.panning is None:
    return draw
  return change_batches(
      draw, change_key, config.distractors, config.panning, mesh
  )


def change_batches(
    draw: Callable[[int], Example],
    key: Array,
    distractors: DistractorConfig | None,
    panning: PanningConfig | None,
    mesh: Mesh,
) -> Callable[[int], Example]:
  """Returns the function from a step to its batch, with augmented videos."""

  def change(pair: tuple[Array, Example]) -> Example:
    keys, example = jax.random.split(pair[0]), pair[1]
    if distractors is not None:
      example = add_distractors(keys[0], example, distractors)
    if panning is not None:
      example = pan_example(keys[1], example, panning)
    return example

  def change_share(key: Array, share: Example) -> Example:
    keys = parallel.fold_rows(key, len(share.video))
    # One after the other: each takes the memory of several videos.
    return jax.lax.map(change, (keys, share))

  change_batch = parallel.map_shards(change_share, mesh, donate=(1,))

  def draw_changed(step: int) -> Example:
    return change_batch(jax.random.fold_in(key, step), draw(step))

  return draw_changed
