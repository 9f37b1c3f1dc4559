"""Parts of TAPTRv2's layers."""

import jax
import jax.numpy as jnp
import numpy as np

from tapjax.models.taptr import layers
from tests.support import narrow


def test_a_logit_undoes_a_sigmoid_and_is_finite_everywhere():
  values = jnp.asarray([0.01, 0.3, 0.9])
  np.testing.assert_allclose(
      jax.nn.sigmoid(layers.compute_logit(values)), values, rtol=1e-5
  )
  ends = layers.compute_logit(jnp.asarray([-1.0, 0.0, 1.0, 7.0]))
  limit = np.log(1e3)
  np.testing.assert_allclose(ends, [-limit, -limit, limit, limit], rtol=1e-4)


def test_boxes_are_embedded_side_by_side():
  boxes = jnp.asarray([[[0.1, 0.2, 0.3, 0.4]]])
  embedded = np.asarray(layers.embed_boxes(boxes, 8)).reshape(4, -1)
  for axis, part in enumerate([1, 0, 2, 3]):
    moved = boxes.at[..., part].add(0.05)
    changed = np.asarray(layers.embed_boxes(moved, 8)).reshape(4, -1)
    is_other = (changed != embedded).any(axis=-1)
    np.testing.assert_array_equal(is_other, np.arange(4) == axis)


def test_heads_look_into_different_directions():
  config = narrow.TAPTR
  shape = (config.num_heads, config.num_levels, config.num_samples, 2)
  offsets = layers._initialize_offsets(
      config, (int(np.prod(shape)),), np.float32
  )
  first = np.asarray(offsets).reshape(shape)[:, 0, 0]
  np.testing.assert_allclose(first, [[1, 0], [-1, 0]], atol=1e-6)
