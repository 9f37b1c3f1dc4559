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


class BatchNorm(hk.Module):
  """Gives every channel of a batch mean 0 and variance 1, then learned ones.

  Where it does not train it uses running averages of both, in which the
  variance is the unbiased one. Statistics are float32 whatever the input is.
  """

  def __init__(
      self,
      name: str,
      *,
      epsilon: float = EPSILON,
      decay: float = 0.9,
      axis: str | None = None,
  ):
    """Makes a norm.

    Args:
      name: of the module.
      epsilon: is added to variances.
      decay: of the running averages, in an update.
      axis: of the mapped function whose shards are one batch together; None
        sees the own one.
    """
    super().__init__(name=name)
    self._epsilon = epsilon
    self._decay = decay
    self._axis = axis

  def __call__(
      self, x: Float[Array, 'b h w c'], *, is_training: bool = False
  ) -> Float[Array, 'b h w c']:
    shape = x.shape[-1:]
    scale = hk.get_parameter('scale', shape, init=jnp.ones)
    offset = hk.get_parameter('offset', shape, init=jnp.zeros)
    mean = hk.get_state('mean', shape, init=jnp.zeros)
    variance = hk.get_state('variance', shape, init=jnp.ones)
    if is_training:
      size = x.size // x.shape[-1]
      values = x.astype(jnp.float32)
      batch_mean = self._average(jnp.mean(values, axis=(0, 1, 2)))
      centered = values - batch_mean[None, None, None]
      batch_variance = self._average(
          jnp.mean(jnp.square(centered), axis=(0, 1, 2))
      )
      if self._axis is not None:
        size *= jax.lax.axis_size(self._axis)
      unbiased = batch_variance * (size / max(size - 1, 1))
      keep = self._decay
      hk.set_state('mean', keep * mean + (1 - keep) * batch_mean)
      hk.set_state('variance', keep * variance + (1 - keep) * unbiased)
      mean, variance = batch_mean, batch_variance
    return apply_statistics(
        x,
        mean=mean,
        variance=variance,
        scale=scale,
        offset=offset,
        epsilon=self._epsilon,
    )

  def _average(self, values: Float[Array, 'c']) -> Float[Array, 'c']:
    return values if self._axis is None else jax.lax.pmean(values, self._axis)


def apply_statistics(
    x: Float[Array, 'b h w c'],
    *,
    mean: Float[Array, 'c'],
    variance: Float[Array, 'c'],
    scale: Float[Array, 'c'],
    offset: Float[Array, 'c'],
    epsilon: float,
) -> Float[Array, 'b h w c']:
  """Gives channels of that mean and variance another offset and scale."""
  factor = scale * jax.lax.rsqrt(variance + epsilon)
  shift = (offset - mean * factor).astype(x.dtype)
  factor = factor.astype(x.dtype)
  return x * factor[None, None, None] + shift[None, None, None]
