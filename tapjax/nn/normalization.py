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


class GroupNorm(hk.Module):
  """Normalises groups of channels, together over the cells of each image."""

  def __init__(self, group_size: int, name: str):
    super().__init__(name=name)
    self._group_size = group_size

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    channels = x.shape[-1:]
    scale = hk.get_parameter('scale', channels, x.dtype, jnp.ones)
    offset = hk.get_parameter('offset', channels, x.dtype, jnp.zeros)
    groups = x.reshape(*x.shape[:3], -1, self._group_size)
    mean = jnp.mean(groups, axis=(1, 2, 4), keepdims=True)
    variance = jnp.mean(
        jnp.square(groups - mean), axis=(1, 2, 4), keepdims=True
    )
    normal = (groups - mean) * jax.lax.rsqrt(variance + EPSILON)
    return normal.reshape(x.shape) * scale[None, None, None] + (
        offset[None, None, None]
    )


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
