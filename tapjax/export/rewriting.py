"""Programs in the terms that converters to other formats get right.

A JAX program is a list of primitive operations. Those here are replaced by
equivalent ones, in loops and branches too, while trackers keep the form that is
fastest in JAX:

- the largest value of windows is the largest of shifted views;
- a running maximum is a masked maximum over all pairs;
- what is read from or written to a place that is moved inside of the array, as
  JAX does, is moved so in so many words;
- matrices and kernels that loops and branches read move inside of them, where
  their transposes can be computed in advance;
- functions that were compiled apart, and those with gradients of their own, are
  put in the place of their call.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import itertools
from typing import Any

import jax
from jax.extend import core
import jax.numpy as jnp
from jaxtyping import Array
import numpy as np

# Sides of a matrix are longer.
_NARROW = 8
_INLINED = {
    'closed_call': 'call_jaxpr',
    'checkpoint': 'jaxpr',
    'core_call': 'call_jaxpr',
    'custom_jvp_call': 'call_jaxpr',
    'custom_vjp_call': 'call_jaxpr',
    'jit': 'jaxpr',
    'pjit': 'jaxpr',
    'remat2': 'jaxpr',
}


def trace(
    function: Callable[..., Sequence[Array]],
    *shapes: jax.ShapeDtypeStruct,
) -> core.ClosedJaxpr:
  """Returns what `function` does to arrays of these shapes, rewritten."""
  return _rewrite(jax.make_jaxpr(function)(*shapes))


def _rewrite(
    program: core.ClosedJaxpr, known: Mapping[int, Any] | None = None
) -> core.ClosedJaxpr:
  """Rewrites a program, some of whose inputs may be known already.

  Those are no inputs any more.
  """
  known = known or {}
  shapes = [
      jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype)
      for i, variable in enumerate(program.jaxpr.invars)
      if i not in known
  ]

  def evaluate(*rest: Array) -> list[Array]:
    following = iter(rest)
    inputs = [
        known[i] if i in known else next(following)
        for i in range(len(program.jaxpr.invars))
    ]
    return _evaluate(program, *inputs)

  return jax.make_jaxpr(evaluate)(*shapes)


def _evaluate(program: core.ClosedJaxpr, *arguments: Any) -> list[Any]:
  """Runs a program, or traces it, with other operations where there are any."""
  values = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
  values |= dict(zip(program.jaxpr.invars, arguments, strict=True))

  def read(variable: Any) -> Any:
    if isinstance(variable, core.Literal):
      return variable.val
    return values[variable]

  for equation in program.jaxpr.eqns:
    inputs = [read(variable) for variable in equation.invars]
    outputs = _apply(equation, inputs)
    values |= dict(zip(equation.outvars, outputs, strict=True))
  return [read(variable) for variable in program.jaxpr.outvars]


def _apply(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
  name, settings = equation.primitive.name, equation.params
  if name in _INLINED:
    inner = settings[_INLINED[name]]
    if not isinstance(inner, core.ClosedJaxpr):
      inner = core.ClosedJaxpr(inner, ())
    return _evaluate(inner, *inputs)
  if name in _RULES:
    return [_RULES[name](*inputs, **settings)]
  if name == 'scan':
    return _apply_scan(equation, inputs)
  if name == 'cond':
    return _apply_cond(equation, inputs)
  outputs = equation.primitive.bind(*inputs, **settings)
  return outputs if equation.primitive.multiple_results else [outputs]


def _apply_scan(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
  """Puts constants, such as weights, inside of a loop that only reads them."""
  settings = dict(equation.params)
  known = _find_known(inputs[: settings['num_consts']])
  rest = [value for i, value in enumerate(inputs) if i not in known]
  settings['jaxpr'] = _rewrite(settings['jaxpr'], known)
  settings['num_consts'] -= len(known)
  if 'linear' in settings:  # One of each input, in older versions of JAX.
    settings['linear'] = settings['linear'][len(known) :]
  return equation.primitive.bind(*rest, **settings)


def _apply_cond(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
  """Puts constants inside of the branches."""
  index, *operands = inputs
  known = _find_known(operands)
  rest = [value for i, value in enumerate(operands) if i not in known]
  branches = tuple(
      _rewrite(branch, known) for branch in equation.params['branches']
  )
  settings = {**equation.params, 'branches': branches}
  return equation.primitive.bind(index, *rest, **settings)


def _find_known(inputs: Sequence[Any]) -> dict[int, Any]:
  """Returns those inputs that are matrices or kernels.

  Converters spread other constants, such as biases, over what they are added
  to, and store that.
  """
  return {
      i: value
      for i, value in enumerate(inputs)
      if not isinstance(value, jax.core.Tracer)
      and sum(side > _NARROW for side in np.shape(value)) > 1
  }


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
    raise NotImplementedError('windows with gaps have no other form here')
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
  return jax.lax.dynamic_slice_p.bind(x, *inside, slice_sizes=slice_sizes)


def _update_inside(x: Array, update: Array, *starts: Any) -> Array:
  inside = _move_inside(starts, x.shape, update.shape)
  return jax.lax.dynamic_update_slice_p.bind(x, update, *inside)


_RULES: dict[str, Callable[..., Array]] = {
    'cummax': _accumulate_maximum,
    'dynamic_slice': _slice_inside,
    'dynamic_update_slice': _update_inside,
    'reduce_window_max': _find_window_maximum,
}
