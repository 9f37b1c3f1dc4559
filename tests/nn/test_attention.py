import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.nn.attention import MultiHeadAttention
from tapjax.nn.embeddings import embed_sines


def attend_slowly(params, x, values, mask, num_heads):
  """Reference by plain loops over heads and queries."""
  channels = x.shape[-1]
  width = channels // num_heads
  w, b = params['attention']['w'], params['attention']['b']
  query, key = (
      x @ w[:, part * channels : (part + 1) * channels]
      + b[part * channels : (part + 1) * channels]
      for part in (0, 1)
  )
  value = values @ w[:, 2 * channels :] + b[2 * channels :]
  mixed = np.zeros_like(x)
  for batch, row, head in np.ndindex(*x.shape[:2], num_heads):
    part = slice(head * width, (head + 1) * width)
    seen = np.flatnonzero(mask[batch, row])
    scores = key[batch, seen, part] @ query[batch, row, part] / width**0.5
    weights = np.exp(scores) / np.exp(scores).sum()
    mixed[batch, row, part] = weights @ value[batch, seen, part]
  output = params['attention/~/output']
  return mixed @ output['w'] + output['b']


@pytest.mark.parametrize('masked', [True, False])
def test_attention_equals_a_slow_one(masked):
  generator = np.random.default_rng(0)
  x, values = generator.normal(size=(2, 2, 5, 6)).astype(np.float32)
  mask = np.ones((2, 5, 5), bool)
  if masked:
    mask = (generator.uniform(size=(2, 5, 5)) < 0.5) | np.eye(5, dtype=bool)
  attention = hk.without_apply_rng(
      hk.transform(
          lambda *inputs: MultiHeadAttention(6, 3, 'attention')(*inputs)
      )
  )
  inputs = [jnp.asarray(x), jnp.asarray(values)]
  if masked:
    inputs.append(jnp.asarray(mask))
  params = jax.jit(attention.init)(jax.random.key(0), *inputs)
  params = jax.tree.map(
      lambda leaf: np.float32(leaf + generator.normal(size=leaf.shape) / 3),
      params,
  )
  expected = attend_slowly(params, x, values, mask, num_heads=3)
  ours = jax.jit(attention.apply)(params, *inputs)
  np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_sines_by_hand():
  """With four channels the second pair is slower by the root of ten."""
  embedded = embed_sines(jnp.asarray([[0.25, 0.0]]), 4, 10.0)
  slow = np.pi / 2 / np.sqrt(10)
  expected = [1, 0, np.sin(slow), np.cos(slow), 0, 1, 0, 1]
  np.testing.assert_allclose(embedded[0], expected, atol=1e-6)
