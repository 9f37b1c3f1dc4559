"""Attention between tokens."""

from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float

XAVIER = hk.initializers.VarianceScaling(1.0, 'fan_avg', 'uniform')


class MultiHeadAttention(hk.Module):
  """Scaled dot-product attention within sequences.

  The projections of queries, keys and values are one matrix, concatenated in
  this order.
  """

  def __init__(
      self,
      channels: int,
      num_heads: int,
      name: str,
      w_init: hk.initializers.Initializer = XAVIER,
      b_init: hk.initializers.Initializer = jnp.zeros,
  ):
    super().__init__(name=name)
    self._channels = channels
    self._num_heads = num_heads
    self._w_init = w_init
    self._b_init = b_init
    self._output = hk.Linear(
        channels, w_init=w_init, b_init=b_init, name='output'
    )

  def __call__(
      self,
      x: Float[Array, 'b s c'],
      values: Float[Array, 'b s c'],
      mask: Bool[Array, 'b s s'] | None = None,
      weigh: Callable[[Array], Array] | None = None,
  ) -> Float[Array, 'b s c']:
    """Returns the attention-weighted mean of values for each token.

    Args:
      x: input of queries and keys.
      values: input of values.
      mask: True where a token (second axis) may attend to another (last axis);
        None allows all.
      weigh: maps attention weights, `[b k s s]`, to the weights to use, such as
        for dropout.
    """
    inputs, channels = x.shape[-1], self._channels
    matrix = hk.get_parameter('w', (inputs, 3 * channels), init=self._w_init)
    bias = hk.get_parameter('b', (3 * channels,), init=self._b_init)[None, None]

    def split(heads: Float[Array, 'b s _']) -> Float[Array, 'b s k d']:
      return heads.reshape(*heads.shape[:2], self._num_heads, -1)

    both = x @ matrix[:, : 2 * channels] + bias[..., : 2 * channels]
    query, key = map(split, jnp.split(both, 2, axis=-1))
    value = split(
        values @ matrix[:, 2 * channels :] + bias[..., 2 * channels :]
    )
    scores = jnp.einsum('bqkd,bskd->bkqs', query, key) / key.shape[-1] ** 0.5
    if mask is not None:
      scores = jnp.where(mask[:, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores)
    if weigh is not None:
      weights = weigh(weights)
    mixed = jnp.einsum('bkqs,bskd->bqkd', weights, value)
    return self._output(mixed.reshape(*x.shape[:2], channels))
