"""StableHLO files of programs, in the container of `jax.export`."""

import pathlib

import jax
from jax import export

from tapjax.export.programs import Program
from tapjax.files import write_atomically

# Platforms of every file.
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def write_stablehlo(path: pathlib.Path, program: Program) -> None:
  """Writes a program with its weights.

  The deserialized function takes and returns a dictionary of arrays.
  """

  def call(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    inputs = [arrays[name] for name in program.inputs]
    return dict(zip(program.outputs, program.function(*inputs), strict=True))

  exported = export.export(jax.jit(call), platforms=_PLATFORMS)(
      dict(program.inputs)
  )
  with write_atomically(path) as file:
    file.write(exported.serialize())
