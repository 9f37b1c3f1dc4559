"""Programs are read with their calls inlined and dead operations dropped."""

import jax
import jax.numpy as jnp

from tapjax.tracking.operations import read_program


def read(function, *shapes):
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return read_program(jax.jit(function).trace(*arguments))


def list_names(computation):
  return [operation.name for operation in computation.operations]


def test_calls_are_inlined():
  inner = jax.jit(lambda x: jnp.sin(x))
  computation = read(lambda x: inner(inner(x)), (3,))
  assert list_names(computation) == ['sin', 'sin']
  assert computation.outputs[0].shape == (3,)


def test_operations_that_reach_no_output_are_dropped():
  def compute(x):
    jnp.exp(x)
    return jnp.cos(x)

  assert list_names(read(compute, (3,))) == ['cos']


def test_a_view_owns_no_buffer():
  computation = read(lambda x: jnp.sin(x.reshape(6)), (2, 3))
  (operation,) = computation.operations
  assert operation.operands[0].shape == (6,)
  assert operation.reads == computation.inputs


def test_a_loop_keeps_its_body():
  def compute(x):
    return jax.lax.scan(lambda carry, y: (carry + jnp.exp(y), y), x[0], x)[0]

  computation = read(compute, (4, 5))
  (loop,) = [op for op in computation.operations if op.bodies]
  assert loop.name == 'scan'
  assert 'exp' in list_names(loop.bodies[0])
  # What the loop stacks is read by nothing.
  assert len(loop.results) == len(loop.bodies[0].outputs) == 1
