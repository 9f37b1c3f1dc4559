"""Simplification of ONNX graphs, for speed in ONNX Runtime.

Converters pass every value that a loop reads, weights included, through all of
its iterations; runtimes then copy and transpose them in each one. Here

- a loop reads constant matrices and kernels directly from the initializers, so
  that their transposes can be precomputed;
- unused constants are dropped.

Graphs are `GraphProto` messages of ONNX, changed in place.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

# At least two sides of a matrix or kernel are longer than this.
_NARROW = 8
# Number of a loop's first inputs: trip count and condition.
_LOOP_INPUTS = 2


def simplify_graph(graph: Any) -> None:
  """Reads matrices in place and drops unused constants."""
  _read_in_place(graph, {}, _find_read(graph))
  _drop_unused(graph, _find_read(graph))


def _list_inner(node: Any) -> Iterator[Any]:
  """Yields the subgraphs of a loop or branch."""
  for attribute in node.attribute:
    if attribute.HasField('g'):
      yield attribute.g


def _find_read(graph: Any) -> set[str]:
  """Returns the names read by a graph or its subgraphs."""
  read = {output.name for output in graph.output}
  for node in graph.node:
    read.update(node.input)
    for inner in _list_inner(node):
      read |= _find_read(inner)
  return read


def _find_defined(graph: Any) -> set[str]:
  """Returns the names defined by a graph."""
  defined = {value.name for value in (*graph.input, *graph.initializer)}
  for node in graph.node:
    defined.update(node.output)
  return defined


def _is_matrix(array: Any) -> bool:
  """Returns whether a constant is a matrix or kernel.

  Others, such as biases, are broadcast by runtimes.
  """
  return sum(side > _NARROW for side in array.dims) > 1


def _read_in_place(
    graph: Any, stored: Mapping[str, str], read: set[str]
) -> None:
  """Makes the loops of a graph and its subgraphs read matrices in place.

  Args:
    graph: graph to change.
    stored: name of the stored matrix for each outer name of it.
    read: names read anywhere.
  """
  defined = _find_defined(graph)
  stored = {
      name: matrix
      for name, matrix in stored.items()
      if not {name, matrix} & defined
  }
  stored |= {
      array.name: array.name for array in graph.initializer if _is_matrix(array)
  }
  for node in graph.node:
    if node.op_type == 'Identity' and node.input[0] in stored:
      stored[node.output[0]] = stored[node.input[0]]
    if node.op_type == 'Loop':
      _drop_constant_inputs(node, stored, read)
    for inner in _list_inner(node):
      _read_in_place(inner, stored, read)


def _drop_constant_inputs(
    node: Any, stored: Mapping[str, str], read: set[str]
) -> None:
  """Removes matrices from the inputs of a loop that passes them unchanged."""
  (body,) = _list_inner(node)
  defined = _find_defined(body)
  copies = {
      now.output[0]: now.input[0]
      for now in body.node
      if now.op_type == 'Identity'
  }
  for i in reversed(range(len(node.input) - _LOOP_INPUTS)):
    matrix = stored.get(node.input[_LOOP_INPUTS + i])
    if matrix is None or matrix in defined or node.output[i] in read:
      continue
    inside = body.input[_LOOP_INPUTS + i].name
    origin = body.output[1 + i].name
    while origin in copies:
      origin = copies[origin]
    others = (output for j, output in enumerate(body.output) if j != 1 + i)
    if origin != inside or any(output.name == inside for output in others):
      continue
    del node.input[_LOOP_INPUTS + i], node.output[i]
    del body.input[_LOOP_INPUTS + i], body.output[1 + i]
    _rename(body, inside, matrix)
  _drop_copies(body)


def _drop_copies(graph: Any) -> None:
  """Drops unused copies, repeatedly."""
  used = _find_read(graph)
  kept = [
      node
      for node in graph.node
      if node.op_type != 'Identity' or node.output[0] in used
  ]
  if len(kept) < len(graph.node):
    del graph.node[:]
    graph.node.extend(kept)
    _drop_copies(graph)


def _rename(graph: Any, before: str, after: str) -> None:
  """Renames a value where it is read, except where a subgraph redefines it."""
  for node in graph.node:
    for i, name in enumerate(node.input):
      if name == before:
        node.input[i] = after
    for inner in _list_inner(node):
      if before not in _find_defined(inner):
        _rename(inner, before, after)


def _drop_unused(graph: Any, read: set[str]) -> None:
  kept = [array for array in graph.initializer if array.name in read]
  del graph.initializer[:]
  graph.initializer.extend(kept)
  for node in graph.node:
    for inner in _list_inner(node):
      _drop_unused(inner, read)
