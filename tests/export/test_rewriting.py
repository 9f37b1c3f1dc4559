"""Rewritten programs compute what they did."""

import jax
from jax.extend import core
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.export import rewriting


def list_primitives(program):
  """Names of all operations, those in loops and branches among them."""
  for equation in program.jaxpr.eqns:
    yield equation.primitive.name
    for inner in rewriting.list_programs(list(equation.params.values())):
      if isinstance(inner, core.ClosedJaxpr):
        yield from list_primitives(inner)


def pool(x):
  return jax.lax.reduce_window(
      x,
      -jnp.inf,
      jax.lax.max,
      (1, 3, 3, 1),
      (1, 2, 2, 1),
      ((0, 0), (1, 1), (0, 1), (0, 0)),
  )


def slice_beyond(x):
  return jax.lax.dynamic_slice(x, (5, -2, 0, 0), (1, 4, 4, 1))


def update_beyond(x):
  return jax.lax.dynamic_update_slice(x, x[:1, :2], (7, 5, -1, 0))


def scan_and_branch(x):
  @jax.jit
  def step(total, row):
    total = jax.lax.cond(
        row.sum() > 0, jax.lax.cummax, lambda row: row, total + row
    )
    return total, total

  total, rows = jax.lax.scan(step, x[0, :, 0, 0], x[:, :, 0, 0])
  return jnp.concatenate([total[None], rows])


CASES = {
    'pool': (pool, 'reduce_window_max'),
    'accumulate': (lambda x: jax.lax.cummax(x, axis=2), 'cummax'),
    'accumulate_back': (
        lambda x: jax.lax.cummax(
            jnp.round(x * 9).astype(jnp.int32), axis=1, reverse=True
        ),
        'cummax',
    ),
    'slice': (slice_beyond, None),
    'update': (update_beyond, None),
    'relu': (jax.nn.relu, 'custom_jvp_call'),
    'nested': (scan_and_branch, 'cummax'),
}


@pytest.mark.parametrize('name', CASES)
def test_rewritten_programs_compute_the_same(name):
  function, replaced = CASES[name]
  x = np.random.default_rng(0).normal(size=(3, 7, 8, 2)).astype(np.float32)
  before = jax.make_jaxpr(function)(x)
  after = rewriting.trace(
      lambda x: (function(x),), jax.ShapeDtypeStruct(x.shape, x.dtype)
  )
  (found,) = core.jaxpr_as_fun(after)(x)
  np.testing.assert_array_equal(found, function(x))
  names = set(list_primitives(after))
  assert 'custom_jvp_call' not in names
  if replaced is not None:
    assert replaced in set(list_primitives(before))
    assert replaced not in names


def test_slices_say_where_they_are_moved():
  """Converters read beyond the array where JAX moves a slice inside."""
  program = rewriting.trace(
      lambda x, start: (jax.lax.dynamic_slice(x, (start,), (4,)),),
      jax.ShapeDtypeStruct((6,), np.float32),
      jax.ShapeDtypeStruct((), np.int32),
  )
  (equation,) = (
      equation
      for equation in program.jaxpr.eqns
      if equation.primitive.name == 'dynamic_slice'
  )
  assert equation.invars[0] in program.jaxpr.invars
  assert equation.invars[1] not in program.jaxpr.invars


def test_loops_and_branches_keep_what_goes_in_and_out():
  x = np.zeros((3, 7, 8, 2), np.float32)
  before = jax.make_jaxpr(scan_and_branch)(x)
  after = rewriting.trace(
      lambda x: (scan_and_branch(x),), jax.ShapeDtypeStruct(x.shape, x.dtype)
  )
  loops = [
      next(
          equation
          for equation in program.jaxpr.eqns
          if equation.primitive.name == 'scan'
      )
      for program in (before, after)
  ]
  sides = [
      [
          [variable.aval.shape for variable in variables]
          for variables in (loop.invars, loop.outvars)
      ]
      for loop in loops
  ]
  assert sides[0] == sides[1]
