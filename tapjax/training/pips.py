"""Training of PIPs++: initial tracks, loss and optimizer.

Zheng et al., "PointOdyssey", arXiv 2307.15055. With P_i the positions after
iteration i of n on every frame, the first included,

  loss = mean_i discount^(n - 1 - i) * mean_valid (|dx| + |dy|) / 2

in pixels of the network. Visibility is not used: an occluded point with a known
position has the same weight as a visible one.
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
# Initial learning rate, as a fraction of the peak; the final learning rate is a
# fraction of the initial one.
_START_SHARE = 1 / 25
_END_SHARE = 1e-4
_WARMUP_SHARE = 0.1
# The schedule is longer than the training by this many updates.
_SPARE_STEPS = 100


@dataclasses.dataclass(frozen=True)
class PipsTrainingConfig:
  """Settings of training; defaults are those of the first published stage.

  Attributes:
    num_steps: number of updates.
    peak_lr: largest learning rate.
    max_norm: maximum global norm of the gradients, by clipping; 1 in the second
      stage.
    weight_decay: decoupled weight decay of all parameters.
    b1: decay of the first moment.
    b2: decay of the second moment.
    discount: weight of an iteration relative to the next one.
    max_bad_steps: maximum number of consecutive updates with a non-finite
      gradient that are skipped; the next one is applied.
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
  """Clips with tracks that begin on the first frame.

  Videos are in [-1, 1]; positions are (x, y) in their raster pixels, finite but
  arbitrary where they are not valid.
  """

  video: Float[Array, 'b t h w 3']
  target_points: Float[Array, 'b n t 2']
  valid: Bool[Array, 'b n t']


class PipsMetrics(NamedTuple):
  """Metrics of one update.

  Attributes:
    loss: training objective.
    d_avg: percentage of valid points after the first frame with an error below
      1, 2, 4, 8 and 16 pixels of 256x256, averaged over these thresholds.
    gradient_norm: global norm before clipping.
    bad_updates: number of latest consecutive non-finite updates.
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
  """Returns the discounted loss over the positions of all iterations.

  `num_valid` is the number of valid positions of a whole batch, if these clips
  are a part of it: the losses of all parts then sum to that of the batch. None
  for the number in these clips.
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
  """Returns the loss of PIPs++ on clips, from initial tracks.

  The queries are the initial tracks on the first frame.
  """
  # The last state is the final one, with tracks fixed at their queries.
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
  """Returns positions after each iteration, followed by the final ones."""
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
  """Returns `PipsMetrics.d_avg`, as in `evaluation.pips_metrics`.

  `num_valid` is the number of valid positions after first frames of a whole
  batch; see `compute_pips_loss`.
  """
  height, width = resolution
  scale = jnp.asarray([_SIDE / width, _SIDE / height], positions.dtype)
  errors = (positions - target_points) * scale.reshape(1, 1, 1, 2)
  distances = jnp.linalg.norm(errors, axis=-1)[:, :, 1:]
  counts = valid[:, :, 1:]
  within = distances[..., None] < jnp.asarray(THRESHOLDS).reshape(1, 1, 1, -1)
  if num_valid is None:
    num_valid = jnp.sum(counts).astype(positions.dtype)
  accuracies = jnp.sum(within & counts[..., None], axis=(0, 1, 2)) / (
      _EPSILON + num_valid
  )
  return 100 * jnp.mean(accuracies)


def draw_start_tracks(
    key: Array, target_points: Float[Array, 'b n t 2'], resolution: Resolution
) -> Float[Array, 'b n t 2']:
  """Draws initial tracks for training.

  Half of them are stationary; the others interpolate between the true and
  random positions, by one random factor per track. All begin at the true
  position.
  """
  keys = jax.random.split(key, 3)
  height, width = resolution
  shape = target_points.shape
  # Uniform between the centers of the outermost pixels.
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
  """Swaps x and y of all clips, as in half of the training batches."""
  return batch._replace(
      video=batch.video.swapaxes(2, 3),
      target_points=jnp.flip(batch.target_points, axis=-1),
  )


def make_pips_schedule(config: PipsTrainingConfig) -> optax.Schedule:
  """Returns the learning rate by update: a linear rise, then a linear decay."""
  total = config.num_steps + _SPARE_STEPS
  top = _WARMUP_SHARE * total - 1
  start = config.peak_lr * _START_SHARE
  places = jnp.asarray([0.0, top, total - 1])
  rates = jnp.asarray([start, config.peak_lr, start * _END_SHARE])
  return lambda step: jnp.interp(step, places, rates)


def make_pips_optimizer(
    config: PipsTrainingConfig,
) -> optax.GradientTransformation:
  """AdamW with gradient-norm clipping."""
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
  """Initializes the state of training."""
  optimizer = _make_guarded_optimizer(config)
  return TrainState(
      jnp.zeros((), jnp.int32), params, optimizer.init(params.params)
  )


def make_pips_update(
    functions: TrackerFunctions, config: PipsTrainingConfig, mesh: Mesh
) -> Update:
  """Compiles `update(state, batch, key)`, on all devices of a mesh.

  The state is replicated and donated, the batch sharded. The key is of the
  initial tracks. Results do not depend on the number of devices.
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
      params = state.params._replace(params=weights)
      positions = refine_batch(functions, params, batch.video, start)
      loss = compute_pips_loss(
          positions[:-1],
          batch.target_points,
          batch.valid,
          config.discount,
          num_valid,
      )
      return loss, positions[-1]

    weights = state.params.params
    (loss, positions), gradients = jax.value_and_grad(compute, has_aux=True)(
        weights
    )
    accuracy = measure_accuracy(
        positions, batch.target_points, batch.valid, resolution, num_measured
    )
    # Gradients are of the device's own clips; see `parallel.map_devices`.
    loss, accuracy, gradients = parallel.total((loss, accuracy, gradients))
    changes, new_optimizer = optimizer.update(
        gradients, state.optimizer, weights
    )
    params = state.params._replace(params=optax.apply_updates(weights, changes))
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
  """Returns the optimizer; skips non-finite updates."""
  return optax.apply_if_finite(
      make_pips_optimizer(config), config.max_bad_steps
  )
