"""Normalization of activations and of feature vectors."""

import functools

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

EPSILON = 1e-5


class InstanceNorm(hk.Module):
  """Instance normalization: each channel over the cells of each image."""

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
  """Normalizes each channel over the cells of each image.

  The normalized values have mean 0 and variance 1; `scale` and `offset` are
  applied to them.
  """
  normalized = standardize(x, (1, 2))
  if scale is not None:
    normalized *= scale[None, None, None]
  return normalized if offset is None else normalized + offset[None, None, None]


class LayerNorm(hk.Module):
  """Layer normalization of each vector of channels, with a learned scale."""

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
  """Normalizes `x` to mean 0 and variance 1 over `axes`.

  The last operation is a division, in the gradient too: XLA fuses sums and
  products into all of their consumers, but not divisions. Otherwise a CPU
  recomputes the sum of residual branches for each layer, and gradients of deep
  networks are several times as slow.
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
  """Scales each vector to length 1; vectors of almost zero stay near zero."""
  squared = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
  return features * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


class GroupNorm(hk.Module):
  """Group normalization: groups of channels over the cells of each image."""

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
  """Batch normalization, with learned scale and offset.

  Outside of training it uses running averages of means and of unbiased
  variances. Statistics are float32 for inputs of any type.
  """

  def __init__(
      self,
      name: str,
      *,
      epsilon: float = EPSILON,
      decay: float = 0.9,
      axis: str | None = None,
  ):
    """Initializes the module.

    Args:
      name: name of the module.
      epsilon: added to variances.
      decay: decay of the running averages in an update.
      axis: device axis over which batch statistics are averaged; None uses
        statistics of the local batch.
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
  """Normalizes channels by given statistics, then scales and offsets them."""
  factor = scale * jax.lax.rsqrt(variance + epsilon)
  shift = (offset - mean * factor).astype(x.dtype)
  factor = factor.astype(x.dtype)
  return x * factor[None, None, None] + shift[None, None, None]
