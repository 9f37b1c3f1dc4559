"""Update of a tracker's weights from a batch of examples.

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
from tapjax.models import arrows
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.training.losses import compute_losses
from tapjax.training.losses import LossConfig
from tapjax.training.losses import Losses
from tapjax.training.optimizers import make_optimizer
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.optimizers import stop_frozen
from tapjax.types import Example
from tapjax.types import PyTree
from tapjax.types import Tracks
from tapjax.types import TrackState


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """Settings of an update.

  Attributes:
    losses: weights and thresholds of the losses.
    optimizer: settings of the optimizer.
    accumulated: number of sequential parts of each device's share of a batch,
      whose gradients are averaged, to bound memory. Only rounding and
      batch-norm statistics, which are per part, depend on it.
    refined_queries: number of queries of each video, the first ones, whose
      refinement is trained, to save memory; for the others, only the first
      guess is. None for all.
  """

  losses: LossConfig = dataclasses.field(default_factory=LossConfig)
  optimizer: OptimizerConfig = dataclasses.field(
      default_factory=OptimizerConfig
  )
  accumulated: int = 1
  refined_queries: int | None = None


class TrainState(NamedTuple):
  """State of training, complete for a resumed run."""

  num_updates: Int[Array, '']
  params: Params
  optimizer: PyTree


class Metrics(NamedTuple):
  """Metrics of one update.

  Losses are of the last iteration, except for the total and the heatmap loss.
  """

  loss: Float[Array, '']
  position_loss: Float[Array, '']
  occlusion_loss: Float[Array, '']
  uncertainty_loss: Float[Array, '']
  gradient_norm: Float[Array, '']
  heatmap_loss: Float[Array, '']
  bad_updates: Int[Array, '']


class Prediction(NamedTuple):
  """Differentiable tracks of a batch.

  Attributes:
    tracks: final tracks `[b, n, t]`.
    states: states of the first guess and of each iteration, `[i, b, n, t]`.
    statistics: batch-norm statistics, updated by the batch.
  """

  tracks: Tracks
  states: TrackState
  statistics: PyTree


Update = Callable[[TrainState, Example, Array], tuple[TrainState, Metrics]]


def make_train_state(
    functions: TrackerFunctions, config: StepConfig, key: Array
) -> TrainState:
  """Initializes parameters and optimizer."""
  params = functions.init(key)
  optimizer = make_optimizer(config.optimizer).init(params.params)
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer)


def make_update(
    functions: TrackerFunctions, config: StepConfig, mesh: Mesh
) -> Update:
  """Compiles `update(state, batch, key)`, on all devices of a mesh.

  The state is replicated and donated, the batch sharded; see `parallel`. Random
  numbers are derived from the key and the number of updates of the state.
  """
  optimizer = make_optimizer(config.optimizer)

  def update(
      state: TrainState, batch: Example, key: Array
  ) -> tuple[TrainState, Metrics]:
    key = parallel.fold_device(jax.random.fold_in(key, state.num_updates))
    gradients, (losses, statistics) = _compute_gradients(
        functions, config, state.params, batch, key
    )
    gradients, losses = parallel.average((gradients, losses))
    state = apply_gradients(optimizer, state, gradients, statistics)
    last = jax.tree.map(lambda loss: loss[-1], losses)
    return state, Metrics(
        loss=losses.total,
        position_loss=last.position,
        occlusion_loss=last.occlusion,
        uncertainty_loss=last.uncertainty,
        gradient_norm=optax.tree.norm(gradients),
        heatmap_loss=losses.heatmap[0],
        bad_updates=state.optimizer.notfinite_count,
    )

  return parallel.map_devices(update, mesh, donate_state=True)


def apply_gradients(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradients: PyTree,
    statistics: PyTree,
) -> TrainState:
  """Returns the state after an update.

  If a gradient is not finite, running statistics do not change either, as
  non-finite values would persist in them.
  """
  changes, new_optimizer = optimizer.update(
      gradients, state.optimizer, state.params.params
  )
  bad = new_optimizer.notfinite_count
  statistics = jax.tree.map(
      lambda new, old: jnp.where(bad, old, new.astype(old.dtype)),
      statistics,
      state.params.state,
  )
  weights = optax.apply_updates(state.params.params, changes)
  return TrainState(
      state.num_updates + 1, Params(weights, statistics), new_optimizer
  )


def predict_states(
    functions: TrackerFunctions,
    params: Params,
    video: Float[Array, 'b t h w 3'],
    query_points: Float[Array, 'b n 3'],
    refined_queries: int | None = None,
    key: Array | None = None,
    target_points: Float[Array, 'b n t 2'] | None = None,
) -> Prediction:
  """Tracks a batch differentiably.

  Args:
    functions: functions of the tracker.
    params: parameters of the tracker.
    video: frames in [-1, 1].
    query_points: (t, y, x) in pixels of the video.
    refined_queries: number of refined queries; see `StepConfig`.
    key: key of dropout and the like; None for no randomness and no updates of
      batch-norm statistics.
    target_points: true (x, y); with them, the states have log-probabilities of
      the targets.

  Raises:
    ValueError: the tracker does not support `refined_queries`.
  """
  features, statistics = arrows.encode_in_training(
      functions, params, video, key
  )
  queries = arrows.describe_queries(functions, params, features, query_points)
  count = query_points.shape[1]
  if refined_queries is None or refined_queries >= count:
    segment = arrows.track_segment(
        functions,
        params,
        features,
        queries,
        query_points,
        target_points=target_points,
    )
    return Prediction(segment.tracks, segment.states, statistics)
  if not (functions.queries_independent and functions.guesses_first):
    raise ValueError(
        'refined_queries must be None for a tracker whose queries depend on '
        f'each other, or whose guesses on refined tracks; got {refined_queries}'
    )
  segment = arrows.refine_some(
      functions,
      params,
      features,
      queries,
      query_points,
      refined_queries,
      target_points,
  )
  return Prediction(segment.tracks, segment.states, statistics)


def compute_example_losses(
    functions: TrackerFunctions,
    params: Params,
    batch: Example,
    config: LossConfig,
    refined_queries: int | None = None,
    key: Array | None = None,
) -> tuple[Losses, PyTree]:
  """Returns losses of the first guess and of each iteration.

  Also returns the updated batch-norm statistics; see `predict_states`.
  """
  targets = None
  if config.heatmap_weight:
    # Finite targets of occluded points keep gradients finite.
    targets = jnp.where(batch.occluded[..., None], 0.0, batch.target_points)
  prediction = predict_states(
      functions,
      params,
      batch.video,
      batch.query_points,
      refined_queries,
      key,
      targets,
  )
  losses = compute_losses(
      prediction.states,
      batch.target_points,
      batch.occluded,
      functions.resolution,
      config,
  )
  return losses, prediction.statistics


def _compute_gradients(
    functions: TrackerFunctions,
    config: StepConfig,
    params: Params,
    batch: Example,
    key: Array,
) -> tuple[PyTree, tuple[Losses, PyTree]]:
  """Returns mean gradients and losses of one device's share of a batch."""

  def compute(
      weights: PyTree, part: tuple[Example, Array]
  ) -> tuple[Array, tuple[Losses, PyTree]]:
    examples, key = part
    weights = stop_frozen(weights, config.optimizer.frozen)
    losses, statistics = compute_example_losses(
        functions,
        params._replace(params=weights),
        examples,
        config.losses,
        config.refined_queries,
        key,
    )
    return losses.total, (losses, statistics)

  differentiate = jax.grad(compute, has_aux=True)
  parts = jax.tree.map(
      lambda array: array.reshape(config.accumulated, -1, *array.shape[1:]),
      batch,
  )
  keys = jax.random.split(key, config.accumulated)
  return average_parts(
      lambda part: differentiate(params.params, part), (parts, keys)
  )


def average_parts(compute: Callable[[PyTree], PyTree], parts: PyTree) -> PyTree:
  """Returns the mean of a function over parts, computed sequentially.

  Parts are along the first axis of all arrays.
  """

  def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
    return jax.tree.map(jnp.add, total, compute(part)), None

  shapes = jax.eval_shape(compute, jax.tree.map(lambda a: a[0], parts))
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, parts)
  count = len(jax.tree.leaves(parts)[0])
  return jax.tree.map(lambda array: array / count, total)
