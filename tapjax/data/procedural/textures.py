"""Textures and outlines of procedural videos, computed on the device.

Textures follow the dead-leaves model, whose statistics are close to those of
photographs: noise of a random spectrum, mapped to a random palette, covered by
overlapping shapes of all sizes with fills of their own. Textures are periodic,
so that planes are unbounded. An outline is a grid of signed distances.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import PRNGKeyArray

# Half of the side of an outline's grid, in plane units.
OUTLINE_REACH = 1.25

Key = PRNGKeyArray | Array

_PALETTE_SIZE = 5
_NUM_NOISES = 3
_MAX_CORNERS = 8


class Leaf(NamedTuple):
  """A shape on a texture, in fractions of the texture's period.

  `to_leaf` maps an offset from `center` to the leaf's own coordinates, in which
  its half-width is 1. The fill blends two colors by noise, stripes and a
  gradient. Leaves of zero opacity are padding.
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


def shape_noise(
    white: Float[Array, 's s'],
    falloff: Float[Array, ''] | float,
    corner: Float[Array, ''] | float,
    stretch: Float[Array, ''] | float,
    angle: Float[Array, ''] | float,
) -> Float[Array, 's s']:
  """Filters white noise to a given spectrum, zero mean and unit variance.

  The amplitude is constant up to `corner` waves per period and then falls with
  the power `falloff`; noise is stretched by `stretch` along direction `angle`.
  """
  size = white.shape[0]
  y = jnp.fft.fftfreq(size, 1 / size)[:, None]
  x = jnp.fft.rfftfreq(size, 1 / size)[None]
  along = (jnp.cos(angle) * x + jnp.sin(angle) * y) * stretch
  across = (jnp.cos(angle) * y - jnp.sin(angle) * x) / jnp.sqrt(stretch)
  frequency = jnp.hypot(along, across)
  amplitude = (1 + frequency / corner) ** -falloff
  # Without the finest waves, which bilinear interpolation would distort.
  amplitude *= jnp.clip(2 - 4 * jnp.hypot(x, y) / size, 0, 1)
  waves = amplitude * jnp.fft.rfft2(white)
  noise = jnp.fft.irfft2(waves, s=(size, size))
  noise -= jnp.mean(noise)
  return noise / (jnp.std(noise) + 1e-6)


def make_texture(
    key: Key, size: int, num_leaves: int, leaf_scale: float
) -> Float[Array, 's s 3']:
  """Returns a random periodic texture with colors in [0, 1].

  Args:
    key: of all random choices.
    size: texels per side.
    num_leaves: largest number of shapes.
    leaf_scale: half-width of the largest leaves, relative to the period.
  """
  # Few draws of many numbers each, since every draw adds compilation time.
  keys = jax.random.split(key, 4)
  white = jax.random.normal(keys[0], (_NUM_NOISES + 1, size, size))
  chance = jax.random.uniform(keys[1], (10 + _PALETTE_SIZE,))
  contrast, palette = chance[:4], _make_palette(chance[5:])
  spectra = jax.random.uniform(keys[2], (_NUM_NOISES, 4))
  noises = jax.vmap(_make_noise)(white[:-1], spectra)
  # A third of textures are nearly plain, and each has calm regions.
  strength = jnp.where(contrast[0] < 0.3, 0.03, 0.08 + 0.3 * contrast[1])
  calm = jax.nn.sigmoid(3 * noises[2] + 6 * contrast[2])
  base = contrast[3] + strength * noises[0] * calm
  texture = _look_up(palette, base)
  leaves = _make_leaves(keys[3], num_leaves, leaf_scale, palette)

  def paint(texture: Array, leaf: Leaf) -> tuple[Array, None]:
    return _paint_leaf(texture, leaf, noises), None

  texture, _ = jax.lax.scan(paint, texture, leaves)
  amount = 0.003 * 30 ** chance[4]
  grain = white[-1]
  # A short blur avoids flicker of the grain between pixels.
  grain = (grain + jnp.roll(grain, 1, 0)) / 2
  grain = grain + jnp.roll(grain, 1, 1)
  grain = amount * grain * jax.nn.sigmoid(2 * noises[1] + 1)
  return jnp.clip(texture * (1 + grain[:, :, None]), 0, 1)


