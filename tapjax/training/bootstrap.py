"""Self-training on unlabeled videos.

Doersch et al., "BootsTAP: Bootstrapped Training for Tracking-Any-Point", arXiv
2402.00847. The teacher is a running average of the student:

clean video ──teacher──► tracks, the pseudo-labels
     └─shrink, move, degrade──► video ──student, from another query on the
                                 track──► losses, on forward-backward consistent
                                          tracks

Values that the paper does not state are settings of `SelfTrainingConfig`.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import optax

from tapjax import parallel
from tapjax.data.unlabeled.clips import UnlabeledBatch
from tapjax.data.unlabeled.degradation import DegradationConfig
from tapjax.data.unlabeled.degradation import degrade_video
from tapjax.data.unlabeled.degradation import draw_motion
from tapjax.data.unlabeled.degradation import from_canvas
from tapjax.data.unlabeled.degradation import to_canvas
from tapjax.geometry import rescale_positions
from tapjax.models.arrows import finalize_tracks
from tapjax.models.arrows import get_query_frames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.training.losses import compute_losses
from tapjax.training.losses import LossConfig
from tapjax.training.losses import Losses
from tapjax.training.optimizers import make_optimizer
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import average_parts
from tapjax.training.step import compute_example_losses
from tapjax.training.step import predict_states
from tapjax.training.step import TrainState
from tapjax.types import Example
from tapjax.types import PyTree
from tapjax.types import TrackState

# Frame size of thresholds in pixels.
_SCALE = (256, 256)


@dataclasses.dataclass(frozen=True)
class SelfTrainingConfig:
  """Settings of self-training.

  Attributes:
    losses: weights and thresholds of the losses.
    optimizer: settings of two optimizers, for unlabeled and for labeled videos,
      whose changes are added.
    teacher_decay: decay of the running average of the student's weights.
    cycle_threshold: largest forward-backward error, in pixels of 256x256, of
      the student at the teacher's query for a track to count.
    least_confidence: least confidence of the teacher for a position to count;
      frames where it predicts an occlusion always count.
    degradation: of the student's videos.
    accumulated: see `StepConfig`.
  """

  losses: LossConfig = dataclasses.field(default_factory=LossConfig)
  optimizer: OptimizerConfig = dataclasses.field(
      default_factory=lambda: OptimizerConfig(
          peak_lr=1e-4, warmup_steps=100, num_steps=10_000, weight_decay=1e-2
      )
  )
  teacher_decay: float = 0.999
  cycle_threshold: float = 4.0
  least_confidence: float = 0.25
  degradation: DegradationConfig = dataclasses.field(
      default_factory=DegradationConfig
  )
  accumulated: int = 1

  def __post_init__(self):
    if not 0 <= self.teacher_decay <= 1:
      raise ValueError(
          f'teacher_decay must be between 0 and 1; got {self.teacher_decay}'
      )


class Memory(NamedTuple):
  """Teacher and both optimizer states, in `TrainState.optimizer`."""

  teacher: Params
  unlabeled: PyTree
  labeled: PyTree


class SelfTrainingMetrics(NamedTuple):
  """Metrics of one update; losses except the total are of the last iteration.

  `kept` is the fraction of tracks that pass the forward-backward check,
  `counted` the fraction of all frames of tracks with a loss.
  """

  loss: Float[Array, '']
  kept: Float[Array, '']
  counted: Float[Array, '']
  position_loss: Float[Array, '']
  occlusion_loss: Float[Array, '']
  labeled_loss: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


class PseudoLabels(NamedTuple):
  """Tracks of the teacher, and queries of the student on them."""

  target_points: Float[Array, 'b n t 2']
  occluded: Bool[Array, 'b n t']
  trusted: Bool[Array, 'b n t']
  query_points: Float[Array, 'b n 3']


def make_self_training_state(
    params: Params, config: SelfTrainingConfig
) -> TrainState:
  """Initializes the state; the teacher is a copy of the student."""
  optimizer = make_optimizer(config.optimizer)
  teacher = jax.tree.map(jnp.copy, params)
  memory = Memory(
      teacher, optimizer.init(params.params), optimizer.init(params.params)
  )
  return TrainState(jnp.zeros((), jnp.int32), params, memory)


def make_self_training_update(
    functions: TrackerFunctions, config: SelfTrainingConfig, mesh: Mesh
) -> Callable[..., tuple[TrainState, SelfTrainingMetrics]]:
  """Compiles `update(state, (unlabeled, labeled), key)`, on all devices.

  The labeled batch, an `Example`, may be None. Random numbers are
  derived from the key and the number of updates of the state.
  """
  optimizer = make_optimizer(config.optimizer)

  def update(
      state: TrainState,
      batch: tuple[UnlabeledBatch, Example | None],
      key: Array,
  ) -> tuple[TrainState, SelfTrainingMetrics]:
    unlabeled, labeled = batch
    params, memory = state.params, state.optimizer
    key = parallel.fold_device(jax.random.fold_in(key, state.num_updates))
    gradients, (losses, kept, counted) = parallel.average(
        _compute_gradients(
            functions, config, params, memory.teacher, unlabeled, key
        )
    )
    changes, own = optimizer.update(gradients, memory.unlabeled, params.params)
    bad_updates = own.notfinite_count
    weights = optax.apply_updates(params.params, changes)
    labeled_loss, other = jnp.zeros(()), memory.labeled
    if labeled is not None:
      labeled_loss, more = parallel.average(
          _compute_labeled_gradients(functions, config, params, labeled)
      )
      changes, other = optimizer.update(more, memory.labeled, params.params)
      weights = optax.apply_updates(weights, changes)
      bad_updates = jnp.maximum(bad_updates, other.notfinite_count)
    teacher = jax.tree.map(
        lambda old, new: old + (1 - config.teacher_decay) * (new - old),
        memory.teacher.params,
        weights,
    )
    last = jax.tree.map(lambda loss: loss[-1], losses)
    return (
        TrainState(
            state.num_updates + 1,
            params._replace(params=weights),
            Memory(memory.teacher._replace(params=teacher), own, other),
        ),
        SelfTrainingMetrics(
            loss=losses.total,
            kept=kept,
            counted=counted,
            position_loss=last.position,
            occlusion_loss=last.occlusion,
            labeled_loss=labeled_loss,
            gradient_norm=optax.tree.norm(gradients),
            bad_updates=bad_updates,
        ),
    )

  return parallel.map_devices(update, mesh, donate_state=True)


def make_pseudo_labels(
    functions: TrackerFunctions,
    teacher: Params,
    batch: UnlabeledBatch,
    least_confidence: float,
    key: Array,
) -> PseudoLabels:
  """Tracks points of clean videos, and draws new queries on the tracks.

  A new query is on a random frame where the teacher predicts a visible point
  with enough confidence, or on the original frame if there is none.
  """
  tracks = predict_states(
      functions, teacher, batch.video, batch.query_points
  ).tracks
  positions = jnp.asarray(tracks.positions)
  if tracks.occlusion_logits is None:
    occluded = jnp.zeros(positions.shape[:-1], bool)
  else:
    occluded = jnp.asarray(tracks.occlusion_logits > 0)
  trusted = jnp.asarray(tracks.confidence >= least_confidence)
  height, width = functions.resolution
  inside = jnp.all(
      (positions >= 0)
      & (positions <= jnp.asarray([width, height]).reshape(1, 1, 1, 2)),
      axis=-1,
  )
  own = _get_frames(batch.query_points, positions.shape[2])
  is_own = jnp.arange(positions.shape[2])[None, None] == own[..., None]
  # Log-weights of frames; that of the original query is small but finite.
  logits = jnp.where(~occluded & trusted & inside, 0.0, -jnp.inf)
  logits = jnp.maximum(logits, jnp.where(is_own, -20.0, -jnp.inf))
  frames = jax.random.categorical(key, logits)
  begin = jnp.take_along_axis(positions, frames[..., None, None], axis=2)
  begin = jnp.where(
      (frames == own)[..., None], batch.query_points[..., :0:-1], begin[:, :, 0]
  )
  query_points = jnp.concatenate(
      [frames[..., None].astype(jnp.float32), begin[..., ::-1]], axis=-1
  )
  labels = PseudoLabels(positions, occluded, trusted | occluded, query_points)
  return jax.lax.stop_gradient(labels)


def find_returned(
    functions: TrackerFunctions,
    states: TrackState,
    query_points: Float[Array, 'b n 3'],
    threshold: float,
) -> Bool[Array, 'b n']:
  """Returns the tracks that are visible at the teacher's queries and near them.

  Positions are of the clean video; the threshold is in pixels of 256x256.
  """
  tracks = finalize_tracks(functions, states)
  frames = _get_frames(query_points, tracks.positions.shape[2])
  found = jnp.take_along_axis(
      tracks.positions, frames[..., None, None], axis=2
  )[:, :, 0]
  offsets = rescale_positions(
      found - query_points[..., :0:-1], functions.resolution, _SCALE
  )
  is_near = jnp.sum(jnp.square(offsets), axis=-1) < threshold**2
  seen = jnp.take_along_axis(tracks.visible, frames[..., None], axis=2)
  return is_near & seen[..., 0]


def _get_frames(
    query_points: Float[Array, 'b n 3'], num_frames: int
) -> Int[Array, 'b n']:
  return jax.vmap(lambda points: get_query_frames(points, num_frames))(
      query_points
  )


def compute_self_training_losses(
    functions: TrackerFunctions,
    config: SelfTrainingConfig,
    params: Params,
    teacher: Params,
    batch: UnlabeledBatch,
    key: Array,
) -> tuple[Losses, tuple[Float[Array, ''], Float[Array, '']]]:
  """Returns the student's losses, and the fractions `kept` and `counted`."""
  keys = jax.random.split(key, 3)
  labels = make_pseudo_labels(
      functions, teacher, batch, config.least_confidence, keys[0]
  )
  count = batch.video.shape[0]
  draw = jax.vmap(lambda key: draw_motion(key, config.degradation))
  motions = draw(jax.random.split(keys[1], count))
  change = jax.vmap(
      lambda key, video, motion: degrade_video(
          key, video, motion, config.degradation
      )
  )
  video = change(jax.random.split(keys[2], count), batch.video, motions)
  size = functions.resolution
  num_frames = batch.video.shape[1]
  # Queries move with the motion of their own frames.
  places = jnp.broadcast_to(
      labels.query_points[:, :, None, :0:-1],
      (*labels.query_points.shape[:2], num_frames, 2),
  )
  moved = jax.vmap(lambda p, m: to_canvas(p, m, size))(places, motions)
  frames = _get_frames(labels.query_points, num_frames)
  begin = jnp.take_along_axis(moved, frames[..., None, None], axis=2)[:, :, 0]
  query_points = jnp.concatenate(
      [labels.query_points[..., :1], begin[..., ::-1]], axis=-1
  )
  states = predict_states(
      functions,
      params,
      jax.lax.stop_gradient(video),
      query_points,
  ).states
  home = jax.vmap(
      jax.vmap(lambda p, m: from_canvas(p, m, size)), in_axes=(0, None)
  )
  states = states._replace(positions=home(states.positions, motions))
  returned = find_returned(
      functions,
      jax.lax.stop_gradient(states),
      batch.query_points,
      config.cycle_threshold,
  )
  mask = returned[..., None] & labels.trusted
  losses = compute_losses(
      states,
      labels.target_points,
      labels.occluded,
      functions.resolution,
      config.losses,
      mask=mask.astype(jnp.float32),
  )
  return losses, (
      jnp.mean(returned.astype(jnp.float32)),
      jnp.mean(mask.astype(jnp.float32)),
  )


