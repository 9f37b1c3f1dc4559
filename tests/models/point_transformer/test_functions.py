"""The point transformer alone: distinct tokens, and refused settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tests.support import golden
from tests.support import narrow

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('token_time', ['published', 'frame'])
def test_the_published_index_is_no_time(token_time):
  """With as many points as frames, frames may come in any order."""
  config = dataclasses.replace(
      narrow.POINT_TRANSFORMER, num_points=4, token_time=token_time
  )
  functions = PointTransformerFunctions(config)
  params = golden.make_random_params(functions)
  video = jax.random.uniform(jax.random.key(0), (1, 4, 32, 32, 3))
  points = jax.random.uniform(jax.random.key(1), (1, 4, 2))
  predict = jax.jit(functions.predict_clips)
  order = jnp.asarray([2, 0, 3, 1])
  there = predict(params, video, points).positions_unit[:, order]
  back = predict(params, video[:, order], points).positions_unit
  assert (np.abs(there - back).max() < 1e-5) == (token_time == 'published')


def test_short_videos_are_not_padded():
  functions = PointTransformerFunctions(narrow.POINT_TRANSFORMER)
  assert functions.shortest_padded == narrow.POINT_TRANSFORMER.window


def test_a_window_by_the_caller_is_refused():
  functions = PointTransformerFunctions(narrow.POINT_TRANSFORMER)
  with pytest.raises(ValueError, match='window must be None'):
    functions.list_segments(30, np.asarray([0]), window=8)


def test_memory_is_refused():
  functions = PointTransformerFunctions(narrow.POINT_TRANSFORMER)
  params = golden.make_random_params(functions)
  grids, points = jnp.zeros((1, 2, 8, 8, 8)), jnp.zeros((1, 1, 3))
  state = functions.initialize_tracks(params, grids, points, points)
  with pytest.raises(ValueError, match='causal'):
    functions.refine_tracks(params, grids, points, state, ())
