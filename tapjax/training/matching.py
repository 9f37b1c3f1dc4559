"""Contrastive training of features, before TAPIR is trained to track.

For points that are visible on several frames, the feature at the point on one
frame should be more similar to that on another frame than to any other cell
there. With unit vectors v and v' at the point and g of the other frame's cells,

  loss = logsumexp(v . g / temperature) - v . v' / temperature

the contrastive loss of van den Oord et al., arXiv 1807.03748. Coarse features
are compared with the whole frame, fine ones with nearby cells, as in the
tracker. Clips of a few frames far apart in time suffice, and neither the cost
volume nor the refinement is computed.
"""

from collections.abc import Callable
import dataclasses
import functools
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
from tapjax.geometry import rescale_positions
from tapjax.models.arrows import describe_queries
from tapjax.models.arrows import encode_segment
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.ops.loops import map_batch
from tapjax.training.optimizers import make_optimizer
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import apply_gradients
from tapjax.training.step import TrainState
from tapjax.types import Example
from tapjax.types import PyTree

# Largest error of a correct match, in cells.
_CORRECT_WITHIN = 2.0
# Score of masked cells; its exponential is zero.
_MASKED = -1e3


@dataclasses.dataclass(frozen=True)
class MatchingConfig:
  """Settings of contrastive training.

  Attributes:
    temperature: temperature of the softmax over cells.
    fine_weight: weight of the loss of fine features; that of coarse ones is 1.
    fine_reach: number of cells around a point, to each side, that its fine
      features are compared with.
    optimizer: settings of the optimizer.
  """

  temperature: float = 0.05
  fine_weight: float = 0.5
  fine_reach: float = 8.0
  optimizer: OptimizerConfig = dataclasses.field(
      default_factory=OptimizerConfig
  )


class MatchingLosses(NamedTuple):
  """Means over pairs of frames and the points visible on both.

  `accuracy` is the fraction of points whose best coarse cell is correct.
  """

  coarse: Float[Array, '']
  fine: Float[Array, '']
  accuracy: Float[Array, '']


class MatchingMetrics(NamedTuple):
  """Metrics of one update."""

  loss: Float[Array, '']
  accuracy: Float[Array, '']
  coarse_loss: Float[Array, '']
  fine_loss: Float[Array, '']
  gradient_norm: Float[Array, '']
  bad_updates: Int[Array, '']


def make_matching_update(
    functions: TrackerFunctions, config: MatchingConfig, mesh: Mesh
) -> Callable[[TrainState, Example], tuple[TrainState, MatchingMetrics]]:
  """Compiles `update(state, batch)`, on all devices of a mesh.

  The tracker is a TAPIR; query points of the batch are not used.
  """
  optimizer = make_optimizer(config.optimizer)

  def update(
      state: TrainState, batch: Example
  ) -> tuple[TrainState, MatchingMetrics]:
    def compute(weights: PyTree) -> tuple[Array, MatchingLosses]:
      params = state.params._replace(params=weights)
      losses = compute_matching_losses(functions, params, batch, config)
      return losses.coarse + config.fine_weight * losses.fine, losses

    (loss, losses), gradients = jax.value_and_grad(compute, has_aux=True)(
        state.params.params
    )
    gradients, loss, losses = parallel.average((gradients, loss, losses))
    state = apply_gradients(optimizer, state, gradients, state.params.state)
    return state, MatchingMetrics(
        loss=loss,
        accuracy=losses.accuracy,
        coarse_loss=losses.coarse,
        fine_loss=losses.fine,
        gradient_norm=optax.tree.norm(gradients),
        bad_updates=state.optimizer.notfinite_count,
    )

  return parallel.map_devices(update, mesh, donate_state=True)


def compute_matching_losses(
    functions: TrackerFunctions,
    params: Params,
    batch: Example,
    config: MatchingConfig,
) -> MatchingLosses:
  """Returns contrastive losses of a TAPIR's features."""
  grids = encode_segment(functions, params, batch.video)
  # The feature of each point on every frame is that of a query there.
  positions = batch.target_points.swapaxes(1, 2)
  num_videos, num_frames, num_points, _ = positions.shape
  frames = jnp.broadcast_to(
      jnp.arange(num_frames, dtype=positions.dtype)[None, :, None],
      positions.shape[:3],
  )
  points = jnp.stack([frames, positions[..., 1], positions[..., 0]], axis=-1)
  vectors = describe_queries(
      functions, params, grids, points.reshape(num_videos, -1, 3)
  )

  def compare(
      grid: Float[Array, 'b t h w c'],
      vectors: Float[Array, 'b q c'],
      reach: float | None,
  ) -> tuple[Array, Array]:
    vectors = vectors.reshape(num_videos, num_frames, num_points, -1)
    losses, accuracies = map_batch(
        functools.partial(
            _compare_frames,
            resolution=functions.resolution,
            temperature=config.temperature,
            reach=reach,
        ),
        grid,
        vectors,
        positions,
        ~batch.occluded.swapaxes(1, 2),
    )
    return jnp.mean(losses), jnp.mean(accuracies)

  coarse, accuracy = compare(grids[0].coarse, vectors[0].coarse, None)
  fine, _ = compare(grids[0].fine, vectors[0].fine, config.fine_reach)
  return MatchingLosses(coarse, fine, accuracy)


def _compare_frames(
    grid: Float[Array, 't h w c'],
    vectors: Float[Array, 't n c'],
    positions: Float[Array, 't n 2'],
    visible: Bool[Array, 't n'],
    resolution: tuple[int, int],
    temperature: float,
    reach: float | None,
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Returns the mean loss over pairs of frames, and the accuracy."""
  num_frames, height, width, channels = grid.shape
  places = rescale_positions(positions, resolution, (height, width))
  x, y = jnp.meshgrid(jnp.arange(width) + 0.5, jnp.arange(height) + 0.5)
  cells = jnp.stack([x, y], axis=-1).reshape(-1, 2)
  offsets = jnp.max(jnp.abs(places[:, :, None] - cells[None, None]), axis=-1)

  def compare(frame: Int[Array, '']) -> tuple[Array, Array, Array]:
    """Compares the points of one frame with all other frames."""
    vector = vectors[frame]
    scores = jnp.einsum(
        'nc,tkc->tnk', vector, grid.reshape(num_frames, -1, channels)
    )
    if reach is not None:
      scores = jnp.where(offsets <= reach, scores, _MASKED)
    same = jnp.einsum('nc,tnc->tn', vector, vectors)
    loss = jax.nn.logsumexp(scores / temperature, axis=-1) - same / temperature
    best = jnp.argmax(scores, axis=-1)[..., None]
    error = jnp.take_along_axis(offsets, best, axis=-1)[..., 0]
    is_other = jnp.arange(num_frames) != frame
    counts = visible[frame][None] & visible & is_other[:, None]
    return (
        jnp.sum(loss * counts),
        jnp.sum((error <= _CORRECT_WITHIN) & counts),
        jnp.sum(counts),
    )

  loss, correct, count = jax.lax.map(compare, jnp.arange(num_frames))
  total = jnp.maximum(jnp.sum(count), 1)
  return jnp.sum(loss) / total, jnp.sum(correct) / total
