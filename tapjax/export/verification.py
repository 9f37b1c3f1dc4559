"""Comparison of exported files with JAX.

Files run in a separate process without tapjax, on a generated clip with random
points.
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

# Tolerance of positions in pixels; other outputs are logits or of similar size.
POSITION_TOLERANCE = 1e-2
LOGIT_TOLERANCE = 1e-3
# Fraction of entries with different visibility, from logits near the threshold.
VISIBLE_TOLERANCE = 1e-3
# Number of frames of a compared session.
_SESSION_FRAMES = 4
# Numbers of queries to compare, for a free number.
_SOME_COUNTS = (5, 2)


class Difference(NamedTuple):
  """Largest difference of an output from JAX, and its tolerance.

  The difference is in pixels for positions, a fraction of entries for
  `visible`, and for other arrays absolute, or relative to their largest value
  if that exceeds 1.
  """

  output: str
  largest: float
  tolerance: float

  @property
  def is_small(self) -> bool:
    """Whether the difference is within the tolerance; False for NaN."""
    return self.largest <= self.tolerance

  def __str__(self) -> str:
    unit = {'positions': ' px', 'visible': ' of entries'}.get(self.output, '')
    return f'{self.largest:.2g}{unit} in {self.output}'


def verify(
    paths: Sequence[pathlib.Path],
    programs: Sequence[Program],
    num_queries: int | None,
) -> tuple[Difference, ...]:
  """Compares files with their programs.

  With a free number of queries, two numbers are compared.

  Raises:
    ValueError: the files do not run.
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
      # NaN counts as the largest difference.
      differences[name] = before if before.largest >= now.largest else now
  return tuple(differences.values())


def make_arrays(program: Program, num_queries: int) -> dict[str, np.ndarray]:
  """Makes a clip and random points, inputs of `track` or `start`."""
  generator = np.random.default_rng(0)
  frames_shape, points_shape = (
      shape.shape for shape in program.inputs.values()
  )
  num_frames = frames_shape[0] if len(frames_shape) == 4 else _SESSION_FRAMES
  height, width = resolution = frames_shape[-3:-1]
  points = generator.uniform(size=(num_queries, 3)) * [1, height, width]
  # Queries on the first or last frame: normalization over the few frames
  # between a query and the nearer end amplifies rounding errors, also in JAX.
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
  """Returns the difference of an array from the expected one."""
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
    inputs = (arrays[name] for name in program.inputs)
    outputs = function(program.params, *inputs)
    return dict(zip(program.outputs, outputs, strict=True))

  return call


def _run_files(
    paths: Sequence[pathlib.Path], arrays: run_file.Arrays
) -> dict[str, np.ndarray]:
  """Runs files in a fresh process; returns their outputs."""
  with tempfile.TemporaryDirectory() as folder:
    source = pathlib.Path(folder) / 'arrays.npz'
    target = pathlib.Path(folder) / 'results.npz'
    np.savez(source, **arrays)
    # -P: the folder of the program is not searched for modules.
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
