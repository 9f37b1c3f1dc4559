"""One update of a tracker's weights from a batch of examples.

example ──encode, describe, initialize, refine──► states ──losses──► gradients
──mean over devices──► optimizer ──► weights
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
from tapjax.models.base import Params
from tapjax.models.base import TrackerFunctions
from tapjax.training.losses import compute_losses
from tapjax.training.losses import LossConfig
from tapjax.training.losses import Losses
from tapjax.training.optimizers import make_optimizer
from tapjax.training.optimizers import OptimizerConfig
from tapjax.types import Example
from tapjax.types import PyTree
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """Settings of an update.

  Attributes:
    losses: what is minimized.
    optimizer: how.
    accumulated: parts into which each device cuts its share of a batch and that
      it works through one after the other; they bound memory and change nothing
      but rounding.
  """

  losses: LossConfig = dataclasses.field(default_factory=LossConfig)
  optimizer: OptimizerConfig = dataclasses.field(
      default_factory=OptimizerConfig
  )
  accumulated: int = 1


class TrainState(NamedTuple):
  """What training has come to: all that a resumed run needs."""

  num_updates: Int[Array, '']
  params: Params
  optimizer: PyTree


class Metrics(NamedTuple):
  """What one update tells; losses are of the last iteration but the sum."""

  loss: Float[Array, '']
  position_loss: Float[Array, '']
  occlusion_loss: Float[Array, '']
  uncertainty_loss: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


Update = Callable[[TrainState, Example], tuple[TrainState, Metrics]]


def make_train_state(
    functions: TrackerFunctions, config: StepConfig, key: Array
) -> TrainState:
  """Returns the state before the first update."""
  params = functions.init(key)
  optimizer = make_optimizer(config.optimizer).init(params.weights)
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer)


def make_update(
    functions: TrackerFunctions, config: StepConfig, mesh: Mesh
) -> Update:
  """Compiles the update of a state from a batch, on all devices of a mesh.

  The state is replicated and given up, the batch sharded; see `parallel`.
  """
  optimizer = make_optimizer(config.optimizer)

  def update(state: TrainState, batch: Example) -> tuple[TrainState, Metrics]:
    gradients, losses = parallel.average(
        _compute_gradients(functions, config, state.params, batch)
    )
    changes, new_optimizer = optimizer.update(
        gradients, state.optimizer, state.params.weights
    )
    weights = optax.apply_updates(state.params.weights, changes)
    last = jax.tree.map(lambda loss: loss[-1], losses)
    return (
        TrainState(
            state.num_updates + 1,
            state.params._replace(weights=weights),
            new_optimizer,
        ),
        Metrics(
            loss=losses.total,
            position_loss=last.position,
            occlusion_loss=last.occlusion,
            uncertainty_loss=last.uncertainty,
            gradient_norm=optax.tree.norm(gradients),
            bad_updates=new_optimizer.notfinite_count,
        ),
    )

  return parallel.map_devices(update, mesh, donate_state=True)


def compute_example_losses(
    functions: TrackerFunctions,
    params: Params,
    batch: Example,
    config: LossConfig,
) -> Losses:
  """Returns the losses of the first guess and of every iteration after it."""
  features = functions.encode_video(params, batch.video)
  queries = functions.describe_queries(params, features, batch.query_points)
  first = functions.initialize_tracks(
      params, features, queries, batch.query_points
  )
  refined, _ = functions.refine_tracks(params, features, queries, first)
  states = jax.tree.map(
      lambda start, rest: jnp.concatenate([start[None], rest]), first, refined
  )
  return compute_losses(
      TrackState(*states),
      batch.target_points,
      batch.occluded,
      functions.resolution,
      config,
  )


def _compute_gradients(
    functions: TrackerFunctions,
    config: StepConfig,
    params: Params,
    batch: Example,
) -> tuple[PyTree, Losses]:
  """Returns the mean gradients and losses of one device's share of a batch."""

  def compute(weights: PyTree, part: Example) -> tuple[Array, Losses]:
    losses = compute_example_losses(
        functions, params._replace(weights=weights), part, config.losses
    )
    return losses.total, losses

  differentiate = jax.grad(compute, has_aux=True)
  parts = jax.tree.map(
      lambda array: array.reshape(config.accumulated, -1, *array.shape[1:]),
      batch,
  )
  return average_parts(lambda part: differentiate(params.weights, part), parts)


def average_parts(compute: Callable[[PyTree], PyTree], parts: PyTree) -> PyTree:
  """Returns the mean of what is computed of parts, one after the other.

  Parts are along the first axis of all arrays.
  """

  def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
    return jax.tree.map(jnp.add, total, compute(part)), None

  shapes = jax.eval_shape(compute, jax.tree.map(lambda a: a[0], parts))
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, parts)
  count = len(jax.tree.leaves(parts)[0])
  return jax.tree.map(lambda array: array / count, total)
