"""Appearance templates, and patches around queries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models.contract import Params
from tapjax.models.tapir_tiny.appearance import correlate_query_patches
from tapjax.models.tapir_tiny.appearance import FeatureGrids
from tapjax.models.tapir_tiny.appearance import join_template
from tapjax.models.tapir_tiny.appearance import pick_templates
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions


def test_query_and_template_are_joined_to_unit_length():
  joined = join_template(
      jnp.asarray([[0.0, 4.0]]), jnp.asarray([[6.0, 0.0]]), weight=0.5
  )
  np.testing.assert_allclose(joined, [[0.6, 0.8]], rtol=1e-6)


def test_lone_templates_are_those_of_tracks_seen_so_far():
  templates = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
  vectors = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(
      pick_templates(vectors, templates, weight=0.5),
      [[0.3, 0.4], [0.0, 1.0]],
      rtol=1e-6,
  )


def test_all_around_a_query_is_correlated_with_all_around_a_position():
  config = TapirTinyConfig(
      resolution=(32, 32),
      channels=(5, 5, 5, 5),
      support_radius=1,
      stem_support_radius=1,
  )
  functions = TapirTinyFunctions(config)
  generator = np.random.default_rng(0)
  stem, fine, coarse = (
      jnp.asarray(generator.normal(size=(1, 2, side, side, 5)), jnp.float32)
      for side in (16, 8, 4)
  )
  features = (FeatureGrids(fine, coarse, (), stem),)
  # The middles of the cells in row 5, column 2, and in row 3, column 4.
  query = jnp.asarray([[[1.0, 5.5 * 4, 2.5 * 4]]])
  position = jnp.asarray([[[4.5 * 4, 3.5 * 4]]])
  (vectors,) = jax.jit(functions.describe_queries)(
      Params({}, {}), features, query
  )
  supports = np.asarray(fine)[0, 1, 4:7, 1:4] / 3
  np.testing.assert_allclose(
      vectors.supports[0, 0].reshape(3, 3, 5), supports, rtol=1e-6
  )
  correlate = functools.partial(
      correlate_query_patches, initial=(32, 32), radius=3, platform='cpu'
  )
  around, around_stem = jax.jit(correlate)(
      jax.tree.map(lambda array: array[0, :1], features[0]),
      jax.tree.map(lambda array: array[0], vectors),
      position,
  )
  assert around.shape == around_stem.shape == (1, 1, 9 * 49)
  expected = np.einsum(
      'abc,yxc->abyx', supports, np.asarray(fine)[0, 0, 0:7, 1:8]
  )
  np.testing.assert_allclose(
      around[0, 0].reshape(3, 3, 7, 7), expected, atol=1e-5
  )

  def read_contrasts(frame, y, x, radius):
    """Of the stem around the corner of four cells, between which it lies."""
    reach = slice(y - radius - 1, y + radius + 1)
    cells = np.array(stem)[0, frame, reach, x - radius - 1 : x + radius + 1]
    cells = (cells[1:] + cells[:-1]) / 2
    cells = (cells[:, 1:] + cells[:, :-1]) / 2
    cells -= np.mean(cells, axis=(0, 1), keepdims=True)
    return cells / np.sqrt(np.mean(np.sum(cells**2, axis=-1)) + 0.02)

  expected = np.einsum(
      'abc,yxc->abyx',
      read_contrasts(1, 11, 5, 1) / 3,
      read_contrasts(0, 7, 9, 3),
  )
  np.testing.assert_allclose(
      around_stem[0, 0].reshape(3, 3, 7, 7), expected, atol=1e-5
  )
