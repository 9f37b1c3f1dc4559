"""Losses of TAPTRv2 on labeled tracks.

Li et al., arXiv 2407.16291. Over the updated frames, those after a query's,
and with positions in normalized coordinates,

  position    |x - x'| + |y - y'| where the target is inside of the frame, for
              every layer twice: after its attention, and after the layer
  visibility  focal loss of the three classes, of the last layer

each a sum divided by the number of its entries plus one.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
import optax

from tapjax.models.taptr.network import LayerOutputs
from tapjax.models.taptr.network import NUM_CLASSES


@dataclasses.dataclass(frozen=True)
class TaptrLossConfig:
  """Weights of the losses, and the focal loss.

  Attributes:
    position_weight: weight of both position losses of each layer.
    visibility_weight: weight of the visibility loss.
    focal_balance: weight of the target class in the focal loss; other classes
      have weight 1 - focal_balance.
    focal_power: exponent of the error in the focal loss.
  """

  position_weight: float = 5.0
  visibility_weight: float = 1.0
  focal_balance: float = 0.25
  focal_power: float = 2.0


class TaptrLosses(NamedTuple):
  """Unweighted losses; position losses of every layer."""

  position: Float[Array, 'i']
  moved: Float[Array, 'i']
  visibility: Float[Array, '']

  def sum(self, config: TaptrLossConfig) -> Float[Array, '']:
    """Returns the weighted sum, the training objective."""
    position = jnp.sum(self.position) + jnp.sum(self.moved)
    return (
        config.position_weight * position
        + config.visibility_weight * self.visibility
    )


def compute_taptr_losses(
    outputs: LayerOutputs,
    query_frames: Int[Array, 'n'],
    targets_unit: Float[Array, 't n 2'],
    occluded: Bool[Array, 't n'],
    config: TaptrLossConfig,
) -> TaptrLosses:
  """Returns the losses of one video.

  Args:
    outputs: outputs of every layer, `[i, t, n, ...]`.
    query_frames: frame index of each query.
    targets_unit: true (x, y) in normalized coordinates; targets of occluded
      points count too.
    occluded: whether the true point is occluded.
    config: settings of the focal loss.
  """
  frames = jnp.arange(len(occluded))[:, None]
  is_updated = frames > query_frames[None]
  is_inside = (targets_unit >= 0) & (targets_unit <= 1)
  counts = is_updated & jnp.all(is_inside, axis=-1)

  def measure(boxes: Float[Array, 'i t n 4']) -> Float[Array, 'i']:
    distance = jnp.sum(jnp.abs(boxes[..., :2] - targets_unit[None]), axis=-1)
    return jnp.sum(jnp.where(counts[None], distance, 0), axis=(1, 2)) / (
        jnp.sum(counts) + 1
    )

  targets = jax.nn.one_hot(jnp.where(occluded, 2, 1), NUM_CLASSES)
  logits = outputs.classes[-1]
  entropy = optax.sigmoid_binary_cross_entropy(logits, targets)
  error = jnp.abs(targets - jax.nn.sigmoid(logits))
  balance = jnp.where(
      targets == 1, config.focal_balance, 1 - config.focal_balance
  )
  focal = balance * error**config.focal_power * entropy
  visibility = jnp.sum(jnp.where(is_updated[..., None], focal, 0)) / (
      jnp.sum(is_updated) + 1
  )
  return TaptrLosses(
      measure(jax.nn.sigmoid(outputs.boxes)),
      measure(outputs.moved),
      visibility,
  )
