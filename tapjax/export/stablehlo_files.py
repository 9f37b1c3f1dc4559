"""StableHLO files of programs, in the container of `jax.export`.

One file serves every platform: it holds a program traced for CPUs and one
traced for accelerators, and the weights once.
"""

import pathlib

import jax
from jax import export

from tapjax.export.programs import Program
from tapjax.files import write_atomically

# Platforms of every file.
_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def write_stablehlo(
    path: pathlib.Path, on_cpu: Program, on_accelerators: Program
) -> None:
  """Writes a program, as traced for either kind of platform.

  The deserialized function takes and returns a dictionary of arrays.
  """

  def call(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    outputs = jax.lax.platform_dependent(
        on_cpu.params,
        *(arrays[name] for name in on_cpu.inputs),
        cpu=on_cpu.function,
        default=on_accelerators.function,
    )
    return dict(zip(on_cpu.outputs, outputs, strict=True))

  exported = export.export(jax.jit(call), platforms=_PLATFORMS)(
      dict(on_cpu.inputs)
  )
  with write_atomically(path) as file:
    file.write(exported.serialize())
