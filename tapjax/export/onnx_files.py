"""ONNX files of programs, converted by jax2onnx."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import functools
import importlib.util
import logging
import pathlib
import warnings

from jax.extend import core

from tapjax.export import onnx_graphs
from tapjax.export import rewriting
from tapjax.export.programs import Program
from tapjax.files import write_atomically

# The lowest opset with the operators of jax2onnx: in earlier ones, fewer
# reductions take their axes as an input.
OPSET = 18
# IR version of that opset; older runtimes reject newer ones.
_IR_VERSION = 8


def check_installed() -> None:
  """Raises ValueError if a required package is missing."""
  for package in ('jax2onnx', 'onnxruntime'):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
          f'format onnx needs the package {package}, which is not installed - '
          "run pip install 'tapjax[export]'"
      )


def write_onnx(
    path: pathlib.Path, program: Program, metadata: Mapping[str, str]
) -> None:
  """Writes a program with its weights and metadata."""
  import jax2onnx

  shapes = list(program.inputs.values())
  function = functools.partial(program.function, program.params)
  traced = rewriting.trace(function, *shapes)
  with _silence_converter():
    model = jax2onnx.to_onnx(
        core.jaxpr_as_fun(traced),
        shapes,
        model_name=program.name,
        opset=OPSET,
        input_names=list(program.inputs),
        output_names=list(program.outputs),
    )
  model.ir_version = _IR_VERSION
  onnx_graphs.simplify_graph(model.graph)
  for key, value in metadata.items():
    model.metadata_props.add(key=key, value=value)
  with write_atomically(path) as file:
    file.write(model.SerializeToString())


@contextlib.contextmanager
def _silence_converter() -> Iterator[None]:
  """Suppresses log messages of the converter."""
  logger = logging.getLogger('onnx_ir')
  before = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings(action='ignore'):
      yield
  finally:
    logger.setLevel(before)
