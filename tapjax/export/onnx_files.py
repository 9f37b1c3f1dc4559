"""Programs as ONNX files, through jax2onnx."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import importlib.util
import logging
import pathlib
import warnings

from jax.extend import core

from tapjax.export import onnx_graphs
from tapjax.export import rewriting
from tapjax.export.programs import Program
from tapjax.files import write_atomically

# The lowest that has what jax2onnx emits: before, fewer reductions took their
# axes as an input.
OPSET = 18
# Of the files of that time; older runtimes refuse newer ones.
_IR_VERSION = 8


def check_installed() -> None:
  """Raises ValueError where the packages behind this are missing."""
  for package in ('jax2onnx', 'onnxruntime'):
    if importlib.util.find_spec(package) is None:
      raise ValueError(
          f'format onnx needs the package {package}, which is not installed - '
          "run pip install 'tapjax[export]'"
      )


def write_onnx(
    path: pathlib.Path, program: Program, metadata: Mapping[str, str]
) -> None:
  """Writes a program with its weights, and what there is to know about it."""
  import jax2onnx

  shapes = list(program.inputs.values())
  traced = rewriting.trace(program.function, *shapes)
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
  """Keeps remarks on its own work from the user's screen."""
  logger = logging.getLogger('onnx_ir')
  before = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with warnings.catch_warnings(action='ignore'):
      yield
  finally:
    logger.setLevel(before)
