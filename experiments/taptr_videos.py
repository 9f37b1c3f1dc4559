"""The recipe of TAPTRv2 that learns from procedural videos.

Videos are disturbed, as published, by rectangles, colors and blur before they
are learned from. What is judged and left is the running average of the weights.
"""

from collections.abc import Callable
import functools

import jax
from jax.sharding import Mesh
from jaxtyping import Array

from experiments.config import TaptrTrainConfig
from experiments.recipes import bind_key
from experiments.recipes import load_initial
from experiments.recipes import make_functions
from experiments.recipes import make_tracker
from experiments.recipes import Recipe
from experiments.recipes import Workplace
from experiments.validation import make_evaluate
from tapjax import parallel
from tapjax.data.disturbances import disturb_example
from tapjax.data.disturbances import DisturbanceConfig
from tapjax.data.pool import make_draw
from tapjax.training.backbones import load_backbone
from tapjax.training.taptr import BACKBONE_PREFIX
from tapjax.training.taptr import draw_first_weights
from tapjax.training.taptr import make_taptr_state
from tapjax.training.taptr import make_taptr_update
from tapjax.types import Example


def make_recipe(config: TaptrTrainConfig, place: Workplace) -> Recipe:
  """Returns what to train, on all devices."""
  if config.model.resolution != config.data.video.resolution:
    raise ValueError(
        'model.resolution and data.video.resolution must be the same; got '
        f'{config.model.resolution} and {config.data.video.resolution}'
    )
  mesh = parallel.make_mesh()
  weight_key, data_key, update_key, disturbance_key = jax.random.split(
      jax.random.key(config.seed), 4
  )
  # Settings that do not go together are told before anything is downloaded.
  draw = make_draw(data_key, config.data, mesh)
  if config.disturbance is not None:
    draw = disturb_batches(draw, disturbance_key, config.disturbance, mesh)
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
  )


def disturb_batches(
    draw: Callable[[int], Example],
    key: Array,
    config: DisturbanceConfig,
    mesh: Mesh,
) -> Callable[[int], Example]:
  """Returns what draws the same batches with their videos made harder."""

  def disturb_share(key: Array, share: Example) -> Example:
    keys = jax.random.split(parallel.fold_device(key), len(share.video))
    # One after the other: each takes the memory of several videos.
    return jax.lax.map(
        lambda pair: disturb_example(pair[0], pair[1], config), (keys, share)
    )

  disturb = parallel.map_shards(disturb_share, mesh, donate=(1,))

  def draw_disturbed(step: int) -> Example:
    return disturb(jax.random.fold_in(key, step), draw(step))

  return draw_disturbed