def _compute_gradients(
    functions: TrackerFunctions,
    config: SelfTrainingConfig,
    params: Params,
    teacher: Params,
    batch: UnlabeledBatch,
    key: Array,
) -> tuple[PyTree, tuple[Losses, Array, Array]]:
  """Returns mean gradients and losses of one device's share of a batch."""

  def compute(
      weights: PyTree, part: tuple[UnlabeledBatch, Array]
  ) -> tuple[Array, tuple[Losses, Array, Array]]:
    videos, key = part
    losses, fractions = compute_self_training_losses(
        functions,
        config,
        params._replace(params=weights),
        teacher,
        videos,
        key,
    )
    return losses.total, (losses, *fractions)

  differentiate = jax.grad(compute, has_aux=True)
  parts = (
      _cut(batch, config.accumulated),
      jax.random.split(key, config.accumulated),
  )
  return average_parts(lambda part: differentiate(params.params, part), parts)


def _compute_labeled_gradients(
    functions: TrackerFunctions,
    config: SelfTrainingConfig,
    params: Params,
    batch: Example,
) -> tuple[Array, PyTree]:
  def compute(weights: PyTree, part: Example) -> Array:
    losses, _ = compute_example_losses(
        functions, params._replace(params=weights), part, config.losses
    )
    return losses.total

  differentiate = jax.value_and_grad(compute)
  return average_parts(
      lambda part: differentiate(params.params, part),
      _cut(batch, config.accumulated),
  )


def _cut(batch: PyTree, number: int) -> PyTree:
  return jax.tree.map(
      lambda array: array.reshape(number, -1, *array.shape[1:]), batch
  )
