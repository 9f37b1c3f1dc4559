"""Shuffled order of training items."""

from collections.abc import Callable
import functools

import jax
from jax.sharding import Mesh
from jaxtyping import Int
import numpy as np

# Index of an item, and the generator for its random choices.
Draw = tuple[int, np.random.Generator]


def make_draws(
    num_items: int, batch_size: int, seed: int, mesh: Mesh
) -> Callable[[int], list[Draw]]:
  """Returns a function from a step to the items of this process.

  Every epoch has each item once, in a new order. Draws depend on the step and
  the seed alone. Raises ValueError if `batch_size` is not a multiple of the
  devices.
  """
  if batch_size % mesh.size:
    raise ValueError(
        f'batch_size must be a multiple of the {mesh.size} devices; got '
        f'{batch_size}'
    )
  share = batch_size * mesh.local_mesh.size // mesh.size
  first = share * jax.process_index()

  @functools.lru_cache(maxsize=2)
  def get_order(epoch: int) -> Int[np.ndarray, 'k']:
    return np.random.default_rng([seed, 0, epoch]).permutation(num_items)

  def draw(position: int) -> Draw:
    epoch, place = divmod(position, num_items)
    generator = np.random.default_rng([seed, 1, position])
    return int(get_order(epoch)[place]), generator

  def draw_share(step: int) -> list[Draw]:
    start = step * batch_size + first
    return [draw(position) for position in range(start, start + share)]

  return draw_share