def make_outline(key: Key, size: int) -> Float[Array, 's s']:
  """Returns a grid of signed distances to a random outline.

  The grid's outer corners are at plus and minus `OUTLINE_REACH`; values are in
  plane units, about the outline's radius, and negative outside. They are
  approximately true distances close to the outline.
  """
  keys = jax.random.split(key)
  numbers = jax.random.uniform(keys[0], (51,))
  axis = ((jnp.arange(size) + 0.5) / size * 2 - 1) * OUTLINE_REACH
  x, y = jnp.meshgrid(axis, axis)
  radius = jnp.hypot(x, y)

  angle = jnp.arctan2(y, x)
  order = jnp.arange(1, 7)[:, None, None]
  phase = 2 * jnp.pi * numbers[8:14, None, None]
  height = (2 * numbers[45:51, None, None] - 1) * 0.5 * numbers[0]
  waves = jnp.sum(height / order * jnp.cos(order * angle[None] + phase), axis=0)
  star = 0.8 * jnp.exp(waves) - radius

  aspect = 0.3 + 0.7 * numbers[1]
  ellipse = aspect * (1 - jnp.hypot(x, y / aspect))

  half_width = 0.05 + 0.15 * numbers[2]
  beyond = jnp.maximum(jnp.abs(x) - (1 - half_width), 0)
  bar = half_width - jnp.hypot(beyond, y)

  spots = numbers[14:26].reshape(3, 4, 1, 1)
  reaches = (0.25 + 0.3 * spots[2]) - jnp.hypot(
      x[None] + 0.5 - spots[0], y[None] + 0.5 - spots[1]
  )
  blob = jax.nn.logsumexp(8 * reaches, axis=0) / 8 - 0.05

  ring = 0.1 + 0.15 * numbers[3] - jnp.abs(radius - 0.75)
  spacing = 0.3 + 0.3 * numbers[4]
  slat = 0.06 + 0.25 * spacing * numbers[5]
  fence = slat - jnp.abs((x / spacing - jnp.floor(x / spacing)) - 0.5) * spacing
  fence = jnp.minimum(fence, 1.05 - jnp.maximum(jnp.abs(x), jnp.abs(y)))

  polygon = _make_polygon(numbers[26:45], x, y)
  shapes = jnp.stack([star, polygon, blob, ellipse, bar, ring, fence])
  upto = jnp.array([0.28, 0.52, 0.68, 0.78, 0.88, 0.94])
  outline = shapes[jnp.sum(numbers[6] > upto)]

  # Some outlines are ragged.
  ragged = 0.12 * jnp.maximum(numbers[7] - 0.5, 0)
  noise = shape_noise(
      jax.random.normal(keys[1], (size, size)),
      falloff=2.5,
      corner=3 + 6 * numbers[5],
      stretch=1.0,
      angle=0.0,
  )
  border = 0.95 * OUTLINE_REACH - jnp.maximum(jnp.abs(x), jnp.abs(y))
  return jnp.minimum(outline + ragged * noise, border)


def _make_noise(
    white: Float[Array, 's s'], chance: Float[Array, '4']
) -> Float[Array, 's s']:
  """Returns noise of a random spectrum."""
  return shape_noise(
      white,
      falloff=1.1 + 1.7 * chance[0],
      corner=12.0 ** chance[1],
      stretch=5.0 ** jnp.maximum(2.5 * chance[2] - 1.5, 0),
      angle=jnp.pi * chance[3],
  )


def _make_palette(chance: Float[Array, 'r']) -> Float[Array, 'm 3']:
  """Returns matching colors, from dark to light, by numbers in [0, 1)."""
  scatter, chance = chance[:_PALETTE_SIZE, None], chance[_PALETTE_SIZE:]
  spread = 0.2 * 15 ** chance[0]
  hue = 2 * jnp.pi * chance[1] + spread * (2 * scatter - 1)
  saturation = chance[2] ** 2 * ((7 * scatter + chance[1]) % 1)
  low = jnp.minimum(chance[3], chance[4])
  high = jnp.maximum(chance[3], chance[4])
  luminance = jnp.linspace(0.05 + 0.6 * low, 0.3 + 0.65 * high, _PALETTE_SIZE)
  third = jnp.arange(3)[None] * (2 * jnp.pi / 3)
  colors = luminance[:, None] * (1 + saturation * jnp.cos(hue - third) * 1.2)
  return jnp.clip(colors, 0.01, 1)


def _look_up(
    palette: Float[Array, 'm 3'], values: Float[Array, 's s']
) -> Float[Array, 's s 3']:
  """Interpolates the colors of a palette at values from 0 to 1."""
  place = jnp.clip(values, 0, 1) * (palette.shape[0] - 1)
  steps = jnp.arange(palette.shape[0])
  weights = jnp.maximum(1 - jnp.abs(place[:, :, None] - steps[None, None]), 0)
  return jnp.sum(weights[..., None] * palette[None, None], axis=2)


