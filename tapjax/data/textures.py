"""Surfaces for procedural videos: textures and outlines, made on the device.

A texture is painted in the manner of dead leaves, whose statistics are close to
those of photographs: noise of a random spectrum, run through a random palette,
and on it overlapping shapes of all sizes, each with a fill of its own. Textures
are periodic, so that a plane has no end. An outline is a grid of distances.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import PRNGKeyArray

# An outline's grid spans this much of its plane to each side of the center.
OUTLINE_REACH = 1.25

Key = PRNGKeyArray | Array

_PALETTE_SIZE = 5
_NUM_NOISES = 3
_MAX_CORNERS = 8


class Leaf(NamedTuple):
  """A shape on a texture, in fractions of the texture's period.

  `to_leaf` maps an offset from `center` to the leaf's own coordinates, in which
  its half-width is 1. The fill goes from one color to the other with noise,
  stripes and a gradient. A leaf of no opacity is not there.
  """

  center: Float[Array, '*m 2']
  to_leaf: Float[Array, '*m 2 2']
  kind: Int[Array, '*m']
  softness: Float[Array, '*m']
  opacity: Float[Array, '*m']
  colors: Float[Array, '*m 2 3']
  noise_index: Int[Array, '*m']
  noise: Float[Array, '*m']
  stripes: Float[Array, '*m']
  stripe_rate: Float[Array, '*m']
  gradient: Float[Array, '*m']


def sample_log_uniform(
    key: Key, shape: tuple[int, ...], bounds: tuple[float, float]
) -> Float[Array, '...']:
  """Returns numbers between two positive bounds, even in their logarithm."""
  low, high = (math.log(bound) for bound in bounds)
  return jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))


def make_noise(
    key: Key,
    size: int,
    falloff: Float[Array, ''],
    corner: Float[Array, ''],
    stretch: Float[Array, ''],
    angle: Float[Array, ''],
) -> Float[Array, 's s']:
  """Returns periodic noise of zero mean and unit variance.

  Its amplitude is level up to `corner` waves per period and then falls with the
  power `falloff`; along the direction `angle` it is drawn out by `stretch`.
  """
  y = jnp.fft.fftfreq(size, 1 / size)[:, None]
  x = jnp.fft.rfftfreq(size, 1 / size)[None]
  along = (jnp.cos(angle) * x + jnp.sin(angle) * y) * stretch
  across = (jnp.cos(angle) * y - jnp.sin(angle) * x) / jnp.sqrt(stretch)
  frequency = jnp.hypot(along, across)
  amplitude = (1 + frequency / corner) ** -falloff
  # The finest waves are left to the grain: bilinear reading would break them.
  amplitude *= jnp.clip(2 - 4 * jnp.hypot(x, y) / size, 0, 1)
  waves = amplitude * jnp.fft.rfft2(jax.random.normal(key, (size, size)))
  noise = jnp.fft.irfft2(waves, s=(size, size))
  noise -= jnp.mean(noise)
  return noise / (jnp.std(noise) + 1e-6)


def make_texture(
    key: Key, size: int, num_leaves: int, leaf_scale: float
) -> Float[Array, 's s 3']:
  """Paints a periodic texture with colors in [0, 1].

  Args:
    key: decides everything.
    size: its texels per side.
    num_leaves: how many shapes lie on it at most.
    leaf_scale: the half-width of large leaves, relative to the period.
  """
  keys = jax.random.split(key, 8)
  palette = _make_palette(keys[0])
  noises = jax.vmap(_make_random_noise, (0, None))(
      jax.random.split(keys[1], _NUM_NOISES), size
  )
  # A third of textures are nearly plain, and each has calm regions.
  contrast = jax.random.uniform(keys[2], (4,))
  strength = jnp.where(contrast[0] < 0.3, 0.03, 0.08 + 0.3 * contrast[1])
  calm = jax.nn.sigmoid(3 * noises[2] + 6 * contrast[2])
  base = contrast[3] + strength * noises[0] * calm
  texture = _look_up(palette, base)
  leaves = _make_leaves(keys[3], num_leaves, leaf_scale, palette)

  def paint(texture: Array, leaf: Leaf) -> tuple[Array, None]:
    return _paint_leaf(texture, leaf, noises), None

  texture, _ = jax.lax.scan(paint, texture, leaves)
  amount = sample_log_uniform(keys[4], (), (0.003, 0.09))
  grain = jax.random.normal(keys[5], (size, size))
  # A short blur keeps the grain from flickering between pixels.
  grain = (grain + jnp.roll(grain, 1, 0)) / 2
  grain = grain + jnp.roll(grain, 1, 1)
  grain = amount * grain * jax.nn.sigmoid(2 * noises[1] + 1)
  return jnp.clip(texture * (1 + grain[:, :, None]), 0, 1)


def make_outline(key: Key, size: int) -> Float[Array, 's s']:
  """Returns how far points of a plane lie inside a random outline.

  The grid's outer corners are at plus and minus `OUTLINE_REACH`; values are in
  the plane's unit, which is about the outline's radius, and negative outside.
  They are near to true distances close to the outline.
  """
  keys = jax.random.split(key, 10)
  axis = ((jnp.arange(size) + 0.5) / size * 2 - 1) * OUTLINE_REACH
  x, y = jnp.meshgrid(axis, axis)
  radius = jnp.hypot(x, y)
  numbers = jax.random.uniform(keys[0], (6,))

  angle = jnp.arctan2(y, x)
  order = jnp.arange(1, 7)[:, None, None]
  phase = jax.random.uniform(keys[1], (6, 1, 1), maxval=2 * jnp.pi)
  height = jax.random.normal(keys[2], (6, 1, 1)) * 0.28 * numbers[0]
  waves = jnp.sum(
      height / order * jnp.cos(order * angle[None] + phase), axis=0
  )
  star = 0.8 * jnp.exp(waves) - radius

  aspect = 0.3 + 0.7 * numbers[1]
  ellipse = aspect * (1 - jnp.hypot(x, y / aspect))

  half_width = 0.05 + 0.15 * numbers[2]
  beyond = jnp.maximum(jnp.abs(x) - (1 - half_width), 0)
  bar = half_width - jnp.hypot(beyond, y)

  spots = jax.random.uniform(keys[3], (4, 2), minval=-0.5, maxval=0.5)
  sizes = jax.random.uniform(keys[4], (4,), minval=0.25, maxval=0.55)
  reaches = sizes[:, None, None] - jnp.hypot(
      x[None] - spots[:, :1, None], y[None] - spots[:, 1:, None]
  )
  blob = jax.nn.logsumexp(8 * reaches, axis=0) / 8 - 0.05

  ring = 0.1 + 0.15 * numbers[3] - jnp.abs(radius - 0.75)
  spacing = 0.3 + 0.3 * numbers[4]
  slat = 0.06 + 0.25 * spacing * numbers[5]
  fence = slat - jnp.abs((x / spacing - jnp.floor(x / spacing)) - 0.5) * spacing
  fence = jnp.minimum(fence, 1.05 - jnp.maximum(jnp.abs(x), jnp.abs(y)))

  polygon = _make_polygon(keys[5], x, y)
  shapes = jnp.stack([star, polygon, blob, ellipse, bar, ring, fence])
  chances = jnp.array([0.28, 0.24, 0.16, 0.1, 0.1, 0.06, 0.06])
  outline = shapes[jax.random.choice(keys[6], 7, p=chances)]

  # Some outlines are ragged.
  ragged = 0.12 * jnp.maximum(jax.random.uniform(keys[7]) - 0.5, 0)
  noise = make_noise(
      keys[8],
      size,
      jnp.array(2.5),
      sample_log_uniform(keys[9], (), (3, 9)),
      jnp.array(1.0),
      jnp.array(0.0),
  )
  border = 0.95 * OUTLINE_REACH - jnp.maximum(jnp.abs(x), jnp.abs(y))
  return jnp.minimum(outline + ragged * noise, border)


def _make_random_noise(key: Key, size: int) -> Float[Array, 's s']:
  """Noise whose spectrum is random as well."""
  keys = jax.random.split(key, 6)
  stretch = jnp.where(
      jax.random.bernoulli(keys[0], 0.6),
      1.0,
      sample_log_uniform(keys[1], (), (1.0, 5.0)),
  )
  return make_noise(
      keys[2],
      size,
      jax.random.uniform(keys[3], minval=1.1, maxval=2.8),
      sample_log_uniform(keys[4], (), (1.0, 12.0)),
      stretch,
      jax.random.uniform(keys[5], maxval=jnp.pi),
  )


def _make_palette(key: Key) -> Float[Array, 'm 3']:
  """Colors that go together, from dark to light in most palettes."""
  keys = jax.random.split(key, 6)
  shape = (_PALETTE_SIZE, 1)
  spread = sample_log_uniform(keys[0], (), (0.15, 3.0))
  hue = jax.random.uniform(keys[1], maxval=2 * jnp.pi)
  hue += spread * jax.random.normal(keys[2], shape)
  vivid = jax.random.uniform(keys[3]) ** 1.5
  saturation = vivid * jax.random.uniform(keys[4], shape)
  low, high = jnp.sort(jax.random.uniform(keys[5], (2,)))
  luminance = jnp.linspace(0.05 + 0.6 * low, 0.3 + 0.65 * high, _PALETTE_SIZE)
  third = jnp.arange(3)[None] * (2 * jnp.pi / 3)
  colors = luminance[:, None] * (1 + saturation * jnp.cos(hue - third) * 1.2)
  return jnp.clip(colors, 0.01, 1)


def _look_up(
    palette: Float[Array, 'm 3'], values: Float[Array, 's s']
) -> Float[Array, 's s 3']:
  """Blends neighboring colors of the palette for values from 0 to 1."""
  place = jnp.clip(values, 0, 1) * (palette.shape[0] - 1)
  steps = jnp.arange(palette.shape[0])
  weights = jnp.maximum(1 - jnp.abs(place[:, :, None] - steps[None, None]), 0)
  return jnp.sum(weights[..., None] * palette[None, None], axis=2)


def _make_leaves(
    key: Key, num: int, scale: float, palette: Float[Array, 'm 3']
) -> Leaf:
  """Random leaves, whose number, sizes and fills differ between textures."""
  keys = jax.random.split(key, 20)
  count = sample_log_uniform(keys[0], (), (1.0, num + 1.0))
  count = jnp.where(jax.random.bernoulli(keys[1], 0.15), 0, count)
  smallest = sample_log_uniform(keys[2], (), (0.08, 0.8))
  radius = scale * smallest ** jax.random.uniform(keys[3], (num,))
  aspect = sample_log_uniform(keys[4], (num,), (1.0, 6.0))
  aspect = jnp.where(jax.random.bernoulli(keys[5], 0.5, (num,)), 1.0, aspect)
  # On some textures all leaves lie the same way, and are of the same kind.
  same_way, same_kind = jax.random.bernoulli(keys[6], 0.3, (2,))
  angle = jax.random.uniform(keys[7], (num,), maxval=2 * jnp.pi)
  angle = jnp.where(same_way, angle[0], angle)
  kind = jax.random.randint(keys[8], (num,), 0, 4)
  kind = jnp.where(same_kind, kind[0], kind)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  rotation = jnp.stack(
      [jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], axis=-2
  )
  inverse_size = jnp.stack([1 / radius / aspect**0.3, aspect / radius], axis=-1)
  soft = jax.random.bernoulli(keys[9], 0.15, (num,))
  striped = jax.random.bernoulli(keys[10], 0.25, (num,))
  tint = 0.08 * jax.random.normal(keys[11], (num, 1, 3))
  chosen = jax.random.randint(keys[12], (num, 2), 0, palette.shape[0])
  any_color = jax.vmap(_make_palette)(jax.random.split(keys[13], num))[:, :2]
  foreign = jax.random.bernoulli(keys[14], 0.15, (num, 1, 1))
  return Leaf(
      center=jax.random.uniform(keys[15], (num, 2)),
      to_leaf=rotation * inverse_size[:, :, None],
      kind=kind,
      softness=jnp.where(soft, 0.5, 0.0),
      opacity=jnp.where(jnp.arange(num) < count, 1.0, 0.0),
      colors=jnp.clip(
          jnp.where(foreign, any_color, palette[chosen]) + tint, 0.01, 1
      ),
      noise_index=jax.random.randint(keys[16], (num,), 0, _NUM_NOISES),
      noise=0.5 * jax.random.uniform(keys[17], (num,)) ** 2,
      stripes=jnp.where(striped, 0.5, 0.0),
      stripe_rate=sample_log_uniform(keys[18], (num,), (4.0, 30.0)),
      gradient=0.4 * jax.random.normal(keys[19], (num,)),
  )


def _paint_leaf(
    texture: Float[Array, 's s 3'],
    leaf: Leaf,
    noises: Float[Array, 'm s s'],
) -> Float[Array, 's s 3']:
  """Lays a leaf over what is there."""
  size = texture.shape[0]
  axis = (jnp.arange(size) + 0.5) / size
  x = (axis - leaf.center[0] + 0.5) % 1 - 0.5
  y = (axis - leaf.center[1] + 0.5) % 1 - 0.5
  x, y = x[None, :], y[:, None]
  along = leaf.to_leaf[0, 0] * x + leaf.to_leaf[0, 1] * y
  across = leaf.to_leaf[1, 0] * x + leaf.to_leaf[1, 1] * y
  far_along, far_across = jnp.abs(along), jnp.abs(across)
  distance = jnp.select(
      [leaf.kind == 0, leaf.kind == 1, leaf.kind == 2],
      [
          jnp.hypot(along, across),
          jnp.maximum(far_along, far_across),
          jnp.maximum(far_along * 0.87 + across * 0.5, -across),
      ],
      far_along + far_across,
  )
  # The edge takes up two texels, more where the leaf is soft.
  texels = size / jnp.hypot(leaf.to_leaf[1, 0], leaf.to_leaf[1, 1])
  width = 2 / texels + leaf.softness
  cover = leaf.opacity * jnp.clip(0.5 + (1 - distance) / width, 0, 1)
  # Stripes finer than four texels would break up.
  rate = jnp.minimum(leaf.stripe_rate, texels * (jnp.pi / 2))
  mix = 0.5 + leaf.noise * noises[leaf.noise_index]
  mix += leaf.stripes * jnp.tanh(3 * jnp.sin(rate * across))
  mix = jnp.clip(mix + leaf.gradient * along, 0, 1)[:, :, None]
  first, second = leaf.colors[:, None, None, :]
  color = first + (second - first) * mix
  return texture + cover[:, :, None] * (color - texture)


def _make_polygon(
    key: Key, x: Float[Array, 's s'], y: Float[Array, 's s']
) -> Float[Array, 's s']:
  """Distances to a polygon of three to eight corners around the center."""
  keys = jax.random.split(key, 5)
  count = jax.random.randint(keys[0], (), 3, _MAX_CORNERS + 1)
  # Corners beyond `count` fall on the last one.
  place = jnp.minimum(jnp.arange(_MAX_CORNERS), count - 1)
  wobble = jax.random.uniform(keys[1], (_MAX_CORNERS,), maxval=0.6)
  even = jax.random.bernoulli(keys[2], 0.4)
  reach = jax.random.uniform(keys[3], (_MAX_CORNERS,), minval=0.4, maxval=1.0)
  reach = jnp.where(even, 0.9, reach)[place]
  wobble = jnp.where(even, 0.0, wobble)[place]
  angle = 2 * jnp.pi * ((place + wobble) / count + jax.random.uniform(keys[4]))
  corners = jnp.stack(
      [reach * jnp.cos(angle), reach * jnp.sin(angle)], axis=-1
  )
  points = jnp.stack([x, y], axis=-1)
  nearest = jnp.full(x.shape, jnp.inf)
  inside = jnp.zeros(x.shape, bool)
  for index in range(_MAX_CORNERS):
    start, end = corners[index - 1], corners[index]
    edge = end - start
    offset = points - start[None, None]
    length = jnp.sum(edge**2) + 1e-9
    share = jnp.clip(offset @ edge / length, 0, 1)
    gap = offset - share[:, :, None] * edge[None, None]
    nearest = jnp.minimum(nearest, jnp.sum(gap**2, axis=-1))
    inside ^= _crosses(start, end, x, y)
  return jnp.where(inside, 1, -1) * jnp.sqrt(nearest)


def _crosses(
    start: Float[Array, '2'],
    end: Float[Array, '2'],
    x: Float[Array, 's s'],
    y: Float[Array, 's s'],
) -> Bool[Array, 's s']:
  """Whether a ray to the right of each point meets an edge."""
  rise = end[1] - start[1]
  slope = (end[0] - start[0]) / jnp.where(rise == 0, 1, rise)
  between = (start[1] > y) != (end[1] > y)
  return between & (x < start[0] + (y - start[1]) * slope)
