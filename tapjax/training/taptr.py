"""Training of TAPTRv2: initial weights, queries, optimizer and update.

Li et al., arXiv 2407.16291. The loss is that of `taptr_losses`, computed
video by video:

  gradients = mean over videos, clipped to norm 0.1 ──AdamW──► weights
  average += (1 - decay) * (weights - average)

The result of training is the running average of the weights.
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
# Initial probability of each class.
_INITIAL_PROBABILITY = 0.01
_DROP = 0.1
_HEADS = ('boxes', 'classes')
# Linear layers with PyTorch's default initialization; others use Xavier's.
_PLAIN = ('updater', 'window_updater', 'describer', *_HEADS)


@dataclasses.dataclass(frozen=True)
class TaptrTrainingConfig:
  """Settings of training, as published.

  Attributes:
    num_steps: number of updates; 150 epochs of about 11 000 videos in batches
      of 32.
    peak_lr: initial learning rate.
    backbone_lr: initial learning rate of the residual network.
    drops: fractions of the training after which learning rates drop to a tenth.
    weight_decay: decoupled weight decay of all parameters.
    max_norm: maximum global norm of the gradients, by clipping.
    b1: decay of the first moment.
    b2: decay of the second moment.
    average_decay: decay of the running average of the weights, per part of an
      update.
    average_parts: number of parts of an update.
    restarted: fraction of points whose query is on a random visible frame; for
      others it is on the first visible frame.
    losses: weights of the losses.
    max_bad_steps: maximum number of consecutive updates with a non-finite
      gradient that are skipped; the next one is applied.
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
  """Learned weights and optimizer state, besides the running average."""

  weights: PyTree
  optimizer: PyTree


class TaptrMetrics(NamedTuple):
  """Metrics of one update.

  Attributes:
    loss: training objective.
    position: position loss of the last layer, in normalized coordinates.
    moved: position loss after the last layer's attention.
    visibility: focal loss.
    gradient_norm: global norm before clipping.
    bad_updates: number of latest consecutive non-finite updates.
  """

  loss: Float[Array, '']
  position: Float[Array, '']
  moved: Float[Array, '']
  visibility: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


Update = Callable[[TrainState, Example, Array], tuple[TrainState, TaptrMetrics]]


def draw_first_weights(key: Array, params: Params) -> Params:
  """Returns parameters with the published initialization.

  Args:
    key: key of random weights.
    params: parameters from `init`, whose attention, convolutions and norms are
      kept.
  """
  weights = {module: dict(leaves) for module, leaves in params.params.items()}
  for i, (module, leaves) in enumerate(sorted(weights.items())):
    _, *path = module.split('/~/')
    if not path or not _is_reinitialized(path) or leaves.keys() != {'w', 'b'}:
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
      odds = jnp.log(_INITIAL_PROBABILITY / (1 - _INITIAL_PROBABILITY))
      leaves['b'] = jnp.full_like(leaves['b'], odds)
  return params._replace(params=weights)


def _is_reinitialized(path: list[str]) -> bool:
  """Returns whether a module's bias differs from `init`."""
  if path[0].startswith(('backbone', 'projection')) or path[-1] == 'offsets':
    return False
  if path[0].startswith('encoder'):
    return 'mlp' in path
  return not {'time_attention', 'point_attention'} & set(path)


def choose_queries(key: Array, example: Example, restarted: float) -> Example:
  """Returns an example without `b` with queries on visible frames.

  Queries are on the first visible frame, except for the fraction `restarted` of
  the points, whose queries are on any visible frame.
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
  """Returns the loss of one video at the network's resolution, and its parts.

  The example has no `b`. Frames after the query of a point count.
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
  """Returns the factor of the learning rates for each update."""
  steps = (round(share * config.num_steps) for share in config.drops)
  return optax.piecewise_constant_schedule(1.0, dict.fromkeys(steps, _DROP))


def make_taptr_optimizer(
    config: TaptrTrainingConfig,
) -> optax.GradientTransformation:
  """AdamW with gradient-norm clipping, and rates by module.

  It takes `{module: {name: array}}` and skips non-finite updates.
  """

  def scale(updates: PyTree, params: PyTree) -> PyTree:
    del params  # Rates depend only on names.
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
  """Initializes the state of training.

  `TrainState.params` is the running average; `TrainState.optimizer` is
  `Learned`.
  """
  weights = jax.tree.map(jnp.copy, params.params)
  optimizer = make_taptr_optimizer(config).init(weights)
  return TrainState(
      jnp.zeros((), jnp.int32), params, Learned(weights, optimizer)
  )


def make_taptr_update(
    model: TaptrConfig, config: TaptrTrainingConfig, mesh: Mesh
) -> Update:
  """Compiles `update(state, batch, key)`, on all devices of a mesh.

  The state is replicated and donated, the batch sharded. The key, of dropout
  and of queries, is the same for all updates.
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
          state.params._replace(params=weights),
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
    average = _average_weights(state.params.params, weights, config)
    return (
        TrainState(
            state.num_updates + 1,
            state.params._replace(params=average),
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
  """Returns the running average after an update."""
  decay = config.average_decay**config.average_parts

  def move(module: str) -> PyTree:
    # As published, the heads are stored twice and averaged twice.
    head = module.split('/~/')[1] if '/~/' in module else ''
    own = decay**2 if head.rpartition('_')[0] in _HEADS else decay
    return jax.tree.map(
        lambda old, new: own * old + (1 - own) * new,
        average[module],
        weights[module],
    )

  return {module: move(module) for module in weights}
