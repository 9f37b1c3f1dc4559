"""Normalisation of activations and of feature vectors."""

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

EPSILON = 1e-5


class InstanceNorm(hk.Module):
  """Normalises every channel over the cells of each image."""

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    channels = x.shape[-1:]
    scale = hk.get_parameter('scale', channels, x.dtype, jnp.ones)
    offset = hk.get_parameter('offset', channels, x.dtype, jnp.zeros)
    return normalize_instances(x, scale, offset)


def normalize_instances(
    x: Float[Array, 'b h w c'],
    scale: Float[Array, 'c'] | None = None,
    offset: Float[Array, 'c'] | None = None,
) -> Float[Array, 'b h w c']:
  """Gives every channel of every image its own mean and spread.

  Without a scale and an offset these are 0 and 1.
  """
  mean = jnp.mean(x, axis=(1, 2), keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axis=(1, 2), keepdims=True)
  factor = jax.lax.rsqrt(variance + EPSILON)
  if scale is not None:
    factor *= scale[None, None, None]
  normalized = (x - mean) * factor
  return normalized if offset is None else normalized + offset[None, None, None]


def make_layer_norm(name: str, *, with_offset: bool) -> hk.LayerNorm:
  """Returns a norm over channels with a learned scale."""
  return hk.LayerNorm(
      axis=-1,
      create_scale=True,
      create_offset=with_offset,
      eps=EPSILON,
      name=name,
  )


def normalize_vectors(
    features: Float[Array, '*b c'],
) -> Float[Array, '*b c']:
  """Scales each vector to length 1, and leaves all but zero ones near zero."""
  squared = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
  return features * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


class GroupNorm(hk.Module):
  """Normalises groups of neighboring channels over the cells of each image."""

  def __init__(self, num_groups: int, name: str):
    super().__init__(name=name)
    self._num_groups = num_groups

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    channels = x.shape[-1:]
    scale = hk.get_parameter('scale', channels, x.dtype, jnp.ones)
    offset = hk.get_parameter('offset', channels, x.dtype, jnp.zeros)
    groups = x.reshape(*x.shape[:3], self._num_groups, -1)
    mean = jnp.mean(groups, axis=(1, 2, 4), keepdims=True)
    centered = groups - mean
    variance = jnp.mean(jnp.square(centered), axis=(1, 2, 4), keepdims=True)
    normalized = (centered * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)
    return normalized * scale[None, None, None] + offset[None, None, None]
