"""Likely fixes of what users pass in, as the ends of messages.

A hint is an expression in terms of the argument, which the reader can copy. It
is made from shapes and values, so that it fits the case at hand.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Float
from jaxtyping import Shaped
import numpy as np

# Orders in which query points may come: columns by name, and the columns that
# put them right.
_ORDERS = {
    '(t, x, y)': [0, 2, 1],
    '(x, y, t)': [2, 1, 0],
    '(y, x, t)': [2, 0, 1],
}


def suggest_array(value: object, name: str) -> str:
  """Returns how to turn a value that is no array into frames."""
  if type(value).__module__.partition('.')[0] == 'torch':
    return f'pass {name}.cpu().numpy()'
  if hasattr(value, '__array__'):
    return f'pass numpy.asarray({name})'
  return (
      'read a file with tapjax.read_video, or stack the frames with numpy.stack'
  )


def suggest_colors(array: Shaped[np.ndarray, '...'], name: str) -> str:
  """Returns how to bring colors of another type to uint8."""
  is_float = jnp.issubdtype(array.dtype, jnp.floating)
  default = 'bring colors to that range, then .astype(numpy.uint8)'
  if not array.size or not (is_float or array.dtype.kind in 'biu'):
    return default
  if array.dtype.kind == 'b':
    return f'is it a mask? {name}.astype(numpy.uint8) * 255 is black and white'
  low, high = float(array.min()), float(array.max())
  if is_float and 0 <= low <= high <= 1:
    scaled = f'({name} * 255).round()'
  elif is_float and -1 <= low <= high <= 1:
    scaled = f'(({name} + 1) * 127.5).round()'
  elif 0 <= low <= high <= 255:
    scaled = f'{name}.round()' if is_float else name
  elif array.dtype == np.uint16:
    scaled = f'({name} // 257)'
  else:
    return f'values are from {low:g} to {high:g}; {default}'
  return f'values are from {low:g} to {high:g}: {scaled}.astype(numpy.uint8)'


def suggest_layout(shape: Sequence[int], name: str, num_axes: int) -> str:
  """Returns how to bring uint8 colors to `[t, h, w, 3]`, or `[h, w, 3]`.

  Empty where no usual layout explains the shape.
  """
  code, sizes = name, list(shape)
  words: list[str] = []
  if len(sizes) == num_axes + 1:
    words.append('a batch axis' if sizes[0] == 1 else f'{sizes[0]} of them')
    code, sizes = f'{code}[0]', sizes[1:]
  adds_time = num_axes == 4 and (
      len(sizes) == 2 or (len(sizes) == 3 and {sizes[0], sizes[-1]} & {3, 4})
  )
  if adds_time:
    words.append('one frame')
    code, sizes = f'{code}[None]', [1, *sizes]
  if len(sizes) == num_axes - 1:
    words.append('gray')
    code, sizes = f'numpy.stack([{code}] * 3, axis=-1)', [*sizes, 3]
  if len(sizes) != num_axes:
    return ''
  if sizes[-1] not in (1, 3, 4):
    axes = [axis for axis in (num_axes - 3, 0) if sizes[axis] in (1, 3, 4)]
    if not axes:
      return ''
    words.append('channels first')
    code = f'numpy.moveaxis({code}, {axes[0]}, -1)'
    sizes.append(sizes.pop(axes[0]))
  if sizes[-1] == 4:
    words.append('RGBA')
    code = f'{code}[..., :3]'
  elif sizes[-1] == 1:
    words.append('gray')
    code = f'numpy.repeat({code}, 3, axis=-1)'
  return f' - {", ".join(words)}? pass {code}' if words else ''


def suggest_order(
    points: Float[np.ndarray, 'n 3'], limits: Float[np.ndarray, '3'], name: str
) -> str:
  """Returns how to bring points (t, y, x) inside, where their order is known.

  Limits are the largest values; that of the time is infinite where the end of
  the video is not known.
  """
  orders = _ORDERS if np.isfinite(limits[0]) else {'(t, x, y)': [0, 2, 1]}
  for order, columns in orders.items():
    moved = points[:, columns]
    if ((moved >= 0) & (moved <= limits)).all():
      return f'all lie inside as {order}: pass {name}[:, {columns}]'
  if (np.abs(points[:, 1:]) <= 1).all():
    return 'y and x are from -1 to 1: are they shares of the frame, not pixels?'
  return 'is the order (t, y, x), in pixels?'


def describe_shares(
    points_yx: Float[np.ndarray, 'n 2'], resolution: Sequence[int], name: str
) -> str | None:
  """Returns a warning of points that look like shares of a frame, not pixels.

  These are several points that all lie in the first pixel of a larger frame;
  points at its very corner are placeholders.
  """
  num_points = len(points_yx)
  if num_points < 2 or max(resolution) <= 1 or not points_yx.any():
    return None
  if not ((points_yx >= 0) & (points_yx <= 1)).all():
    return None
  height, width = resolution
  return (
      f'all {num_points} {name} lie in the first pixel of {width}x{height}, y '
      'and x from 0 to 1: if they are shares of the frame, multiply them by '
      f'its height, {height}, and width, {width}'
  )
