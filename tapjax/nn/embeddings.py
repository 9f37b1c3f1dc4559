"""Sinusoidal embeddings of numbers."""

import math

import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np


def embed_sines(
    values: Float[Array, '*n v'], channels: int, temperature: float
) -> Float[Array, '*n _']:
  """Returns `channels` sines and cosines of each value, concatenated.

  A value of 1 is one period of the fastest pair; the frequencies of the pairs
  fall geometrically to about 1 / `temperature`.
  """
  pairs = np.arange(channels) // 2 * 2 / channels
  speeds = (2 * math.pi / temperature**pairs).astype(np.float32)
  angles = values[..., None] * speeds.reshape((1,) * values.ndim + (-1,))
  is_even = (np.arange(channels) % 2 == 0).reshape(
      (1,) * values.ndim + (channels,)
  )
  sines = jnp.where(is_even, jnp.sin(angles), jnp.cos(angles))
  return sines.reshape(*values.shape[:-1], -1)
