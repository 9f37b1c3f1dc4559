"""The contract of trackers: parameters, windows and copies of functions."""

import dataclasses

import jax
import numpy as np
import pytest

from tapjax.models import contract
from tapjax.models import registry
from tests.support import small_trackers


def get_functions(name='tapnet'):
  config = small_trackers.make_config(name)
  preset = registry.get_preset(name)
  return preset.architecture.make_functions(config)


def test_flat_parameters_come_back():
  params = contract.Params({'a/~/b': {'w': 1, 'b': 2}}, {'n': {'average': 3}})
  flat = contract.flatten_params(params)
  assert flat == {
      'params|a/~/b|w': 1,
      'params|a/~/b|b': 2,
      'state|n|average': 3,
  }
  assert contract.unflatten_params(flat) == params


def test_shapes_of_parameters_need_no_work():
  functions = get_functions()
  shapes = contract.describe_params(functions)
  leaves = jax.tree.leaves(shapes)
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
  halves = tuple(np.dtype(np.float16) for _ in leaves)
  typed = contract.describe_params(functions, halves)
  assert {leaf.dtype for leaf in jax.tree.leaves(typed)} == {
      np.dtype(np.float16)
  }
  assert jax.tree.structure(typed) == jax.tree.structure(shapes)


def test_copies_differ_in_one_thing():
  functions = get_functions()
  other = contract.set_platform(functions, 'tpu')
  assert other.platform == 'tpu'
  assert contract.set_platform(other, functions.platform) == functions
  halves = contract.set_precision(functions, 'bfloat16')
  assert halves.config == dataclasses.replace(
      functions.config, precision='bfloat16'
  )


def test_windows_that_are_too_short():
  functions = get_functions()
  shortest = 4 * functions.temporal_context + contract.SHORTEST_WINDOW
  functions.check_window(shortest)
  with pytest.raises(ValueError, match=f'at least {shortest}'):
    functions.check_window(shortest - 1)


def test_points_that_see_each_other_have_no_windows():
  with pytest.raises(ValueError, match='points see each other'):
    get_functions('taptrv2').check_window(100)
