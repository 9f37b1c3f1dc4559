"""Properties of procedural examples, on small ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.data.procedural.videos import make_batch
from tapjax.data.procedural.videos import make_example
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.ops.sampling import read_at_time

pytestmark = pytest.mark.slow

CONFIG = ProceduralConfig(num_frames=6, resolution=(64, 80), num_queries=24)
NUM_EXAMPLES = 8


@functools.cache
def get_maker():
  return jax.jit(lambda key: make_example(key, CONFIG))


@functools.cache
def get_examples():
  keys = jax.random.split(jax.random.key(0), NUM_EXAMPLES)
  return [jax.tree.map(np.asarray, get_maker()(key)) for key in keys]


def test_shapes_and_ranges():
  for example in get_examples():
    assert example.video.shape == (6, 64, 80, 3)
    assert example.query_points.shape == (24, 3)
    assert example.target_points.shape == (24, 6, 2)
    assert example.occluded.shape == (24, 6)
    assert example.occluded.dtype == bool
    assert np.isfinite(example.target_points).all()
    assert -1 <= example.video.min() < example.video.max() <= 1


def test_queries_are_seen_where_they_are():
  for example in get_examples():
    rows = np.arange(24)
    frames = example.query_points[:, 0].astype(int)
    np.testing.assert_array_equal(frames, example.query_points[:, 0])
    np.testing.assert_array_equal(
        example.target_points[rows, frames], example.query_points[:, :0:-1]
    )
    assert not example.occluded[rows, frames].any()


def test_points_outside_are_occluded():
  outside = []
  for example in get_examples():
    x, y = np.moveaxis(example.target_points, -1, 0)
    beyond = (x < 0) | (y < 0) | (x >= 80) | (y >= 64)
    assert example.occluded[beyond].all()
    outside.append(beyond.mean())
  assert np.mean(outside) > 0.005


def test_points_are_hidden_by_others_now_and_then():
  inside = []
  for example in get_examples():
    x, y = np.moveaxis(example.target_points, -1, 0)
    within = (x >= 0) & (y >= 0) & (x < 80) & (y < 64)
    inside.append(example.occluded[within].mean())
  assert 0.01 < np.mean(inside) < 0.6


def test_keys_make_the_example():
  first, second = get_examples()[:2]
  again = get_maker()(jax.random.split(jax.random.key(0), NUM_EXAMPLES)[0])
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert np.abs(first.video - second.video).mean() > 0.05


@pytest.mark.heavy
def test_batch_is_made_of_examples():
  key = jax.random.key(3)
  batch = jax.jit(lambda key: make_batch(key, CONFIG, 2))(key)
  for i, single in enumerate(jax.random.split(key, 2)):
    example = get_maker()(single)
    np.testing.assert_allclose(batch.video[i], example.video, atol=2e-3)
    np.testing.assert_allclose(
        batch.target_points[i], example.target_points, atol=1e-3
    )


def measure_difference(example, shift):
  """Returns differences of colors at the targets to those at the queries."""
  times = np.broadcast_to(np.arange(6.0)[None, :, None], (24, 6, 1))
  points = np.concatenate(
      [times, example.target_points[..., ::-1] + shift], axis=-1
  ).astype(np.float32)
  video = jnp.asarray(example.video)
  colors = read_at_time(video, jnp.asarray(points.reshape(-1, 3)))
  colors = np.asarray(colors).reshape(24, 6, 3)
  own = np.asarray(read_at_time(video, jnp.asarray(example.query_points)))
  difference = np.abs(colors - own[:, None]).mean(axis=-1)
  return difference[~example.occluded].mean()


def test_targets_look_like_their_queries():
  """Colors agree at the targets better than at displaced positions."""
  on_target = np.mean([measure_difference(e, 0) for e in get_examples()])
  for shift in ([3, 0], [-3, 0], [0, 3], [0, -3]):
    beside = np.mean(
        [measure_difference(e, np.asarray(shift)) for e in get_examples()]
    )
    assert on_target < 0.8 * beside
