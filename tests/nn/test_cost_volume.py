import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.nn.cost_volume import CostVolumeHead
from tapjax.nn.cost_volume import NarrowConv
from tapjax.nn.cost_volume import score_positions


@pytest.mark.parametrize(('inputs', 'outputs'), [(1, 4), (4, 1)])
def test_narrow_convolutions_and_their_gradients(inputs, outputs):
  ours, theirs = (
      hk.transform(lambda x, make=make: make()(x))
      for make in (
          lambda: NarrowConv(outputs, 'conv'),
          lambda: hk.Conv2D(outputs, 3, name='conv'),
      )
  )
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 5, 6, inputs))
  params = ours.init(keys[1], x)
  params['conv']['b'] += 0.5
  cotangent = jax.random.normal(keys[2], (2, 5, 6, outputs))

  @functools.partial(jax.jit, static_argnums=0)
  def differentiate(model):
    result, pull = jax.vjp(lambda *a: model.apply(a[0], None, a[1]), params, x)
    return result, pull(cotangent)

  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
      differentiate(ours),
      differentiate(theirs),
  )
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(
      jnp.shape, theirs.init(keys[1], x)
  )


def test_scores_are_chances_between_cells():
  chances = np.random.default_rng(0).uniform(0.1, 1, (4, 3, 5))
  positions = [[1.5, 2.5], [2.0, 1.5], [3.25, 1.75], [-4.0, 9.0]]
  expected = [
      chances[0, 2, 1],
      chances[1, 1, [1, 2]].mean(),
      chances[2, [1, 2], 2] @ [0.75, 0.25] * 0.25
      + chances[2, [1, 2], 3] @ [0.75, 0.25] * 0.75,
      # Beyond the border, that of the nearest cell.
      chances[3, 2, 0],
  ]
  scores = jax.jit(score_positions)(jnp.log(chances), jnp.asarray(positions))
  np.testing.assert_allclose(jnp.exp(scores), expected, rtol=1e-5)


def test_scores_pull_where_a_heatmap_is_wrong():
  """The logit of the target's cell grows, even with a distant peak."""
  logits = jnp.zeros((1, 8, 8)).at[0, 7, 7].set(30.0)

  def score(logits):
    heatmap = jax.nn.log_softmax(logits, axis=(1, 2))
    return score_positions(heatmap, jnp.asarray([[1.5, 0.5]]))[0]

  gradient = jax.jit(jax.grad(score))(logits)[0]
  np.testing.assert_allclose(gradient[0, 1], 1, atol=1e-5)
  np.testing.assert_allclose(gradient[7, 7], -1, atol=1e-5)
  assert np.all(np.isfinite(gradient))


@pytest.mark.slow
@pytest.mark.parametrize('pooled_stride', [2, 3])
def test_cells_count_by_what_they_resemble_more(pooled_stride):
  def call(*arguments):
    head = CostVolumeHead(
        num_logits=2,
        temperature=20.0,
        rectify_pooled=True,
        pooled_stride=pooled_stride,
        platform='cpu',
        name='head',
    )
    return head(*arguments)

  model = hk.transform(call)
  # Every cell is an axis of its own.
  grid = jnp.eye(36).reshape(6, 6, 36)
  vectors, others = jnp.eye(36)[None, 8], jnp.eye(36)[None, 27]
  params = model.init(jax.random.key(0), grid, vectors)

  def estimate(vectors, others=None):
    return model.apply(params, None, grid, vectors, None, others)

  def check(ours, theirs):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours, theirs
    )

  check(estimate(vectors, vectors), estimate(vectors))
  check(estimate(vectors, others), estimate(others, vectors))
  # Both are found, as where a single vector resembles both cells.
  check(estimate(vectors, others), estimate(vectors + others))
  assert not np.allclose(
      estimate(vectors, others).heatmap, estimate(vectors).heatmap, atol=1e-3
  )
