"""How TAPTRv2 learns: first weights, queries, the optimizer and one update.

Li et al., arXiv 2407.16291. The loss is that of `taptr_losses`, of one video
after the other:

  gradients = mean over videos, of norm 0.1 at most ──AdamW──► weights
  average += (1 - decay) * (weights - average)

What training comes to is the running average of the weights.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
import optax

from tapjax import parallel
from tapjax.models import arrows
from tapjax.models.arrows import get_query_frames
from tapjax.models.contract import Params
from tapjax.models.taptr.config import TaptrConfig
from tapjax.models.taptr.coordinates import pixels_to_normalized
from tapjax.models.taptr.functions import TaptrFunctions
from tapjax.training.optimizers import count_bad_steps
from tapjax.training.step import average_parts
from tapjax.training.step import TrainState
from tapjax.training.taptr_losses import compute_taptr_losses
from tapjax.training.taptr_losses import TaptrLossConfig
from tapjax.training.taptr_losses import TaptrLosses
from tapjax.types import Example
from tapjax.types import PyTree

BACKBONE_PREFIX = 'taptr/~/backbone/~/'
# What a class is at first, before its logit is learned.
_FIRST_CHANCE = 0.01
_DROP = 0.1
_HEADS = ('boxes', 'classes')
# Linear layers that begin as they do in PyTorch; others have Xavier's matrices.
_PLAIN = ('updater', 'window_updater', 'describer', *_HEADS)


@dataclasses.dataclass(frozen=True)
class TaptrTrainingConfig:
  """Settings of training, as published.

  Attributes:
    num_steps: updates; 150 epochs of about 11 000 videos, 32 at once.
    peak_lr: learning rate, at first.
    backbone_lr: that of the residual network.
    drops: shares of the training behind which learning rates are a tenth.
    weight_decay: of all parameters, times the learning rate.
    max_norm: gradients of a larger global norm are scaled down to it.
    b1: decay of the mean of gradients.
    b2: decay of the mean of squared gradients.
    average_decay: of the running average of weights, of one of the parts that
      make an update.
    average_parts: how many parts make an update.
    restarted: share of the points whose query is on any frame that shows them;
      that of others is on the first one.
    losses: their weights.
    max_bad_steps: consecutive updates with a non-finite gradient that change
      nothing; one more is let through.
  """

  num_steps: int = 51_562
  peak_lr: float = 2e-4
  backbone_lr: float = 1e-5
  drops: tuple[float, ...] = (100 / 150, 130 / 150)
  weight_decay: float = 1e-4
  max_norm: float = 0.1
  b1: float = 0.9
  b2: float = 0.999
  average_decay: float = 0.9997
  average_parts: int = 4
  restarted: float = 0.25
  losses: TaptrLossConfig = dataclasses.field(default_factory=TaptrLossConfig)
  max_bad_steps: int = 5

  def __post_init__(self):
    if self.num_steps < 1:
      raise ValueError(f'num_steps must be at least 1; got {self.num_steps}')
    for name in ('average_decay', 'restarted'):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
            f'{name} must be between 0 and 1; got {getattr(self, name)}'
        )


class Learned(NamedTuple):
  """What an update changes, besides the average in `TrainState.params`."""

  weights: PyTree
  optimizer: PyTree


class TaptrMetrics(NamedTuple):
  """What one update tells.

  Attributes:
    loss: what is minimized.
    position: the position loss of the last layer, as shares of the frame.
    moved: that of the last layer's attention.
    visibility: the focal loss.
    gradient_norm: before it is limited.
    bad_updates: how many of the latest ones in a row were not finite.
  """

  loss: Float[Array, '']
  position: Float[Array, '']
  moved: Float[Array, '']
  visibility: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


Update = Callable[[TrainState, Example, Array], tuple[TrainState, TaptrMetrics]]


def draw_first_weights(key: Array, params: Params) -> Params:
  """Returns parameters whose weights begin as published.

  Args:
    key: of what is random.
    params: as the tracker's `init` makes them; what they have of attention, of
      convolutions and of norms is kept.
  """
  weights = {module: dict(leaves) for module, leaves in params.weights.items()}
  for i, (module, leaves) in enumerate(sorted(weights.items())):
    _, *path = module.split('/~/')
    if not path or not _is_free(path) or leaves.keys() != {'w', 'b'}:
      continue
    head = path[0].rpartition('_')[0]
    if head == 'boxes' and path[-1] == 'linear_2':
      weights[module] = jax.tree.map(jnp.zeros_like, leaves)
      continue
    matrix_key, bias_key = jax.random.split(jax.random.fold_in(key, i))
    limit = leaves['w'].shape[0] ** -0.5

    def draw(key: Array, old: Array, limit: float = limit) -> Array:
      return jax.random.uniform(key, old.shape, old.dtype, -limit, limit)

    leaves['b'] = draw(bias_key, leaves['b'])
    if path[0] in _PLAIN or head in _PLAIN:
      leaves['w'] = draw(matrix_key, leaves['w'])
    if head == 'classes':
      odds = jnp.log(_FIRST_CHANCE / (1 - _FIRST_CHANCE))
      leaves['b'] = jnp.full_like(leaves['b'], odds)
  return params._replace(weights=weights)


def _is_free(path: list[str]) -> bool:
  """Returns whether a module's bias is not what `init` makes of it."""
  if path[0].startswith(('backbone', 'projection')) or path[-1] == 'offsets':
    return False
  if path[0].startswith('encoder'):
    return 'mlp' in path
  return not {'time_attention', 'point_attention'} & set(path)


