"""Loops over the members of a batch, the frames of a video, or terms."""

from collections.abc import Callable
from collections.abc import Iterable
import functools
import operator

import jax
from jaxtyping import Array

from tapjax.types import PyTree


def map_batch(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
  """Applies `function` to each member of a batch, the first axis of arrays.

  For a batch of one this is a plain call: `jax.vmap` of a loop over frames
  would first copy the features to move the time axis to the front.
  """
  if jax.tree.leaves(arguments)[0].shape[0] != 1:
    return jax.vmap(function)(*arguments)
  single = jax.tree.map(lambda array: array[0], arguments)
  return jax.tree.map(lambda array: array[None], function(*single))


def map_frames(
    function: Callable[..., PyTree],
    *arguments: PyTree,
    platform: str,
    at_once: int = 1,
) -> PyTree:
  """Applies `function` to each frame; time is the first axis of `arguments`.

  Programs for accelerators process all frames at once. Programs for a CPU
  process one at a time, so that activations stay in the cache. For layers too
  narrow to be divided among cores, `at_once` unrolls the loop so that each core
  has a frame of its own; the program to compile grows by the same factor.
  """
  if platform != 'cpu':
    return jax.vmap(function)(*arguments)

  def apply(_: None, frame: tuple[PyTree, ...]) -> tuple[None, PyTree]:
    return None, function(*frame)

  _, outputs = jax.lax.scan(apply, None, arguments, unroll=at_once)
  return outputs


def add_all(terms: Iterable[Array]) -> Array:
  """Returns the sum of at least one array, added from the first to the last."""
  return functools.reduce(operator.add, terms)
