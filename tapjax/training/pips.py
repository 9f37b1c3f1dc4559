"""How PIPs++ learns: starting tracks, the loss and the optimizer.

Zheng et al., "PointOdyssey", arXiv 2307.15055. With P_i the positions after
iteration i of n, as the network gives them on every frame, the first included,

  loss = mean_i discount^(n - 1 - i) * mean_valid (|dx| + |dy|) / 2

in pixels of the network. Visibility is not used: a hidden point whose position
is known weighs as much as a visible one.
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
from jaxtyping import Shaped
import optax

from tapjax import parallel
from tapjax.geometry import Resolution
from tapjax.models import arrows
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.training.optimizers import count_bad_steps
from tapjax.training.step import TrainState
from tapjax.types import PyTree
from tapjax.types import TrackState

# Pixels of 256x256.
THRESHOLDS = (1, 2, 4, 8, 16)
_SIDE = 256.0
_EPSILON = 1e-6
# The learning rate begins at a share of its peak and ends at one of that.
_START_SHARE = 1 / 25
_END_SHARE = 1e-4
_WARMUP_SHARE = 0.1
# The schedule is made for somewhat more updates than there will be.
_SPARE_STEPS = 100


@dataclasses.dataclass(frozen=True)
class PipsTrainingConfig:
  """Settings of training; those of the first of the two published stages.

  Attributes:
    num_steps: updates.
    peak_lr: largest learning rate.
    max_norm: gradients of a larger global norm are scaled down to it; the
      second stage takes 1.
    weight_decay: of all parameters, times the learning rate.
    b1: decay of the mean of gradients.
    b2: decay of the mean of squared gradients.
    discount: what an iteration weighs less than the next one.
    max_bad_steps: consecutive updates with a non-finite gradient that change
      nothing; one more is let through.
  """

  num_steps: int = 200_000
  peak_lr: float = 5e-4
  max_norm: float = 5.0
  weight_decay: float = 1e-6
  b1: float = 0.9
  b2: float = 0.999
  discount: float = 0.8
  max_bad_steps: int = 5


class PipsBatch(NamedTuple):
  """Clips whose tracks all begin on the first frame.

  Videos are in [-1, 1]; positions are (x, y) in raster pixels of them, finite
  also where they are not valid and mean nothing.
  """

  video: Float[Array, 'b t h w 3']
  target_points: Float[Array, 'b n t 2']
  valid: Bool[Array, 'b n t']


class PipsMetrics(NamedTuple):
  """What one update tells.

  Attributes:
    loss: what is minimized.
    d_avg: percent of valid points behind the first frame that are closer to the
      truth than 1, 2, 4, 8 and 16 pixels of 256x256, and the mean of these.
    gradient_norm: before it is limited.
    bad_updates: how many of the latest ones in a row were not finite.
  """

  loss: Float[Array, '']
  d_avg: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


Update = Callable[
    [TrainState, PipsBatch, Array], tuple[TrainState, PipsMetrics]
]


def compute_pips_loss(
    positions: Float[Array, 'i b n t 2'],
    target_points: Float[Array, 'b n t 2'],
    valid: Shaped[Array, 'b n t'],
    discount: float = 0.8,
    num_valid: Float[Array, ''] | None = None,
) -> Float[Array, '']:
  """Returns the loss of the positions after each iteration.

  `num_valid` counts the valid positions of a batch of which these clips are a
  part: the losses of all parts add up to that of the batch. None counts those
  given.
  """
  weights = valid.astype(positions.dtype)
  if num_valid is None:
    num_valid = jnp.sum(weights)
  errors = jnp.mean(jnp.abs(positions - target_points[None]), axis=-1)
  sums = jnp.sum(errors * weights[None], axis=(1, 2, 3))
  num_iterations = len(positions)
  decay = discount ** jnp.arange(num_iterations - 1, -1, -1)
  return jnp.mean(decay * sums / (_EPSILON + num_valid))


def compute_batch_loss(
    functions: TrackerFunctions,
    params: Params,
    batch: PipsBatch,
    start: Float[Array, 'b n t 2'],
    discount: float = 0.8,
) -> Float[Array, '']:
  """Returns the loss of PIPs++ on clips, from tracks to start with.

  On the first frame these are the queries.
  """
  # The last state is the answer, with tracks back on their queries.
  positions = refine_batch(functions, params, batch.video, start)[:-1]
  return compute_pips_loss(
      positions, batch.target_points, batch.valid, discount
  )


def refine_batch(
    functions: TrackerFunctions,
    params: Params,
    video: Float[Array, 'b t h w 3'],
    start: Float[Array, 'b n t 2'],
) -> Float[Array, 'i b n t 2']:
  """Returns positions after each iteration, and at last the answer."""
  query_points = jnp.pad(
      jnp.flip(start[:, :, 0], axis=-1), ((0, 0), (0, 0), (1, 0))
  )
  features = arrows.encode_segment(functions, params, video)
  queries = arrows.describe_queries(functions, params, features, query_points)
  segment = arrows.track_segment(
      functions,
      params,
      features,
      queries,
      query_points,
      start=TrackState(start, None, None),
  )
  return segment.states.positions


def measure_accuracy(
    positions: Float[Array, 'b n t 2'],
    target_points: Float[Array, 'b n t 2'],
    valid: Bool[Array, 'b n t'],
    resolution: Resolution,
    num_valid: Float[Array, ''] | None = None,
) -> Float[Array, '']:
  """Returns `PipsMetrics.d_avg`, as `evaluation.pips_metrics` does.

  `num_valid` counts, without first frames, the valid positions of a batch of
  which these clips are a part; see `compute_pips_loss`.
  """
  height, width = resolution
  scale = jnp.asarray([_SIDE / width, _SIDE / height], positions.dtype)
  errors = (positions - target_points) * scale.reshape(1, 1, 1, 2)
  distances = jnp.linalg.norm(errors, axis=-1)[:, :, 1:]
  counts = valid[:, :, 1:]
  within = distances[..., None] < jnp.asarray(THRESHOLDS).reshape(1, 1, 1, -1)
  if num_valid is None:
    num_valid = jnp.sum(counts).astype(positions.dtype)
  shares = jnp.sum(within & counts[..., None], axis=(0, 1, 2)) / (
      _EPSILON + num_valid
  )
  return 100 * jnp.mean(shares)


def draw_start_tracks(
    key: Array, target_points: Float[Array, 'b n t 2'], resolution: Resolution
) -> Float[Array, 'b n t 2']:
  """Returns tracks for training to start with.

  Half of them stand still, the others lie somewhere between the truth and
  positions at random, as far from it for a whole track. All begin on it.
  """
  keys = jax.random.split(key, 3)
  height, width = resolution
  shape = target_points.shape
  # Anywhere between the centers of the outermost pixels.
  noise = 0.5 + jax.random.uniform(keys[0], shape) * jnp.asarray(
      [width - 1, height - 1], target_points.dtype
  ).reshape(1, 1, 1, 2)
  share = jax.random.uniform(keys[1], (*shape[:2], 1, 1))
  mixed = share * noise + (1 - share) * target_points
  still = jax.random.bernoulli(keys[2], 0.5, (*shape[:2], 1, 1))
  first = target_points[:, :, :1]
  start = jnp.where(still, first, mixed)
  return jnp.concatenate([first, start[:, :, 1:]], axis=2)


def transpose_batch(batch: PipsBatch) -> PipsBatch:
  """Swaps x and y of all clips, as training does with half of the batches."""
  return batch._replace(
      video=batch.video.swapaxes(2, 3),
      target_points=jnp.flip(batch.target_points, axis=-1),
  )


def make_pips_schedule(config: PipsTrainingConfig) -> optax.Schedule:
  """Returns the learning rate of an update: linearly up, then down."""
  total = config.num_steps + _SPARE_STEPS
  top = _WARMUP_SHARE * total - 1
  start = config.peak_lr * _START_SHARE
  places = jnp.asarray([0.0, top, total - 1])
  rates = jnp.asarray([start, config.peak_lr, start * _END_SHARE])
  return lambda step: jnp.interp(step, places, rates)


def make_pips_optimizer(
    config: PipsTrainingConfig,
) -> optax.GradientTransformation:
  """Returns AdamW behind a limit of the gradients' norm."""
  return optax.chain(
      optax.clip_by_global_norm(config.max_norm),
      optax.adamw(
          make_pips_schedule(config),
          b1=config.b1,
          b2=config.b2,
          eps=1e-8,
          weight_decay=config.weight_decay,
      ),
  )