def choose_queries(key: Array, example: Example, restarted: float) -> Example:
  """Returns an example without `b` whose points begin where they are visible.

  That is on the first such frame, but for a share of the points on any of them.
  """
  keys = jax.random.split(key, 2)
  num_queries, num_frames = example.occluded.shape
  own = get_query_frames(example.query_points, num_frames)
  is_own = jnp.arange(num_frames)[None] == own[:, None]
  shown = ~example.occluded | is_own
  anywhere = jax.random.categorical(keys[0], jnp.where(shown, 0.0, -jnp.inf))
  frames = jnp.where(
      jax.random.bernoulli(keys[1], restarted, (num_queries,)),
      anywhere,
      jnp.argmax(shown, axis=1),
  )
  positions = jnp.take_along_axis(
      example.target_points, frames[:, None, None], axis=1
  )[:, 0]
  points = jnp.stack(
      [frames.astype(positions.dtype), positions[:, 1], positions[:, 0]],
      axis=-1,
  )
  return example._replace(query_points=points)


def compute_example_loss(
    model: TaptrConfig,
    params: Params,
    example: Example,
    config: TaptrLossConfig,
    dropout_key: Array | None = None,
) -> tuple[Float[Array, ''], TaptrLosses]:
  """Returns the loss of one video of the network's resolution, and its parts.

  The example has no `b`. Points count behind their queries.
  """
  functions = TaptrFunctions(model)
  features = arrows.encode_segment(functions, params, example.video[None])
  queries = arrows.describe_queries(
      functions, params, features, example.query_points[None]
  )
  outputs = functions.predict_layers(params, features, queries, dropout_key)
  losses = compute_taptr_losses(
      jax.tree.map(lambda array: array[0], outputs),
      get_query_frames(example.query_points, example.video.shape[0]),
      pixels_to_normalized(example.target_points, model).swapaxes(0, 1),
      example.occluded.T,
      config,
  )
  return losses.sum(config), losses


def make_taptr_schedule(config: TaptrTrainingConfig) -> optax.Schedule:
  """Returns what an update multiplies learning rates by."""
  steps = (round(share * config.num_steps) for share in config.drops)
  return optax.piecewise_constant_schedule(1.0, dict.fromkeys(steps, _DROP))


