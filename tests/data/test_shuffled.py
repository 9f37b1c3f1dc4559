"""Shuffled order of items."""

import jax
import numpy as np
import pytest

from tapjax import parallel
from tapjax.data.shuffled import make_draws


def make_mesh(count=1):
  return parallel.make_mesh(jax.devices()[:count])


def list_items(draw, steps):
  return [index for step in steps for index, _ in draw(step)]


def test_every_epoch_has_each_item_once():
  draw = make_draws(10, 4, 0, make_mesh())
  items = list_items(draw, range(5))
  first, second = items[:10], items[10:]
  assert sorted(first) == sorted(second) == list(range(10))
  assert first != second


def test_draws_depend_on_the_step_and_the_seed_alone():
  (index, generator), *_ = make_draws(10, 4, 3, make_mesh())(7)
  again = make_draws(10, 4, 3, make_mesh())
  again(0)
  (other, same), *_ = again(7)
  assert index == other
  assert generator.integers(1 << 30) == same.integers(1 << 30)
  seeds = [
      list_items(make_draws(10, 4, s, make_mesh()), [0, 1]) for s in (0, 1)
  ]
  assert np.any(seeds[0] != seeds[1])


def test_draws_do_not_depend_on_the_devices():
  one, four = (make_draws(9, 4, 0, make_mesh(count)) for count in (1, 4))
  assert list_items(one, range(3)) == list_items(four, range(3))


def test_batches_fit_the_devices():
  with pytest.raises(ValueError, match='multiple of the 4 devices; got 6'):
    make_draws(10, 6, 0, make_mesh(4))
