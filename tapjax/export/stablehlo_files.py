"""Programs as StableHLO, in the container that `jax.export` reads."""

import pathlib

import jax
from jax import export

from tapjax.export.programs import Program
from tapjax.files import write_atomically

# A file runs on all of them.
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def write_stablehlo(path: pathlib.Path, program: Program) -> None:
  """Writes a program with its weights.

  What is read back takes a dictionary of arrays and returns one.
  """

  def call(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    inputs = [arrays[name] for name in program.inputs]
    return dict(zip(program.outputs, program.function(*inputs), strict=True))

  exported = export.export(jax.jit(call), platforms=_PLATFORMS)(
      dict(program.inputs)
  )
  with write_atomically(path) as file:
    file.write(exported.serialize())
