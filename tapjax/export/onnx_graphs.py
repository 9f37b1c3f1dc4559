"""Graphs of ONNX files as runtimes run them best.

Converters pass all that a loop reads through each of its iterations, weights
too. Runtimes then copy them and transpose them every time. Here

- a loop that only reads a matrix or kernel reads it from where it is stored, so
  that its transpose can be computed in advance;
- constants that nothing reads are dropped.

Graphs are the `GraphProto` of ONNX, and are changed in place.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

# Sides of a matrix are longer.
_NARROW = 8
# Of a loop, before what it passes on: how often it runs, and whether it does.
_LOOP_INPUTS = 2


def simplify_graph(graph: Any) -> None:
  """Reads matrices from where they are, and drops what nothing reads."""
  _read_in_place(graph, {}, _find_read(graph))
  _drop_unused(graph, _find_read(graph))


def _list_inner(node: Any) -> Iterator[Any]:
  """Yields the bodies of loops and branches."""
  for attribute in node.attribute:
    if attribute.HasField('g'):
      yield attribute.g


def _find_read(graph: Any) -> set[str]:
  """Returns the names that a graph or those inside of it read."""
  read = {output.name for output in graph.output}
  for node in graph.node:
    read.update(node.input)
    for inner in _list_inner(node):
      read |= _find_read(inner)
  return read


def _find_defined(graph: Any) -> set[str]:
  """Returns the names that a graph gives to values of its own."""
  defined = {value.name for value in (*graph.input, *graph.initializer)}
  for node in graph.node:
    defined.update(node.output)
  return defined


def _is_matrix(array: Any) -> bool:
  """Says whether a constant is worth it.

  Runtimes spread others, such as biases, over what they are added to.
  """
  return sum(side > _NARROW for side in array.dims) > 1


def _read_in_place(
    graph: Any, stored: Mapping[str, str], read: set[str]
) -> None:
  """Changes the loops of a graph and of those inside of it.

  Args:
    graph: what is changed.
    stored: by a name from outside, that of the matrix that it stands for.
    read: names that anything reads.
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
      _pass_less(node, stored, read)
    for inner in _list_inner(node):
      _read_in_place(inner, stored, read)


def _pass_less(node: Any, stored: Mapping[str, str], read: set[str]) -> None:
  """Passes no matrix through a loop that hands it on as it came."""
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
  """Drops the copies that nothing reads, and those that only these read."""
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
  """Replaces a name where it is read, unless it is another value inside."""
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
