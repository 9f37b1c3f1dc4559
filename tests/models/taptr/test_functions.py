"""TAPTRv2 by itself: points that stand still, and samples at the queries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.taptr.functions import QueryFeatures
from tapjax.models.taptr.functions import TaptrFunctions
from tapjax.tracker import Tracker
from tests.support import golden
from tests.support import narrow

pytestmark = pytest.mark.slow


def make_still_tracker():
  """A TAPTRv2 that never moves a point."""
  functions = TaptrFunctions(narrow.TAPTR)
  params = golden.make_random_params(functions)
  weights = dict(params.params)
  last = f'boxes_{narrow.TAPTR.decoder_layers - 1}/~/linear_2'
  for module in ('decoder_0/~/frame_attention/~/offsets', last):
    name = f'taptr/~/{module}'
    weights[name] = jax.tree.map(jnp.zeros_like, weights[name])
  return Tracker(
      'taptrv2', narrow.TAPTR, functions, params._replace(params=weights)
  )


def test_still_points_keep_the_query():
  """In the caller's pixels, and within the thousandth that shares stop at."""
  frames = np.zeros((3, 48, 72, 3), np.uint8)
  points = np.asarray(
      [[0, 24, 36], [1, 10.5, 20.5], [2, 0.75, 71.25], [1, 48, 0], [0, 0, 72]],
      np.float32,
  )
  tracks = make_still_tracker().track(frames, points)
  expected = points[:, None, :0:-1].repeat(3, axis=1)
  # Half a pixel of the network from the frame, and a thousandth of it.
  margins = np.asarray([72, 48]) * (0.5 + 31 / 1001) / 32
  expected = np.clip(expected, margins, [72, 48] - margins)
  np.testing.assert_allclose(tracks.positions, expected, atol=1e-3)


def test_queries_are_read_where_they_are():
  """With a level's outermost cells at the frame's outermost pixels."""
  functions = TaptrFunctions(narrow.TAPTR)
  params = golden.make_random_params(functions)
  weights = dict(params.params)
  weights['taptr/~/describer'] = {'w': jnp.eye(8), 'b': jnp.zeros(8)}
  params = params._replace(params=weights)
  # Cells of the one level hold their column and their row.
  y, x = np.mgrid[:8, :8].astype(np.float32).reshape(2, -1)
  tokens = np.zeros((1, 2, 64, 8), np.float32)
  tokens[0, 1, :, :2] = np.stack([x, y], axis=-1)
  points = [[1, 0.5, 31.5], [0.8, 16, 0.5 + 31 / 7], [1, 0, 32], [0, 16, 16]]
  described = jax.jit(functions.describe_queries)(
      params, jnp.asarray(tokens), jnp.asarray([points])
  )
  expected = [[7, 0], [1, 3.5], [7, 0], [0, 0]]
  np.testing.assert_allclose(described.vectors[0, :, :2], expected, atol=1e-5)


def test_memory_is_refused():
  functions = TaptrFunctions(narrow.TAPTR)
  params = golden.make_random_params(functions)
  tokens, points = jnp.zeros((1, 2, 64, 8)), jnp.zeros((1, 1, 3))
  queries = QueryFeatures(jnp.zeros((1, 1, 8)), points)
  state = functions.initialize_tracks(params, tokens, queries, points)
  with pytest.raises(ValueError, match='causal'):
    functions.refine_tracks(params, tokens, queries, state, ())


def test_a_window_by_the_caller_is_refused():
  functions = TaptrFunctions(narrow.TAPTR)
  with pytest.raises(ValueError, match='window must be None'):
    functions.list_segments(30, np.asarray([0]), window=8)
