"""Session files: `.safetensors` with one array for each leaf of a session."""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from tapjax import checkpoints
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.streaming.session import describe_session
from tapjax.streaming.session import Session


def write_session(path: str | os.PathLike[str], session: Session) -> None:
  """Writes a session as `.safetensors`."""
  leaves = {
      name: np.asarray(leaf) for name, leaf in _name_leaves(session).items()
  }
  checkpoints.write_checkpoint(path, leaves, {'kind': 'session'})


def read_session(
    path: str | os.PathLike[str], functions: TrackerFunctions, params: Params
) -> Session:
  """Reads a session that a tracker of the same kind wrote.

  Raises FileNotFoundError, or ValueError for a file without such a session.
  """
  arrays, metadata = checkpoints.read_native(path)
  if metadata.get('kind') != 'session' or '.slots' not in arrays:
    raise ValueError(f'{pathlib.Path(path)} must hold a session; it does not')
  template = describe_session(functions, params, len(arrays['.slots']))
  expected = _name_leaves(template)
  fits = expected.keys() == arrays.keys() and all(
      leaf.shape == arrays[name].shape for name, leaf in expected.items()
  )
  if not fits:
    raise ValueError(
        f'{pathlib.Path(path)} holds a session of another tracker or setting'
    )
  leaves = [arrays[name] for name in expected]
  return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _name_leaves(session: Any) -> dict[str, Any]:
  flat, _ = jax.tree.flatten_with_path(session)
  return {jax.tree_util.keystr(path): leaf for path, leaf in flat}
