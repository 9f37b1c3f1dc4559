"""Normalisation of activations and of feature vectors."""

import functools

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
  normalized = standardize(x, (1, 2))
  if scale is not None:
    normalized *= scale[None, None, None]
  return normalized if offset is None else normalized + offset[None, None, None]


class LayerNorm(hk.Module):
  """Normalises each vector of channels, then scales each channel."""

  def __init__(self, name: str, *, with_offset: bool):
    super().__init__(name=name)
    self._with_offset = with_offset

  def __call__(self, x: Float[Array, '*b c']) -> Float[Array, '*b c']:
    channels = x.shape[-1:]
    leading = (None,) * (x.ndim - 1)
    scale = hk.get_parameter('scale', channels, x.dtype, jnp.ones)
    x = standardize(x, (-1,)) * scale[leading]
    if self._with_offset:
      offset = hk.get_parameter('offset', channels, x.dtype, jnp.zeros)
      x += offset[leading]
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def standardize(x: Float[Array, '*b'], axes: tuple[int, ...]) -> Array:
  """Gives `x` mean 0 and variance 1 over `axes`, of each of the others.

  It divides last, and so does its gradient. XLA puts a sum or a product into
  every computation that reads it, but not a division. Without that a CPU adds
  up the residual branches of a network anew for each of its layers, which makes
  gradients of deep ones several times as slow.
  """
  return _standardize_forward(x, axes)[0]


def _standardize_forward(
    x: Array, axes: tuple[int, ...]
) -> tuple[Array, tuple[Array, Array]]:
  centered = x - jnp.mean(x, axis=axes, keepdims=True)
  variance = jnp.mean(jnp.square(centered), axis=axes, keepdims=True)
  deviation = jnp.sqrt(variance + EPSILON)
  normalized = centered / deviation
  return normalized, (normalized, deviation)


def _standardize_backward(
    axes: tuple[int, ...], residuals: tuple[Array, Array], cotangent: Array
) -> tuple[Array]:
  normalized, deviation = residuals
  mean = jnp.mean(cotangent, axis=axes, keepdims=True)
  slope = jnp.mean(cotangent * normalized, axis=axes, keepdims=True)
  return ((cotangent - mean - normalized * slope) / deviation,)


standardize.defvjp(_standardize_forward, _standardize_backward)


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
    normalized = standardize(groups, (1, 2, 4)).reshape(x.shape)
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
