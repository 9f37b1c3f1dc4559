"""Whether exported files compute what JAX does.

They are run in a process of their own, which has no code of tapjax, on a clip
that is made on the spot and points at random.
"""

from collections.abc import Sequence
import pathlib
import subprocess
import sys
import tempfile
from typing import NamedTuple

import jax
from jaxtyping import Shaped
import numpy as np

from tapjax.data.procedural import demo
from tapjax.export import run_file
from tapjax.export.programs import Program

# Pixels of positions; all else are logits, or numbers of their size.
POSITION_TOLERANCE = 1e-2
LOGIT_TOLERANCE = 1e-3
# Share of entries whose visibility may differ, by logits near the threshold.
VISIBLE_TOLERANCE = 1e-3
# Through which a session is followed.
_SESSION_FRAMES = 4
# Of queries, where any number is allowed.
_SOME_COUNTS = (5, 2)


class Difference(NamedTuple):
  """How far an output is from what JAX computes, and how far it may be.

  Positions count in pixels, `visible` in shares of entries that differ, and
  other arrays in units, or in shares of their largest value where that is more.
  """

  output: str
  largest: float
  tolerance: float

  @property
  def is_small(self) -> bool:
    """Whether it is; what is not a number is not."""
    return self.largest <= self.tolerance

  def __str__(self) -> str:
    unit = {'positions': ' px', 'visible': ' of entries'}.get(self.output, '')
    return f'{self.largest:.2g}{unit} in {self.output}'


def verify(
    paths: Sequence[pathlib.Path],
    programs: Sequence[Program],
    num_queries: int | None,
) -> tuple[Difference, ...]:
  """Compares files with the programs that they were made from.

  Where any number of queries will do, two are tried. Raises ValueError if the
  files do not run.
  """
  counts = _SOME_COUNTS if num_queries is None else (num_queries,)
  differences: dict[str, Difference] = {}
  for count in counts:
    arrays = make_arrays(programs[0], count)
    expected = run_file.run([_compile(program) for program in programs], arrays)
    found = _run_files(paths, arrays)
    for name, array in expected.items():
      now = compare(name, found[name], array)
      before = differences.get(name, now)
      # What is not a number is larger than all.
      differences[name] = before if before.largest >= now.largest else now
  return tuple(differences.values())


def make_arrays(program: Program, num_queries: int) -> dict[str, np.ndarray]:
  """Returns a clip, and points at random, for a program that comes first."""
  generator = np.random.default_rng(0)
  frames_shape, points_shape = (
      shape.shape for shape in program.inputs.values()
  )
  num_frames = frames_shape[0] if len(frames_shape) == 4 else _SESSION_FRAMES
  height, width = resolution = frames_shape[-3:-1]
  points = generator.uniform(size=(num_queries, 3)) * [1, height, width]
  # On either end: what normalises over the few frames between a query and the
  # nearer end makes so much of rounding that even JAX differs from itself.
  points[:, 0] = generator.choice([0, num_frames - 1], size=num_queries)
  _, points_name = program.inputs
  return {
      'frames': demo.make_demo_clip(num_frames, resolution).frames,
      points_name: points[:, -points_shape[1] :].astype(np.float32),
  }


def compare(
    name: str,
    found: Shaped[np.ndarray, '...'],
    expected: Shaped[np.ndarray, '...'],
) -> Difference:
  """Returns how far an array is from the one that it should be."""
  if found.shape != expected.shape or found.dtype != expected.dtype:
    raise ValueError(
        f'{name} must be {expected.dtype}{list(expected.shape)}; the file '
        f'returns {found.dtype}{list(found.shape)}'
    )
  if name == 'visible':
    return Difference(
        name, float(np.mean(found != expected)), VISIBLE_TOLERANCE
    )
  difference = np.abs(found.astype(np.float64) - expected)
  largest = float(np.max(difference, initial=0))
  if name == 'positions':
    return Difference(name, largest, POSITION_TOLERANCE)
  scale = max(1.0, float(np.max(np.abs(expected), initial=0)))
  return Difference(name, largest / scale, LOGIT_TOLERANCE)


def _compile(program: Program) -> run_file.Call:
  function = jax.jit(program.function)

  def call(arrays: run_file.Arrays) -> run_file.Arrays:
    outputs = function(*(arrays[name] for name in program.inputs))
    return dict(zip(program.outputs, outputs, strict=True))

  return call


def _run_files(
    paths: Sequence[pathlib.Path], arrays: run_file.Arrays
) -> dict[str, np.ndarray]:
  """Returns what files compute in a fresh process."""
  with tempfile.TemporaryDirectory() as folder:
    source = pathlib.Path(folder) / 'arrays.npz'
    target = pathlib.Path(folder) / 'results.npz'
    np.savez(source, **arrays)
    # The folder of the program must not be searched for modules.
    command = [sys.executable, '-P', run_file.__file__, source, target, *paths]
    answer = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False
    )
    if answer.returncode:
      reason = (answer.stderr.strip().splitlines() or ['no message'])[-1]
      names = ' and '.join(path.name for path in paths)
      raise ValueError(f'{names} does not run where it is read back: {reason}')
    with np.load(target) as file:
      return dict(file)