def make_taptr_optimizer(
    config: TaptrTrainingConfig,
) -> optax.GradientTransformation:
  """Returns AdamW behind a limit of the gradients' norm.

  It takes `{module: {name: array}}`, and skips updates that are not finite.
  """

  def scale(updates: PyTree, params: PyTree) -> PyTree:
    del params  # Rates depend on names alone.
    return {
        module: optax.tree.scale(_get_rate(config, module), leaves)
        for module, leaves in updates.items()
    }

  optimizer = optax.chain(
      optax.clip_by_global_norm(config.max_norm),
      optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=1e-8),
      optax.add_decayed_weights(config.weight_decay),
      optax.stateless(scale),
      optax.scale_by_learning_rate(make_taptr_schedule(config)),
  )
  return optax.apply_if_finite(optimizer, config.max_bad_steps)


def _get_rate(config: TaptrTrainingConfig, module: str) -> float:
  is_backbone = module.startswith(BACKBONE_PREFIX)
  return config.backbone_lr if is_backbone else config.peak_lr


def make_taptr_state(params: Params, config: TaptrTrainingConfig) -> TrainState:
  """Returns the state before the first update.

  `TrainState.params` is the running average; `TrainState.optimizer` is
  `Learned`.
  """
  weights = jax.tree.map(jnp.copy, params.weights)
  optimizer = make_taptr_optimizer(config).init(weights)
  return TrainState(
      jnp.zeros((), jnp.int32), params, Learned(weights, optimizer)
  )


def make_taptr_update(
    model: TaptrConfig, config: TaptrTrainingConfig, mesh: Mesh
) -> Update:
  """Compiles the update of a state from a batch, on all devices of a mesh.

  The state is replicated and given up, the batch sharded, and the key, of what
  dropout leaves out and of queries, the same for all updates.
  """
  optimizer = make_taptr_optimizer(config)

  def update(
      state: TrainState, batch: Example, key: Array
  ) -> tuple[TrainState, TaptrMetrics]:
    weights, old_optimizer = state.optimizer
    key = parallel.fold_device(jax.random.fold_in(key, state.num_updates))

    def compute(
        weights: PyTree, key: Array, example: Example
    ) -> tuple[Array, tuple[Array, TaptrLosses]]:
      query_key, dropout_key = jax.random.split(key)
      loss, losses = compute_example_loss(
          model,
          state.params._replace(weights=weights),
          choose_queries(query_key, example, config.restarted),
          config.losses,
          dropout_key,
      )
      return loss, (loss, losses)

    differentiate = jax.grad(compute, has_aux=True)
    keys = jax.random.split(key, len(batch.video))
    gradients, (loss, losses) = parallel.average(
        average_parts(lambda part: differentiate(weights, *part), (keys, batch))
    )
    changes, new_optimizer = optimizer.update(gradients, old_optimizer, weights)
    weights = optax.apply_updates(weights, changes)
    average = _average_weights(state.params.weights, weights, config)
    return (
        TrainState(
            state.num_updates + 1,
            state.params._replace(weights=average),
            Learned(weights, new_optimizer),
        ),
        TaptrMetrics(
            loss=loss,
            position=losses.position[-1],
            moved=losses.moved[-1],
            visibility=losses.visibility,
            gradient_norm=optax.tree.norm(gradients),
            bad_updates=count_bad_steps(new_optimizer),
        ),
    )

  return parallel.map_devices(update, mesh, donate_state=True)


def _average_weights(
    average: PyTree, weights: PyTree, config: TaptrTrainingConfig
) -> PyTree:
  """Returns the running average behind an update."""
  decay = config.average_decay**config.average_parts

  def move(module: str) -> PyTree:
    # As published, the heads are stored twice and averaged as often.
    head = module.split('/~/')[1] if '/~/' in module else ''
    own = decay**2 if head.rpartition('_')[0] in _HEADS else decay
    return jax.tree.map(
        lambda old, new: own * old + (1 - own) * new,
        average[module],
        weights[module],
    )

  return {module: move(module) for module in weights}