def _make_leaves(
    key: Key, num: int, scale: float, palette: Float[Array, 'm 3']
) -> Leaf:
  """Draws leaves, whose number, sizes and fills differ between textures."""
  # The first four columns are for the texture as a whole.
  chance = jax.random.uniform(key, (21, num + 4))
  count, smallest, same_way, same_kind = chance[0, :4]
  chance = chance[:, 4:]
  count = jnp.where(count < 0.15, 0, (num + 1) ** (count / 0.85 - 0.15 / 0.85))
  smallest = 0.08**smallest
  radius = scale * smallest ** chance[0]
  aspect = jnp.where(chance[1] < 0.5, 1.0, 6.0 ** (2 * chance[1] - 1))
  # On some textures all leaves have the same angle, or the same kind.
  angle = 2 * jnp.pi * jnp.where(same_way < 0.3, chance[2, 0], chance[2])
  kind = jnp.where(same_kind < 0.3, chance[3, 0], chance[3])
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  rotation = jnp.stack(
      [jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], axis=-2
  )
  inverse_size = jnp.stack([1 / radius / aspect**0.3, aspect / radius], axis=-1)
  chosen = (chance[4:6] * palette.shape[0]).astype(jnp.int32)
  foreign = jnp.where(chance[6] < 0.15, 1.0, 0.08)[:, None, None]
  tint = foreign * (chance[15:21].T.reshape(num, 2, 3) - 0.5) * 1.7
  return Leaf(
      center=chance[7:9].T,
      to_leaf=rotation * inverse_size[:, :, None],
      kind=(4 * kind).astype(jnp.int32),
      softness=jnp.where(chance[9] < 0.15, 0.5, 0.0),
      opacity=jnp.where(jnp.arange(num) < count, 1.0, 0.0),
      colors=jnp.clip(palette[chosen.T] + tint, 0.01, 1),
      noise_index=(_NUM_NOISES * chance[10]).astype(jnp.int32),
      noise=0.5 * chance[11] ** 2,
      stripes=jnp.where(chance[12] < 0.25, 0.5, 0.0),
      stripe_rate=4.0 * 7.5 ** chance[13],
      gradient=1.2 * (chance[14] - 0.5),
  )


def _paint_leaf(
    texture: Float[Array, 's s 3'],
    leaf: Leaf,
    noises: Float[Array, 'm s s'],
) -> Float[Array, 's s 3']:
  """Paints a leaf over a texture."""
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
  # The edge is two texels wide, and wider for soft leaves.
  texels = size / jnp.hypot(leaf.to_leaf[1, 0], leaf.to_leaf[1, 1])
  width = 2 / texels + leaf.softness
  cover = leaf.opacity * jnp.clip(0.5 + (1 - distance) / width, 0, 1)
  # Stripes are at least four texels wide, against aliasing.
  rate = jnp.minimum(leaf.stripe_rate, texels * (jnp.pi / 2))
  mix = 0.5 + leaf.noise * noises[leaf.noise_index]
  mix += leaf.stripes * jnp.tanh(3 * jnp.sin(rate * across))
  mix = jnp.clip(mix + leaf.gradient * along, 0, 1)[:, :, None]
  first, second = leaf.colors[:, None, None, :]
  color = first + (second - first) * mix
  return texture + cover[:, :, None] * (color - texture)


def _make_polygon(
    chance: Float[Array, 'r'], x: Float[Array, 's s'], y: Float[Array, 's s']
) -> Float[Array, 's s']:
  """Returns signed distances to a random polygon of three to eight corners."""
  count = 3 + (chance[0] * (_MAX_CORNERS - 2)).astype(jnp.int32)
  # Corners beyond `count` fall on the last one.
  place = jnp.minimum(jnp.arange(_MAX_CORNERS), count - 1)
  wobble, reach = chance[3:].reshape(2, _MAX_CORNERS)[:, place]
  is_regular = chance[1] < 0.4
  wobble = jnp.where(is_regular, 0.0, 0.6 * wobble)
  reach = jnp.where(is_regular, 0.9, 0.4 + 0.6 * reach)
  angle = 2 * jnp.pi * ((place + wobble) / count + chance[2])
  corners = jnp.stack([reach * jnp.cos(angle), reach * jnp.sin(angle)], axis=-1)
  points = jnp.stack([x, y], axis=-1)
  nearest = jnp.full(x.shape, jnp.inf)
  inside = jnp.zeros(x.shape, bool)
  for index in range(_MAX_CORNERS):
    start, end = corners[index - 1], corners[index]
    edge = end - start
    offset = points - start[None, None]
    length = jnp.sum(edge**2) + 1e-9
    fraction = jnp.clip(offset @ edge / length, 0, 1)
    gap = offset - fraction[:, :, None] * edge[None, None]
    nearest = jnp.minimum(nearest, jnp.sum(gap**2, axis=-1))
    inside ^= _crosses(start, end, x, y)
  return jnp.where(inside, 1, -1) * jnp.sqrt(nearest)


def _crosses(
    start: Float[Array, '2'],
    end: Float[Array, '2'],
    x: Float[Array, 's s'],
    y: Float[Array, 's s'],
) -> Bool[Array, 's s']:
  """Returns a mask of points whose ray to the right crosses an edge."""
  rise = end[1] - start[1]
  slope = (end[0] - start[0]) / jnp.where(rise == 0, 1, rise)
  between = (start[1] > y) != (end[1] > y)
  return between & (x < start[0] + (y - start[1]) * slope)
