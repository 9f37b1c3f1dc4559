"""Rewriting of JAX programs for converters to other formats.

Operations that converters do not support well are replaced by equivalent ones,
in loops and branches too, while trackers keep the form that is fastest in JAX:

- a window maximum becomes a maximum of shifted views;
- a cumulative maximum becomes a masked maximum over all pairs;
- the implicit clamping of indices of dynamic slices and updates becomes
  explicit;
- calls of compiled functions, and of those with custom gradients, are inlined.

Loops and branches keep their inputs and outputs, so that the rewriting does not
depend on their order in a version of JAX.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import itertools
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

_CALLS = frozenset(
    (
        'checkpoint',
        'closed_call',
        'core_call',
        'custom_jvp_call',
        'custom_vjp_call',
        'jit',
        'pjit',
        'remat2',
    )
)
_LOOPS_AND_BRANCHES = frozenset(('cond', 'scan', 'while'))
# One class in newer versions of JAX; a closed program holds its constants.
_PROGRAMS = (core.ClosedJaxpr, core.Jaxpr)


def trace(
    function: Callable[..., Sequence[Array]],
    *shapes: jax.ShapeDtypeStruct,
) -> core.ClosedJaxpr:
  """Traces a function on arrays of these shapes, and rewrites its program."""
  return _rewrite(jax.make_jaxpr(function)(*shapes))


def list_programs(value: Any) -> Iterator[Any]:
  """Yields the programs in a parameter of an operation."""
  if isinstance(value, _PROGRAMS):
    yield value
  elif isinstance(value, list | tuple):
    for item in value:
      yield from list_programs(item)


def _rewrite(program: core.ClosedJaxpr) -> core.ClosedJaxpr:
  """Rewrites a program; inputs and outputs stay the same."""
  shapes = [
      jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
      for variable in program.jaxpr.invars
  ]
  return jax.make_jaxpr(functools.partial(_evaluate, program))(*shapes)


def _rewrite_inside(value: Any) -> Any:
  """Rewrites the programs in a parameter; returns others unchanged."""
  if isinstance(value, core.ClosedJaxpr):
    return _rewrite(value)
  if any(list_programs(value)):
    return tuple(map(_rewrite_inside, value))
  return value


def _evaluate(program: Any, *arguments: Any) -> list[Any]:
  """Runs or traces a program with replaced operations."""
  inner = getattr(program, 'jaxpr', program)
  values = dict(
      zip(inner.constvars, getattr(program, 'consts', ()), strict=True)
  )
  values |= dict(zip(inner.invars, arguments, strict=True))

  def read(variable: Any) -> Any:
    if isinstance(variable, core.Literal):
      return variable.val
    return values[variable]

  for equation in inner.eqns:
    inputs = [read(variable) for variable in equation.invars]
    outputs = _apply(equation, inputs)
    values |= dict(zip(equation.outvars, outputs, strict=True))
  return [read(variable) for variable in inner.outvars]


def _apply(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
  name, settings = equation.primitive.name, equation.params
  if name in _CALLS:
    called = next(list_programs(list(settings.values())))
    return _evaluate(called, *inputs)
  if name in _RULES:
    return [_RULES[name](*inputs, **settings)]
  if name in _LOOPS_AND_BRANCHES:
    settings = {key: _rewrite_inside(value) for key, value in settings.items()}
  outputs = equation.primitive.bind(*inputs, **settings)
  return outputs if equation.primitive.multiple_results else [outputs]


def _find_window_maximum(
    x: Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> Array:
  if max(*base_dilation, *window_dilation) > 1:
    raise ValueError('windows must have no gaps; these are dilated')
  x = jnp.pad(x, padding, constant_values=-np.inf)
  sides = [
      (size - window) // stride + 1
      for size, window, stride in zip(
          x.shape, window_dimensions, window_strides, strict=True
      )
  ]
  views = [
      jax.lax.slice(
          x,
          start,
          [
              first + (side - 1) * stride + 1
              for first, side, stride in zip(
                  start, sides, window_strides, strict=True
              )
          ],
          window_strides,
      )
      for start in itertools.product(*map(range, window_dimensions))
  ]
  return functools.reduce(jax.lax.max, views)


def _accumulate_maximum(x: Array, *, axis: int, reverse: bool) -> Array:
  x = jnp.moveaxis(x, axis, -1)
  place = np.arange(x.shape[-1])
  counts = place[None] <= place[:, None]
  if reverse:
    counts = counts.T
  least = (
      -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
  )
  mask = counts.reshape((1,) * (x.ndim - 1) + counts.shape)
  values = jnp.max(jnp.where(mask, x[..., None, :], least), axis=-1)
  return jnp.moveaxis(values, -1, axis)


def _move_inside(
    starts: Sequence[Any], shape: Sequence[int], sizes: Sequence[int]
) -> list[Array]:
  return [
      jnp.clip(start, 0, side - size)
      for start, side, size in zip(starts, shape, sizes, strict=True)
  ]


def _slice_inside(x: Array, *starts: Any, slice_sizes: Sequence[int]) -> Array:
  inside = _move_inside(starts, x.shape, slice_sizes)
  return jax.lax.dynamic_slice(
      x, inside, slice_sizes, allow_negative_indices=False
  )


def _update_inside(x: Array, update: Array, *starts: Any) -> Array:
  inside = _move_inside(starts, x.shape, update.shape)
  return jax.lax.dynamic_update_slice(
      x, update, inside, allow_negative_indices=False
  )


_RULES: dict[str, Callable[..., Array]] = {
    'cummax': _accumulate_maximum,
    'dynamic_slice': _slice_inside,
    'dynamic_update_slice': _update_inside,
    'reduce_window_max': _find_window_maximum,
}
