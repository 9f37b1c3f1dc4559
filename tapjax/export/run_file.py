"""Runs exported files; a standalone program that does not import tapjax.

python run_file.py ARRAYS.npz RESULTS.npz TRACK
python run_file.py ARRAYS.npz RESULTS.npz START STEP

Files end in `.onnx`, for ONNX Runtime, or in `.stablehlo`, for JAX. The arrays
are `frames`, and `query_points` or `points_yx`.
"""

from collections.abc import Callable
from collections.abc import Mapping
import sys
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
Call = Callable[[Arrays], Arrays]


def open_file(path: str) -> Call:
  """Opens a file as a function from named arrays to named arrays."""
  if path.endswith('.onnx'):
    return _open_onnx(path)
  return _open_stablehlo(path)


def run(calls: list[Call], arrays: Arrays) -> dict[str, Any]:
  """Tracks points through frames, as a whole video or as a session.

  Returns:
    The outputs by name. For a session, tracks of all frames, with time as the
    second axis, and the states before the first and after the last frame.
  """
  if len(calls) == 1:
    return _to_numpy(calls[0](arrays))
  start, step = calls
  frames = arrays['frames']
  state = dict(start({'frame': frames[0], 'points_yx': arrays['points_yx']}))
  results = {f'first_{name}': array for name, array in state.items()}
  tracks = []
  for frame in frames:
    outputs = dict(step({'frame': frame, **state}))
    for name in state:
      if f'next_{name}' in outputs:
        state[name] = outputs.pop(f'next_{name}')
    tracks.append(_to_numpy(outputs))
  for name in tracks[0]:
    results[name] = np.stack([now[name] for now in tracks], axis=1)
  results |= {f'last_{name}': array for name, array in state.items()}
  return _to_numpy(results)


def _open_onnx(path: str) -> Call:
  import onnxruntime

  session = onnxruntime.InferenceSession(
      path, providers=['CPUExecutionProvider']
  )
  names = [output.name for output in session.get_outputs()]
  return lambda arrays: dict(
      zip(names, session.run(None, dict(arrays)), strict=True)
  )


def _open_stablehlo(path: str) -> Call:
  import jax
  from jax import export

  with open(path, 'rb') as file:
    exported = export.deserialize(bytearray(file.read()))
  return jax.jit(exported.call)


def _to_numpy(arrays: Arrays) -> dict[str, Any]:
  return {name: np.asarray(array) for name, array in arrays.items()}


def main(arguments: list[str]) -> None:
  """Runs the files named on the command line."""
  source, target, *paths = arguments
  with np.load(source) as file:
    arrays = dict(file)
  results = run([open_file(path) for path in paths], arrays)
  assert not any(name.startswith('tapjax') for name in sys.modules)
  np.savez(target, **results)


if __name__ == '__main__':
  main(sys.argv[1:])
