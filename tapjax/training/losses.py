"""Losses of TAP-Net and TAPIR on labeled tracks.

Doersch et al., arXiv 2211.03726 and 2306.08637. With d the distance of a
position from its target and o whether the point is occluded,

  position     huber(d) * (1 - o)
  occlusion    cross-entropy of the occlusion logit with o
  uncertainty  cross-entropy of the uncertainty logit with [d > threshold]
               * (1 - o)

each a mean over all entries, masked ones included.

A position is the mean around a heatmap's peak, so its gradient vanishes where
the peak is elsewhere. With a `heatmap_weight`, we add a cross-entropy loss on
the heatmap of the first guess, which published TAPIR does not have:

  heatmap      -log(probability of the target) * (1 - o)
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
import optax

from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.types import TrackState

# Distances are in pixels of frames of this size, for every video.
_SCALE: Resolution = (256, 256)


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights and thresholds of the losses.

  Attributes:
    position_weight: weight of the position loss; other losses have weight 1.
    huber_delta: distance in pixels above which the position loss is linear.
    uncertainty_threshold: distance in pixels above which a position counts as
      wrong.
    rebalance_factor: additional weight of visible points in the occlusion loss.
    heatmap_weight: weight of the cross-entropy loss on the heatmap of the first
      guess; 0 for published TAPIR and for trackers without a heatmap.
  """

  position_weight: float = 0.05
  huber_delta: float = 4.0
  uncertainty_threshold: float = 6.0
  rebalance_factor: float = 0.0
  heatmap_weight: float = 0.0


class Losses(NamedTuple):
  """Weighted losses; zero without the head of a loss."""

  position: Float[Array, '*i']
  occlusion: Float[Array, '*i']
  uncertainty: Float[Array, '*i']
  heatmap: Float[Array, '*i']

  @property
  def total(self) -> Float[Array, '']:
    """Sum of all losses over iterations."""
    return jnp.sum(
        self.position + self.occlusion + self.uncertainty + self.heatmap
    )


def compute_losses(
    states: TrackState,
    target_points: Float[Array, 'b n t 2'],
    occluded: Bool[Array, 'b n t'],
    resolution: Resolution,
    config: LossConfig,
    mask: Float[Array, 'b n t'] | None = None,
    occlusion_mask: Float[Array, 'b n t'] | None = None,
) -> Losses:
  """Returns the losses of every iteration.

  Args:
    states: states of all iterations, `[i, b, n, t]`, or of one.
    target_points: true (x, y) in pixels of `resolution`; not read where
      occluded.
    occluded: whether the true point is occluded.
    resolution: (height, width) of the frames of positions and targets.
    config: weights and thresholds.
    mask: factor of every loss, per entry.
    occlusion_mask: additional factor of the occlusion loss.

  Raises:
    ValueError: `heatmap_weight` is set, but the states have no
      log-probabilities of the targets.
  """
  hidden = occluded.astype(jnp.float32)
  weight = jnp.ones_like(hidden) if mask is None else mask

  def compute(state: TrackState) -> Losses:
    squared = _measure_squared_distance(
        state.positions, target_points, occluded, resolution
    )
    position = config.position_weight * jnp.mean(
        _compute_huber(squared, config.huber_delta) * (1 - hidden) * weight
    )
    occlusion = uncertainty = jnp.zeros(())
    if state.occlusion_logits is not None:
      entropy = optax.sigmoid_binary_cross_entropy(
          state.occlusion_logits, hidden
      )
      entropy *= (1 + config.rebalance_factor * (1 - hidden)) * weight
      if occlusion_mask is not None:
        entropy *= occlusion_mask
      occlusion = jnp.mean(entropy)
    if state.uncertainty_logits is not None:
      is_wrong = squared > config.uncertainty_threshold**2
      entropy = optax.sigmoid_binary_cross_entropy(
          state.uncertainty_logits, is_wrong.astype(jnp.float32)
      )
      uncertainty = jnp.mean(entropy * (1 - hidden) * weight)
    return Losses(position, occlusion, uncertainty, jnp.zeros(()))

  log_probs = states.target_log_probs
  states = states._replace(target_log_probs=None)
  if states.positions.ndim == 5:
    losses = jax.vmap(compute)(states)
  else:
    losses = compute(states)
  if not config.heatmap_weight:
    return losses
  if log_probs is None:
    raise ValueError(
        'heatmap_weight must be 0 for a tracker without log-probabilities of '
        f'targets; got {config.heatmap_weight}'
    )
  scores = jnp.where(occluded, 0.0, log_probs[0])
  heatmap = -config.heatmap_weight * jnp.mean(scores * weight)
  first = (0,) * losses.heatmap.ndim
  return losses._replace(heatmap=losses.heatmap.at[first].set(heatmap))


def _measure_squared_distance(
    positions: Float[Array, 'b n t 2'],
    target_points: Float[Array, 'b n t 2'],
    occluded: Bool[Array, 'b n t'],
    resolution: Resolution,
) -> Float[Array, 'b n t']:
  """Returns squared distances in 256x256 pixels, zero where occluded."""
  targets = jnp.where(occluded[..., None], positions, target_points)
  offsets = rescale_positions(positions - targets, resolution, _SCALE)
  return jnp.sum(jnp.square(offsets), axis=-1)


def _compute_huber(
    squared: Float[Array, 'b n t'], delta: float
) -> Float[Array, 'b n t']:
  """Returns the Huber loss: quadratic up to `delta`, then linear."""
  # Keeps the gradient of the root finite at distance zero.
  distance = jnp.sqrt(squared + 1e-12)
  return jnp.where(
      distance < delta, squared / 2, delta * (distance - delta / 2)
  )
