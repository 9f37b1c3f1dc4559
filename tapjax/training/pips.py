"""How PIPs++ learns: starting tracks, the loss and the optimizer.

Zheng et al., "PointOdyssey", arXiv 2307.15055. With P_i the positions after
iteration i of n, as the network gives them on every frame, the first included,

  loss = mean_i discount^(n - 1 - i) * mean_valid (|dx| + |dy|) / 2

in pixels of the network. Visibility is not used: a hidden point whose position
is known weighs as much as a visible one.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Shaped
import optax

from tapjax.geometry import Resolution
from tapjax.models.base import Params
from tapjax.models.base import TrackerFunctions
from tapjax.types import TrackState

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
  """

  num_steps: int = 200_000
  peak_lr: float = 5e-4
  max_norm: float = 5.0
  weight_decay: float = 1e-6
  b1: float = 0.9
  b2: float = 0.999
  discount: float = 0.8


class PipsBatch(NamedTuple):
  """Clips whose tracks all begin on the first frame.

  Videos are in [-1, 1]; positions are (x, y) in raster pixels of them, finite
  also where they are not valid and mean nothing.
  """

  video: Float[Array, 'b t h w 3']
  target_points: Float[Array, 'b n t 2']
  valid: Bool[Array, 'b n t']


def compute_pips_loss(
    positions: Float[Array, 'i b n t 2'],
    target_points: Float[Array, 'b n t 2'],
    valid: Shaped[Array, 'b n t'],
    discount: float = 0.8,
) -> Float[Array, '']:
  """Returns the loss of the positions after each iteration."""
  weights = valid.astype(positions.dtype)
  errors = jnp.mean(jnp.abs(positions - target_points[None]), axis=-1)
  sums = jnp.sum(errors * weights[None], axis=(1, 2, 3))
  num_iterations = len(positions)
  decay = discount ** jnp.arange(num_iterations - 1, -1, -1)
  return jnp.mean(decay * sums / (_EPSILON + jnp.sum(weights)))


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
  query_points = jnp.pad(
      jnp.flip(start[:, :, 0], axis=-1), ((0, 0), (0, 0), (1, 0))
  )
  features = functions.encode_video(params, batch.video)
  queries = functions.describe_queries(params, features, query_points)
  states, _ = functions.refine_tracks(
      params, features, queries, TrackState(start, None, None)
  )
  # The last state is the answer, with tracks back on their queries.
  return compute_pips_loss(
      states.positions[:-1], batch.target_points, batch.valid, discount
  )


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
