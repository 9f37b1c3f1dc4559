"""Loops over the videos of a batch, the frames of a video, or terms."""

from collections.abc import Callable
from collections.abc import Iterable
import functools
import operator

import jax
from jaxtyping import Array

from tapjax.types import PyTree

# Frames that a CPU may work on at once. Its cores share the work of one narrow
# layer badly, but each takes a frame of its own; with more, compiling and
# memory grow without a gain on few cores.
CPU_FRAMES = 4


def map_batch(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
  """Applies `function` to each member of a batch, the first axis of arrays.

  For a batch of one this is a plain call: `jax.vmap` of a loop over frames
  would first copy the features to put the frames in front.
  """
  if jax.tree.leaves(arguments)[0].shape[0] != 1:
    return jax.vmap(function)(*arguments)
  single = jax.tree.map(lambda array: array[0], arguments)
  return jax.tree.map(lambda array: array[None], function(*single))


def map_frames(function: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
  """Applies `function` to each frame of `arguments`, which lead with time.

  A CPU takes a few at a time, so that what they need stays in its cache; an
  accelerator takes them all at once.
  """
  if jax.default_backend() != 'cpu':
    return jax.vmap(function)(*arguments)

  def apply(_: None, frame: tuple[PyTree, ...]) -> tuple[None, PyTree]:
    return None, function(*frame)

  _, outputs = jax.lax.scan(apply, None, arguments, unroll=CPU_FRAMES)
  return outputs


def add_all(terms: Iterable[Array]) -> Array:
  """Returns the sum of at least one array, added from the first to the last."""
  return functools.reduce(operator.add, terms)
