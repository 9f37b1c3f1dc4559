"""How the point transformer learns: the loss, the optimizer and one update.

With P positions and G the truth, both as shares of the frame,

  loss = mean |P - G| + weight * mean |(P_t+1 - P_t) - (G_t+1 - G_t)|

over all points, frames and coordinates. Visibility is not used: a hidden point,
or one that fills up a set, weighs as much as a visible one.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import optax

from tapjax.models.base import Params
from tapjax.models.point_transformer import PointTransformerConfig
from tapjax.models.point_transformer import predict_clips
from tapjax.training.optimizers import count_bad_steps
from tapjax.training.step import TrainState
from tapjax.types import PyTree

_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class PointTrainingConfig:
  """Settings of training, as published.

  Attributes:
    num_epochs: passes through the data; the learning rate falls along half a
      cosine, epoch by epoch.
    peak_lr: learning rate of the first epoch.
    max_norm: gradients of a larger global norm are scaled down to it.
    weight_decay: of all parameters, times the learning rate.
    b1: decay of the mean of gradients.
    b2: decay of the mean of squared gradients.
    motion_weight: of the error of motion from frame to frame.
    max_bad_steps: consecutive updates with a non-finite gradient that change
      nothing; one more is let through.
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
  """Clips in [-1, 1], and where points are: shares of width and height."""

  video: Float[Array, 'b t h w 3']
  targets_unit: Float[Array, 'b t n 2']


class PointLosses(NamedTuple):
  """The loss and its parts.

  Attributes:
    total: what is minimized.
    position: mean absolute error of a coordinate.
    motion: that of its change from frame to frame.
    end_point: the error that is reported, |dx| + |dy|: twice `position`, and
      not the length of the error.
  """

  total: Float[Array, '']
  position: Float[Array, '']
  motion: Float[Array, '']
  end_point: Float[Array, '']


Update = Callable[
    [TrainState, PointBatch, Array], tuple[TrainState, PointLosses]
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
    key: Array | None = None,
) -> tuple[PointLosses, PyTree]:
  """Returns losses, and statistics of norms behind the batch.

  With a key this is training, else validation.
  """
  prediction = predict_clips(
      model, params, batch.video, batch.targets_unit[:, 0], key
  )
  losses = compute_point_losses(
      prediction.positions_unit, batch.targets_unit, motion_weight
  )
  return losses, prediction.statistics


def make_point_schedule(
    config: PointTrainingConfig, updates_per_epoch: int
) -> optax.Schedule:
  """Returns the learning rate of an update, the same for all of an epoch."""

  def schedule(count: Array | int) -> Array:
    epoch = jnp.minimum(count // updates_per_epoch, config.num_epochs)
    share = epoch / config.num_epochs
    return config.peak_lr / 2 * (1 + jnp.cos(jnp.pi * share))

  return schedule


def make_point_optimizer(
    config: PointTrainingConfig, updates_per_epoch: int
) -> optax.GradientTransformation:
  """Returns AdamW behind a limit of the gradients' norm.

  It skips updates whose gradients are not finite.
  """

  def clip(gradients: PyTree, params: PyTree) -> PyTree:
    del params  # The limit is that of gradients.
    scale = config.max_norm / (optax.tree.norm(gradients) + _EPSILON)
    scale = jnp.minimum(scale, 1)
    return jax.tree.map(lambda gradient: gradient * scale, gradients)

  optimizer = optax.chain(
      optax.stateless(clip),
      optax.adamw(
          make_point_schedule(config, updates_per_epoch),
          b1=config.b1,
          b2=config.b2,
          eps=1e-8,
          weight_decay=config.weight_decay,
      ),
  )
  return optax.apply_if_finite(optimizer, config.max_bad_steps)


def make_point_state(
    params: Params, config: PointTrainingConfig, updates_per_epoch: int
) -> TrainState:
  """Returns the state before the first update."""
  optimizer = make_point_optimizer(config, updates_per_epoch)
  return TrainState(
      jnp.zeros((), jnp.int32), params, optimizer.init(params.weights)
  )


def make_point_update(
    model: PointTransformerConfig,
    config: PointTrainingConfig,
    updates_per_epoch: int,
) -> Update:
  """Compiles the update of a state, on one device.

  It takes a key for what dropout leaves out, and also returns the losses of
  the state as it was.
  """
  optimizer = make_point_optimizer(config, updates_per_epoch)

  @jax.jit
  def update(
      state: TrainState, batch: PointBatch, key: Array
  ) -> tuple[TrainState, PointLosses]:
    def compute(weights: PyTree) -> tuple[Array, tuple[PointLosses, PyTree]]:
      losses, statistics = compute_batch_losses(
          model,
          state.params._replace(weights=weights),
          batch,
          config.motion_weight,
          key,
      )
      return losses.total, (losses, statistics)

    weights = state.params.weights
    gradients, (losses, statistics) = jax.grad(compute, has_aux=True)(weights)
    changes, new_optimizer = optimizer.update(
        gradients, state.optimizer, weights
    )
    # Running averages would never forget a value that is not finite.
    statistics = jax.tree.map(
        lambda new, old: jnp.where(count_bad_steps(new_optimizer), old, new),
        statistics,
        state.params.statistics,
    )
    params = Params(optax.apply_updates(weights, changes), statistics)
    return TrainState(state.num_updates + 1, params, new_optimizer), losses

  return update