def make_pips_state(params: Params, config: PipsTrainingConfig) -> TrainState:
  """Returns the state before the first update."""
  optimizer = _make_guarded_optimizer(config)
  return TrainState(
      jnp.zeros((), jnp.int32), params, optimizer.init(params.weights)
  )


def make_pips_update(
    functions: TrackerFunctions, config: PipsTrainingConfig, mesh: Mesh
) -> Update:
  """Compiles `update(state, batch, key)`, on all devices of a mesh.

  The state is replicated and given up, the batch sharded. The key is of the
  tracks to start with. What is learned does not depend on the number of
  devices.
  """
  optimizer = _make_guarded_optimizer(config)
  resolution = functions.resolution

  def update(
      state: TrainState, batch: PipsBatch, key: Array
  ) -> tuple[TrainState, PipsMetrics]:
    start = jax.vmap(
        lambda key, target: draw_start_tracks(key, target[None], resolution)[0]
    )(parallel.fold_rows(key, len(batch.video)), batch.target_points)
    num_valid, num_measured = parallel.total(
        (
            jnp.sum(batch.valid.astype(jnp.float32)),
            jnp.sum(batch.valid[:, :, 1:].astype(jnp.float32)),
        )
    )

    def compute(weights: PyTree) -> tuple[Array, Array]:
      params = state.params._replace(weights=weights)
      positions = refine_batch(functions, params, batch.video, start)
      loss = compute_pips_loss(
          positions[:-1],
          batch.target_points,
          batch.valid,
          config.discount,
          num_valid,
      )
      return loss, positions[-1]

    weights = state.params.weights
    (loss, positions), gradients = jax.value_and_grad(compute, has_aux=True)(
        weights
    )
    accuracy = measure_accuracy(
        positions, batch.target_points, batch.valid, resolution, num_measured
    )
    # Gradients of the own clips alone: see `parallel.map_devices`.
    loss, accuracy, gradients = parallel.total((loss, accuracy, gradients))
    changes, new_optimizer = optimizer.update(
        gradients, state.optimizer, weights
    )
    params = state.params._replace(
        weights=optax.apply_updates(weights, changes)
    )
    return (
        TrainState(state.num_updates + 1, params, new_optimizer),
        PipsMetrics(
            loss,
            accuracy,
            optax.tree.norm(gradients),
            count_bad_steps(new_optimizer),
        ),
    )

  return parallel.map_devices(update, mesh, donate_state=True)


def _make_guarded_optimizer(
    config: PipsTrainingConfig,
) -> optax.GradientTransformation:
  """Returns the optimizer; it skips updates that are not finite."""
  return optax.apply_if_finite(
      make_pips_optimizer(config), config.max_bad_steps
  )
