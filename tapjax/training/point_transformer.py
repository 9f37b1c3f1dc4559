"""Training of the point transformer: loss, optimizer and update.

With predicted positions P and true ones G, both in normalized coordinates,

  loss = mean |P - G| + weight * mean |(P_t+1 - P_t) - (G_t+1 - G_t)|

over all points, frames and coordinates. Visibility is not used: occluded
and padding points have the same weight as visible ones.
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
from jaxtyping import Key
import optax

from tapjax import parallel
from tapjax.checkpoints import CheckpointMismatchError
from tapjax.checkpoints import convert_arrays
from tapjax.checkpoints import TorchTraining
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.contract import Params
from tapjax.models.contract import unflatten_params
from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tapjax.models.point_transformer.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tapjax.training.optimizers import count_bad_steps
from tapjax.training.step import TrainState
from tapjax.types import PyTree

_EPSILON = 1e-6
_ADAM_EPSILON = 1e-8
# Batch counters of PyTorch's norms.
_IGNORED = ('*.num_batches_tracked',)


@dataclasses.dataclass(frozen=True)
class PointTrainingConfig:
  """Settings of training, as published.

  Attributes:
    num_epochs: number of epochs; the learning rate decays along a half cosine,
      epoch by epoch.
    peak_lr: learning rate of the first epoch.
    max_norm: maximum global norm of the gradients, by clipping.
    weight_decay: decoupled weight decay of all parameters.
    b1: decay of the first moment.
    b2: decay of the second moment.
    motion_weight: weight of the motion loss.
    max_bad_steps: maximum number of consecutive updates with a non-finite
      gradient that are skipped; the next one is applied.
  """

  num_epochs: int = 50
  peak_lr: float = 1e-4
  max_norm: float = 1.0
  weight_decay: float = 1e-4
  b1: float = 0.9
  b2: float = 0.999
  motion_weight: float = 0.1
  max_bad_steps: int = 5

  def __post_init__(self):
    if self.num_epochs < 1:
      raise ValueError(f'num_epochs must be at least 1; got {self.num_epochs}')


class PointBatch(NamedTuple):
  """Clips in [-1, 1], and true positions (x, y) in normalized coordinates."""

  video: Float[Array, 'b t h w 3']
  targets_unit: Float[Array, 'b t n 2']


class PointLosses(NamedTuple):
  """The loss and its parts.

  Attributes:
    total: training objective.
    position: mean absolute error of coordinates.
    motion: mean absolute error of their differences between frames.
    end_point: reported error, the mean of |dx| + |dy|: twice `position`, not a
      Euclidean distance.
  """

  total: Float[Array, '']
  position: Float[Array, '']
  motion: Float[Array, '']
  end_point: Float[Array, '']


class PointMetrics(NamedTuple):
  """Metrics of one update, with losses under their published names.

  Attributes:
    total_loss: training objective.
    epe: `PointLosses.end_point`.
    l1_loss: `PointLosses.position`.
    temporal_loss: `PointLosses.motion`.
    gradient_norm: global norm before clipping.
    bad_updates: number of latest consecutive non-finite updates.
  """

  total_loss: Float[Array, '']
  epe: Float[Array, '']
  l1_loss: Float[Array, '']
  temporal_loss: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


Update = Callable[
    [TrainState, PointBatch, Array], tuple[TrainState, PointMetrics]
]


def compute_point_losses(
    positions_unit: Float[Array, 'b t n 2'],
    targets_unit: Float[Array, 'b t n 2'],
    motion_weight: float = 0.1,
) -> PointLosses:
  """Returns the losses of positions on every frame, the first included."""
  errors = positions_unit - targets_unit
  position = jnp.mean(jnp.abs(errors))
  motion = jnp.zeros_like(position)
  if errors.shape[1] > 1:
    motion = jnp.mean(jnp.abs(jnp.diff(errors, axis=1)))
  return PointLosses(
      total=position + motion_weight * motion,
      position=position,
      motion=motion,
      end_point=jnp.mean(jnp.sum(jnp.abs(errors), axis=-1)),
  )


def compute_batch_losses(
    model: PointTransformerConfig,
    params: Params,
    batch: PointBatch,
    motion_weight: float = 0.1,
    keys: Key[Array, 'b'] | None = None,
    axis: str | None = None,
) -> tuple[PointLosses, PyTree]:
  """Returns losses and the updated batch-norm statistics.

  With a key for each clip, dropout and batch statistics are used, as in
  training. `axis` is the mapped axis over which the batch is sharded.
  """
  prediction = PointTransformerFunctions(model).predict_clips(
      params, batch.video, batch.targets_unit[:, 0], keys, axis
  )
  losses = compute_point_losses(
      prediction.positions_unit, batch.targets_unit, motion_weight
  )
  return losses, prediction.statistics


def make_point_schedule(
    config: PointTrainingConfig, updates_per_epoch: int
) -> optax.Schedule:
  """Returns the learning rate by update, constant in each epoch."""

  def schedule(count: Array | int) -> Array:
    epoch = jnp.minimum(count // updates_per_epoch, config.num_epochs)
    share = epoch / config.num_epochs
    return config.peak_lr / 2 * (1 + jnp.cos(jnp.pi * share))

  return schedule


def make_point_optimizer(
    config: PointTrainingConfig, updates_per_epoch: int
) -> optax.GradientTransformation:
  """AdamW with gradient-norm clipping; skips non-finite updates."""

  def clip(gradients: PyTree, params: PyTree) -> PyTree:
    del params  # Clipping depends only on gradients.
    scale = config.max_norm / (optax.tree.norm(gradients) + _EPSILON)
    scale = jnp.minimum(scale, 1)
    return jax.tree.map(lambda gradient: gradient * scale, gradients)

  optimizer = optax.chain(
      optax.stateless(clip),
      optax.adamw(
          make_point_schedule(config, updates_per_epoch),
          b1=config.b1,
          b2=config.b2,
          eps=_ADAM_EPSILON,
          weight_decay=config.weight_decay,
      ),
  )
  return optax.apply_if_finite(optimizer, config.max_bad_steps)


def make_point_state(
    params: Params, config: PointTrainingConfig, updates_per_epoch: int
) -> TrainState:
  """Initializes the state of training."""
  optimizer = make_point_optimizer(config, updates_per_epoch)
  return TrainState(
      jnp.zeros((), jnp.int32), params, optimizer.init(params.params)
  )


def convert_point_training(
    saved: TorchTraining,
    model: PointTransformerConfig,
    config: PointTrainingConfig,
    updates_per_epoch: int,
    origin: str,
) -> TrainState:
  """Returns the state after the epochs of a run of the published program.

  Weights, running statistics and both moments of AdamW are restored; the
  learning rate continues along the cosine of `config`.

  Args:
    saved: content of the file of the program.
    model: network, the same as that of the run.
    config: settings; those of the optimizer are the same as in the run.
    updates_per_epoch: number of updates of each further epoch.
    origin: name of the file in messages.

  Raises:
    CheckpointMismatchError: the run has another network or optimizer.
    ValueError: the run has at least as many epochs as `config`.
  """
  expected = {
      'betas': (config.b1, config.b2),
      'weight_decay': config.weight_decay,
      'eps': _ADAM_EPSILON,
      'initial_lr': config.peak_lr,
  }
  for name, value in expected.items():
    found = saved.settings.get(name)
    found = tuple(found) if isinstance(found, list) else found
    if found != value:
      raise CheckpointMismatchError(
          f'{origin} has an optimizer whose {name} is {found}; the config has '
          f'{value} - pass --set training.peak_lr and the like as they were'
      )
  num_epochs = saved.epoch + 1
  if num_epochs >= config.num_epochs:
    raise ValueError(
        f'training.num_epochs must be more than the {num_epochs} of {origin}; '
        f'got {config.num_epochs}'
    )
  params = describe_params(PointTransformerFunctions(model))
  shapes = {name: array.shape for name, array in flatten_params(params).items()}
  sources = list_torch_sources(list_weight_names(model))
  arrays = convert_arrays(
      saved.arrays, sources, shapes, ignored=_IGNORED, origin=origin
  )
  learned = {
      name: source
      for name, source in sources.items()
      if name.startswith('params|')
  }
  means, squares = (
      unflatten_params(
          jax.tree.map(
              jnp.asarray,
              convert_arrays(
                  moments,
                  learned,
                  {name: shapes[name] for name in learned},
                  origin=f'{part} of {origin}',
              ),
          )
      ).params
      for part, moments in (
          ('exp_avg', saved.means),
          ('exp_avg_sq', saved.squares),
      )
  )
  params = unflatten_params(jax.tree.map(jnp.asarray, arrays))
  num_updates = num_epochs * updates_per_epoch

  def fill(node: PyTree) -> PyTree:
    if isinstance(node, optax.ScaleByAdamState):
      return optax.ScaleByAdamState(
          jnp.asarray(saved.step, node.count.dtype), means, squares
      )
    if isinstance(node, optax.ScaleByScheduleState):
      return node._replace(count=jnp.asarray(num_updates, node.count.dtype))
    return node

  state = make_point_state(params, config, updates_per_epoch)
  optimizer = jax.tree.map(
      fill,
      state.optimizer,
      is_leaf=lambda node: isinstance(
          node, optax.ScaleByAdamState | optax.ScaleByScheduleState
      ),
  )
  return TrainState(
      jnp.asarray(num_updates, state.num_updates.dtype), params, optimizer
  )


def make_point_update(
    model: PointTransformerConfig,
    config: PointTrainingConfig,
    updates_per_epoch: int,
    mesh: Mesh,
) -> Update:
  """Compiles `update(state, batch, key)`, on all devices of a mesh.

  The state is replicated and donated, the batch sharded. The key is of dropout.
  Results do not depend on the number of devices. The losses are those before
  the update.
  """
  optimizer = make_point_optimizer(config, updates_per_epoch)

  def update(
      state: TrainState, batch: PointBatch, key: Array
  ) -> tuple[TrainState, PointMetrics]:
    keys = parallel.fold_rows(key, len(batch.video))

    def compute(weights: PyTree) -> tuple[Array, tuple[PointLosses, PyTree]]:
      losses, statistics = compute_batch_losses(
          model,
          state.params._replace(params=weights),
          batch,
          config.motion_weight,
          keys,
          parallel.AXIS,
      )
      return losses.total, (losses, statistics)

    weights = state.params.params
    gradients, (losses, statistics) = jax.grad(compute, has_aux=True)(weights)
    gradients, losses = parallel.average((gradients, losses))
    changes, new_optimizer = optimizer.update(
        gradients, state.optimizer, weights
    )
    # Non-finite values would persist in running statistics.
    statistics = jax.tree.map(
        lambda new, old: jnp.where(count_bad_steps(new_optimizer), old, new),
        statistics,
        state.params.state,
    )
    params = Params(optax.apply_updates(weights, changes), statistics)
    return (
        TrainState(state.num_updates + 1, params, new_optimizer),
        PointMetrics(
            total_loss=losses.total,
            epe=losses.end_point,
            l1_loss=losses.position,
            temporal_loss=losses.motion,
            gradient_norm=optax.tree.norm(gradients),
            bad_updates=count_bad_steps(new_optimizer),
        ),
    )

  return parallel.map_devices(update, mesh, donate_state=True)
