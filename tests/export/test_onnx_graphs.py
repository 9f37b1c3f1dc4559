"""Loops that read matrices from where they are stored compute the same."""

import numpy as np
import onnx
from onnx import helper
from onnx import numpy_helper
import onnxruntime
import pytest

from tapjax.export import onnx_graphs

FLOAT, BOOL, INT = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.BOOL,
    onnx.TensorProto.INT64,
)
SIDE = 16


def make_model(keeps, returned='total'):
  """A loop: total = tanh(total @ matrix + bias), three times.

  `keeps` is what the body hands on for the matrix, of `kept` or `other`.
  """
  generator = np.random.default_rng(0)
  arrays = {
      'matrix': generator.normal(size=(SIDE, SIDE)).astype(np.float32),
      'bias': generator.normal(size=(1, SIDE)).astype(np.float32),
      'times': np.int64(3),
      'yes': np.bool_(True),
      'unused': np.float32([1]),
  }
  body = helper.make_graph(
      [
          helper.make_node('Identity', ['go_in'], ['go_out']),
          helper.make_node('Identity', ['inside'], ['copied']),
          helper.make_node('Identity', ['copied'], ['kept']),
          helper.make_node('Transpose', ['inside'], ['other']),
          helper.make_node('Identity', ['bias_in'], ['bias_out']),
          helper.make_node('MatMul', ['total_in', 'inside'], ['product']),
          helper.make_node('Add', ['product', 'bias_in'], ['sum']),
          helper.make_node('Tanh', ['sum'], ['total_out']),
      ],
      'body',
      [
          helper.make_tensor_value_info('index', INT, []),
          helper.make_tensor_value_info('go_in', BOOL, []),
          helper.make_tensor_value_info('inside', FLOAT, [SIDE, SIDE]),
          helper.make_tensor_value_info('bias_in', FLOAT, [1, SIDE]),
          helper.make_tensor_value_info('total_in', FLOAT, [1, SIDE]),
      ],
      [
          helper.make_tensor_value_info('go_out', BOOL, []),
          helper.make_tensor_value_info(keeps, FLOAT, [SIDE, SIDE]),
          helper.make_tensor_value_info('bias_out', FLOAT, [1, SIDE]),
          helper.make_tensor_value_info('total_out', FLOAT, [1, SIDE]),
      ],
  )
  loop = helper.make_node(
      'Loop',
      ['times', 'yes', 'matrix_copy', 'bias', 'x'],
      ['matrix_out', 'bias_last', 'total'],
      body=body,
  )
  shape = [SIDE, SIDE] if returned == 'matrix_out' else [1, SIDE]
  graph = helper.make_graph(
      [helper.make_node('Identity', ['matrix'], ['matrix_copy']), loop],
      'graph',
      [helper.make_tensor_value_info('x', FLOAT, [1, SIDE])],
      [helper.make_tensor_value_info(returned, FLOAT, shape)],
      [numpy_helper.from_array(array, name) for name, array in arrays.items()],
  )
  model = helper.make_model(
      graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8
  )
  onnx.checker.check_model(model)
  return model


def run(model):
  onnx.checker.check_model(model)
  session = onnxruntime.InferenceSession(
      model.SerializeToString(), providers=['CPUExecutionProvider']
  )
  x = np.random.default_rng(1).normal(size=(1, SIDE)).astype(np.float32)
  (found,) = session.run(None, {'x': x})
  return found


def get_loop(model):
  (loop,) = (node for node in model.graph.node if node.op_type == 'Loop')
  return loop


def nest(model):
  """The same loop, as a branch of one that is always taken."""
  branches = []
  for name in ('first', 'second'):
    branch = helper.make_graph(
        [], name, [], [helper.make_tensor_value_info('total', FLOAT, None)]
    )
    branch.node.extend(model.graph.node)
    branches.append(branch)
  taken, other = branches
  del other.node[:]
  other.node.append(helper.make_node('Identity', ['x'], ['total']))
  outer = onnx.ModelProto()
  outer.CopyFrom(model)
  del outer.graph.node[:]
  outer.graph.node.append(
      helper.make_node(
          'If', ['yes'], ['result'], then_branch=taken, else_branch=other
      )
  )
  outer.graph.output[0].name = 'result'
  return outer


@pytest.mark.parametrize('nested', [False, True])
def test_loops_read_matrices_in_place_and_are_passed_the_rest(nested):
  model = make_model('kept')
  if nested:
    model = nest(model)
  before = run(model)
  onnx_graphs.simplify_graph(model.graph)
  # Products with matrices that are known in advance add in another order.
  np.testing.assert_allclose(run(model), before, atol=1e-5)
  if nested:
    (branch,) = (
        attribute.g
        for attribute in model.graph.node[0].attribute
        if attribute.name == 'then_branch'
    )
    model = onnx.ModelProto(graph=branch)
  loop = get_loop(model)
  assert list(loop.input) == ['times', 'yes', 'bias', 'x']
  assert list(loop.output) == ['bias_last', 'total']
  body = loop.attribute[0].g
  assert ['total_in', 'matrix'] in [list(node.input) for node in body.node]
  assert not {'kept', 'copied'} & {node.output[0] for node in body.node}


def test_constants_that_nothing_reads_are_dropped():
  model = make_model('kept')
  onnx_graphs.simplify_graph(model.graph)
  names = {array.name for array in model.graph.initializer}
  assert names == {'matrix', 'bias', 'times', 'yes'}


@pytest.mark.parametrize(
    ('keeps', 'returned'), [('other', 'total'), ('kept', 'matrix_out')]
)
def test_matrices_that_change_or_are_returned_are_passed(keeps, returned):
  model = make_model(keeps, returned=returned)
  before = run(model)
  onnx_graphs.simplify_graph(model.graph)
  np.testing.assert_array_equal(run(model), before)
  assert 'matrix_copy' in get_loop(model).input
