"""Operations of a traced program, with calls inlined.

```
jaxpr ──read_program──► Computation: Operations on Values, in order
```

Loops stay operations with bodies; calls are inlined; what contributes to no
output is dropped.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax

# Up to this number of images a convolution needs little besides its arrays.
_FEW_IMAGES = 8


def list_names(text: str) -> frozenset[str]:
  """Returns the names of primitives in a text."""
  return frozenset(text.split())


# XLA computes these once for each reader, rather than keep the result.
CHEAP = list_names(
    'abs add add_any and bitcast_convert_type ceil clamp conj '
    'convert_element_type eq floor ge gt imag integer_pow is_finite le lt max '
    'min mul ne neg nextafter not or real reduce_precision round select_n '
    'shift_left shift_right_arithmetic shift_right_logical sign square sub '
    'xor'
)
ELEMENTWISE = CHEAP | list_names(
    'acos acosh asin asinh atan atan2 atanh cbrt cos cosh digamma div erf '
    'erf_inv erfc exp exp2 expm1 lgamma log log1p logistic pow rem rsqrt sin '
    'sinh sqrt tan tanh'
)
INDEXING = list_names(
    'broadcast_in_dim concatenate dynamic_slice gather iota pad rev slice '
    'split stack tile transpose'
)
REDUCTIONS = list_names(
    'argmax argmin reduce reduce_and reduce_max reduce_min reduce_or '
    'reduce_prod reduce_sum'
)
VIEWS = list_names(
    'copy expand_dims optimization_barrier pvary reshape squeeze '
    'stop_gradient'
)
# Parameters of a call that hold the function called.
_CALLED = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')


@dataclasses.dataclass(eq=False, slots=True)
class Value:
  """An array.

  Attributes:
    shape: of one device.
    itemsize: bytes of an element.
    op: the operation that makes it; None for an input.
    viewed: the array whose buffer this one is a view of, if any.
  """

  shape: tuple[int, ...]
  itemsize: int
  op: 'Operation | None' = None
  viewed: 'Value | None' = None

  @property
  def root(self) -> 'Value':
    """The array that owns the buffer."""
    return self if self.viewed is None else self.viewed.root

  @property
  def bytes(self) -> int:
    """The size of the buffer."""
    return math.prod(self.shape) * self.itemsize


@dataclasses.dataclass(eq=False, slots=True)
class Operation:
  """An equation other than a call.

  Attributes:
    name: of the primitive.
    operands: arrays that it reads; those of a loop are what it carries.
    results: arrays that it makes; those of a loop are what it carries.
    workspace: bytes of its library call, besides arrays.
    bodies: computations of a loop, or of each branch.
    consts: arrays that every iteration of a loop reads.
    copied: operands that must be copied to another layout.
  """

  name: str
  operands: list[Value]
  results: list[Value]
  workspace: int = 0
  bodies: 'list[Computation]' = dataclasses.field(default_factory=list)
  consts: list[Value] = dataclasses.field(default_factory=list)
  copied: list[Value] = dataclasses.field(default_factory=list)

  @property
  def reads(self) -> list[Value]:
    """The owners of all buffers that it reads."""
    return [value.root for value in (*self.operands, *self.consts)]


@dataclasses.dataclass(eq=False, slots=True)
class Computation:
  """Operations in the order of the program.

  Attributes:
    inputs: arrays from outside; only those of `homes` may be overwritten.
    operations: what is computed.
    outputs: arrays that are returned.
    homes: outputs, by number, that end in the buffer of an input, by number.
  """

  inputs: list[Value]
  operations: list[Operation]
  outputs: list[Value]
  homes: Mapping[int, int] = dataclasses.field(default_factory=dict)


def read_program(program: Any) -> Computation:
  """Reads a program: `jax.jit(f).trace(...)`, or a closed jaxpr."""
  computation = _read_computation(_open(program))
  _drop_dead_operations(computation)
  return computation


def _open(program: Any) -> Any:
  """Returns the jaxpr itself of whatever holds one."""
  while not hasattr(program, 'constvars'):
    program = program.jaxpr
  return program


def _read_computation(jaxpr: Any) -> Computation:
  """Reads a jaxpr whose calls are inlined; its constants are inputs as well."""
  inputs = [_make_value(var) for var in jaxpr.invars]
  constants = [_make_value(var) for var in jaxpr.constvars]
  operations: list[Operation] = []
  outputs = _read_equations(jaxpr, [*constants, *inputs], operations)
  return Computation([*inputs, *constants], operations, outputs)


def _make_value(var: Any) -> Value:
  # Tokens of effects have neither shape nor type.
  dtype = getattr(var.aval, 'dtype', None)
  return Value(
      tuple(getattr(var.aval, 'shape', ())), getattr(dtype, 'itemsize', 0)
  )


def _read_equations(
    jaxpr: Any, values: Sequence[Value], operations: list[Operation]
) -> list[Value]:
  """Appends the operations of a jaxpr, and returns its outputs."""
  known = dict(zip((*jaxpr.constvars, *jaxpr.invars), values, strict=True))

  def read(var: Any) -> Value:
    if hasattr(var, 'val'):
      literal = _make_value(var)
      _append(operations, 'iota', [], [literal])
      return literal
    return known[var]

  for equation in jaxpr.eqns:
    operands = [read(var) for var in equation.invars]
    results = _read_equation(equation, operands, operations)
    known.update(zip(equation.outvars, results, strict=True))
  return [read(var) for var in jaxpr.outvars]


def _append(
    operations: list[Operation],
    name: str,
    operands: list[Value],
    results: list[Value],
    **rest: Any,
) -> None:
  operation = Operation(name, operands, results, **rest)
  for result in results:
    result.op = operation
  operations.append(operation)


def _read_equation(
    equation: Any, operands: list[Value], operations: list[Operation]
) -> list[Value]:
  """Appends the operations of an equation, and returns its results."""
  name, params = equation.primitive.name, equation.params
  results = [_make_value(var) for var in equation.outvars]
  if name == 'scan':
    return _read_scan(params, operands, results, operations)
  if name == 'while':
    return _read_while(params, operands, operations)
  if name == 'cond':
    bodies = [_read_computation(_open(branch)) for branch in params['branches']]
    _append(operations, name, [], results, bodies=bodies, consts=operands)
    return results
  for key in _CALLED:
    called = params.get(key)
    if called is None or name.startswith('reduce'):
      continue
    inner = _open(called)
    if len(inner.invars) != len(operands):
      continue
    if name == 'shard_map':
      # From here on, shapes are those of one device.
      for operand, var in zip(operands, inner.invars, strict=True):
        operand.shape = tuple(var.aval.shape)
    return _inline(inner, operands, operations)
  if len(operands) == len(results) == 1 or name == 'optimization_barrier':
    pairs = list(zip(operands, results, strict=True))
    if name in VIEWS or all(_is_view(name, params, *pair) for pair in pairs):
      for operand, result in pairs:
        result.viewed = operand
      return results
  copied: list[Value] = []
  workspace = 0
  if name == 'conv_general_dilated':
    workspace = _count_window_bytes(params, operands[1], results[0])
  if name == 'dot_general':
    copied = _list_transposed(params, operands)
    flat = _flatten_product(params, operands, results[0])
    if flat.shape != results[0].shape:
      results[0].viewed = flat
      _append(operations, name, operands, [flat], copied=copied)
      return results
  _append(
      operations, name, operands, results, workspace=workspace, copied=copied
  )
  return results


def _is_view(name: str, params: Any, operand: Value, result: Value) -> bool:
  """Returns whether a result has the very elements of an operand, in order."""
  if math.prod(operand.shape) != math.prod(result.shape):
    return False
  if name == 'transpose':
    moved = [i for i in params['permutation'] if operand.shape[i] != 1]
    return moved == sorted(moved)
  return name == 'broadcast_in_dim' or name in (
      'reduce_max',
      'reduce_min',
      'reduce_sum',
      'slice',
  )


def _inline(
    jaxpr: Any, inputs: Sequence[Value], operations: list[Operation]
) -> list[Value]:
  """Appends the operations of a jaxpr and its constants."""
  constants = [_make_value(var) for var in jaxpr.constvars]
  for constant in constants:
    _append(operations, 'constant', [], [constant])
  return _read_equations(jaxpr, [*constants, *inputs], operations)


def _read_scan(
    params: Any,
    operands: list[Value],
    results: list[Value],
    operations: list[Operation],
) -> list[Value]:
  """Appends a loop that reads slices of arrays and stacks what it makes."""
  inner = _open(params['jaxpr'])
  num_consts, num_carried = _count_scan_inputs(params)
  num_fixed = num_consts + num_carried
  if params['length'] == 1:
    slices = [
        Value(whole.shape[1:], whole.itemsize, viewed=whole)
        for whole in operands[num_fixed:]
    ]
    made = _inline(inner, [*operands[:num_fixed], *slices], operations)
    stacked = [
        Value((1, *part.shape), part.itemsize, viewed=part)
        for part in made[num_carried:]
    ]
    return made[:num_carried] + stacked
  inputs = [_copy_shape(operand) for operand in operands]
  body_operations: list[Operation] = []
  slices = []
  for whole in inputs[num_fixed:]:
    part = Value(whole.shape[1:], whole.itemsize)
    _append(body_operations, 'dynamic_slice', [whole], [part])
    slices.append(part)
  made = _inline(inner, [*inputs[:num_fixed], *slices], body_operations)
  stacks = [_copy_shape(result) for result in results[num_carried:]]
  outputs = made[:num_carried]
  for stack, part in zip(stacks, made[num_carried:], strict=True):
    updated = _copy_shape(stack)
    _append(body_operations, 'dynamic_update_slice', [stack, part], [updated])
    outputs.append(updated)
  carried = inputs[num_consts:num_fixed]
  body = Computation(
      [*carried, *stacks, *inputs[:num_consts], *inputs[num_fixed:]],
      body_operations,
      outputs,
  )
  initial = operands[num_consts:num_fixed]
  consts = operands[:num_consts] + operands[num_fixed:]
  return _append_loop(operations, 'scan', body, [], initial, consts)


def _count_scan_inputs(params: Any) -> tuple[int, int]:
  """Returns the numbers of constants and of carried arrays of a scan."""
  if 'num_consts' in params:
    return params['num_consts'], params['num_carry']
  # Since JAX 0.12.
  consts, carried, _ = params['ft_in'].unpack()
  return len(list(consts)), len(list(carried))


def _read_while(
    params: Any, operands: list[Value], operations: list[Operation]
) -> list[Value]:
  """Appends a loop whose number of iterations is not known."""
  num_tested, num_consts = params['cond_nconsts'], params['body_nconsts']
  initial = operands[num_tested + num_consts :]
  body = _read_computation(_open(params['body_jaxpr']))
  # What is carried comes first.
  body.inputs = body.inputs[num_consts:] + body.inputs[:num_consts]
  test = _read_computation(_open(params['cond_jaxpr']))
  consts = operands[: num_tested + num_consts]
  return _append_loop(operations, 'while', body, [test], initial, consts)


def _append_loop(
    operations: list[Operation],
    name: str,
    body: Computation,
    tests: list[Computation],
    initial: list[Value],
    consts: list[Value],
) -> list[Value]:
  """Appends a loop whose body begins with what it carries and stacks.

  What an iteration hands on as it came is no more than read.
  """
  changing = [
      number
      for number, output in enumerate(body.outputs)
      if output.root is not body.inputs[number]
  ]
  body.homes = dict(enumerate(changing))
  all_results = [
      Value(value.shape, value.itemsize, viewed=initial[number])
      if number not in changing
      else _copy_shape(value)
      for number, value in enumerate(body.outputs)
  ]
  fixed = [v for i, v in enumerate(initial) if i not in changing]
  body.outputs = [body.outputs[number] for number in changing]
  _append(
      operations,
      name,
      [initial[number] for number in changing if number < len(initial)],
      [all_results[number] for number in changing],
      bodies=[body, *tests],
      consts=consts + fixed,
  )
  return all_results


def _copy_shape(value: Value) -> Value:
  return Value(value.shape, value.itemsize)


def _count_window_bytes(params: Any, kernel: Value, output: Value) -> int:
  """Returns the bytes of the windows of all outputs of a convolution."""
  if jax.default_backend() != 'cpu':
    return 0
  if output.shape[0] <= _FEW_IMAGES:
    return 0
  _, channel_axis, *_ = params['dimension_numbers'].out_spec
  channels = output.shape[channel_axis]
  seen = math.prod(kernel.shape) // channels
  return output.bytes // channels * seen


def _flatten_product(
    params: Any, operands: list[Value], result: Value
) -> Value:
  """Returns the matrix, or batch of them, that a product is computed as."""
  _, (batched, _) = params['dimension_numbers']
  (left, _), _ = params['dimension_numbers']
  num_rows = len(operands[0].shape) - len(left)
  sides = (
      result.shape[: len(batched)],
      result.shape[len(batched) : num_rows],
      result.shape[num_rows:],
  )
  shape = tuple(math.prod(side) for side in sides if side)
  return Value(shape, result.itemsize)


def _list_transposed(params: Any, operands: list[Value]) -> list[Value]:
  """Returns operands of a product whose axes the CPU's library cannot read.

  It reads those of the batch in front, and then rows and columns, of either of
  which there may be several axes side by side.
  """
  contracted, batched = params['dimension_numbers']
  copied = []
  for operand, sums, batch in zip(operands, contracted, batched, strict=True):
    kept = [i for i in range(len(operand.shape)) if i not in (*sums, *batch)]
    orders = ([*batch, *kept, *sums], [*batch, *sums, *kept])
    if not any(
        moved == sorted(moved)
        for moved in (
            [i for i in order if operand.shape[i] != 1] for order in orders
        )
    ):
      copied.append(operand)
  return copied


def _drop_dead_operations(computation: Computation) -> None:
  """Drops what contributes to no output, in loops as well."""
  needed = {value.root for value in computation.outputs}
  kept = []
  for operation in reversed(computation.operations):
    if not any(result in needed for result in operation.results):
      continue
    if operation.name == 'scan':
      _drop_unread_stacks(operation, needed)
    for body in operation.bodies:
      _drop_dead_operations(body)
    needed.update(operation.reads)
    kept.append(operation)
  computation.operations = kept[::-1]


def _drop_unread_stacks(operation: Operation, needed: set[Value]) -> None:
  """Drops what a loop stacks and nothing reads."""
  body = operation.bodies[0]
  kept = [
      number
      for number, result in enumerate(operation.results)
      if number < len(operation.operands) or result in needed
  ]
  operation.results = [operation.results[number] for number in kept]
  body.outputs = [body.outputs[number] for number in kept]
  body.homes = {new: body.homes[old] for new, old in enumerate(kept)}
