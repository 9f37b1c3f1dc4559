import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.data.procedural.pool import draw_examples
from tapjax.data.procedural.pool import make_draw
from tapjax.data.procedural.pool import PoolConfig
from tapjax.data.procedural.pool import vary_example
from tapjax.ops.sampling import read_at_time
from tapjax.types import Example
from tests.support.narrow import SCENE

HEIGHT, WIDTH, FRAMES, QUERIES = 6, 8, 5, 7
TINY = PoolConfig(
    video=SCENE,
    batch_size=2,
    num_videos=4,
    num_uses=2,
    num_queries=4,
)


def make_example(height, width, seed=0):
  """A video whose colors encode position and time, with random points."""
  generator = np.random.default_rng(seed)
  ramps = np.meshgrid(
      np.arange(FRAMES) + 0.0,
      np.arange(height) + 0.5,
      np.arange(width) + 0.5,
      indexing='ij',
  )
  frames = generator.integers(0, FRAMES, QUERIES)
  low, high = 0.5, np.array([width, height]) - 0.5
  targets = generator.uniform(low, high, (QUERIES, FRAMES, 2))
  occluded = generator.random((QUERIES, FRAMES)) < 0.3
  occluded[np.arange(QUERIES), frames] = False
  own = targets[np.arange(QUERIES), frames]
  queries = np.concatenate([frames[:, None], own[:, ::-1]], axis=1)
  return Example(
      jnp.asarray(np.stack(ramps, axis=-1), jnp.float32),
      jnp.asarray(queries, jnp.float32),
      jnp.asarray(targets, jnp.float32),
      jnp.asarray(occluded),
  )


def read_targets(example):
  """Returns the colors of the video at every target."""
  times = jnp.broadcast_to(
      jnp.arange(FRAMES, dtype=jnp.float32)[None, :, None],
      (QUERIES, FRAMES, 1),
  )
  points = jnp.concatenate([times, example.target_points[..., ::-1]], axis=-1)
  return read_at_time(example.video, points.reshape(-1, 3)).reshape(
      QUERIES, FRAMES, 3
  )


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(6, 8), (6, 6)], ids=str)
def test_targets_stay_on_what_they_show(shape):
  example = make_example(*shape)
  vary = jax.jit(vary_example)
  before = np.sort(np.asarray(read_targets(example)), axis=-1)
  changed = set()
  for seed in range(24):
    varied = vary(jax.random.key(seed), example)
    after = np.sort(np.asarray(read_targets(varied)), axis=-1)
    occluded = np.asarray(varied.occluded)
    is_reversed = not np.allclose(after, before, atol=1e-4)
    if is_reversed:
      after, occluded = after[:, ::-1], occluded[:, ::-1]
    np.testing.assert_allclose(after, before, atol=1e-4)
    np.testing.assert_array_equal(occluded, example.occluded)
    frames = np.asarray(varied.query_points[:, 0]).astype(int)
    own = np.asarray(varied.target_points)[np.arange(QUERIES), frames]
    np.testing.assert_allclose(own, varied.query_points[:, :0:-1], atol=1e-5)
    changed.add(np.asarray(varied.video[0, 0, :2]).round(2).tobytes())
  assert len(changed) > 12


@pytest.mark.slow
def test_drawn_videos_and_queries_differ():
  pool = jax.tree.map(
      lambda *arrays: jnp.stack(arrays),
      *(make_example(HEIGHT, WIDTH, seed) for seed in range(4)),
  )
  # Mirrored and reversed or not, frames of a video add up to the same.
  pool = pool._replace(
      video=pool.video + jnp.arange(4.0)[:, None, None, None, None] * 100
  )
  drawn = draw_examples(jax.random.key(1), pool, 4, 5)
  means = np.sort(np.asarray(drawn.video).mean(axis=(1, 2, 3, 4)))
  np.testing.assert_allclose(
      means, np.asarray(pool.video).mean(axis=(1, 2, 3, 4)), rtol=1e-5
  )
  for points in np.asarray(drawn.query_points):
    assert len(np.unique(points, axis=0)) == 5


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_batches_depend_on_the_step_alone():
  mesh = parallel.make_mesh(jax.devices()[:1])
  draw = make_draw(jax.random.key(0), TINY, mesh)
  batches = [jax.tree.map(np.asarray, draw(step)) for step in range(6)]
  later = make_draw(jax.random.key(0), TINY, mesh)(5)
  jax.tree.map(np.testing.assert_array_equal, batches[5], later)
  assert batches[0].video.shape == (2, 3, 16, 16, 3)
  assert batches[0].query_points.shape == (2, 4, 3)
  # A pool of four videos serves four steps of two.
  sums = [
      {round(float(np.abs(video).sum()), 1) for video in batch.video}
      for batch in batches
  ]
  assert len(set.union(*sums[:4])) <= 4
  assert not set.union(*sums[:4]) & set.union(*sums[4:])


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_each_device_makes_its_own_videos():
  config = dataclasses.replace(TINY, num_uses=1)
  mesh = parallel.make_mesh(jax.devices()[:2])
  batch = make_draw(jax.random.key(0), config, mesh)(0)
  assert batch.video.shape == (2, 3, 16, 16, 3)
  assert len(batch.video.sharding.device_set) == 2
  assert not np.array_equal(batch.video[0], batch.video[1])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'num_videos': 3}, 'multiple of batch_size'),
        ({'num_queries': 7}, 'between 1 and those of a video, 6'),
        ({'num_uses': 0}, 'num_uses must be at least 1'),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings, message):
  mesh = parallel.make_mesh(jax.devices()[:1])
  config = dataclasses.replace(TINY, **settings)
  with pytest.raises(ValueError, match=message):
    make_draw(jax.random.key(0), config, mesh)


def test_batch_must_fit_the_devices():
  mesh = parallel.make_mesh(jax.devices()[:4])
  with pytest.raises(ValueError, match='multiple of the 4 devices'):
    make_draw(jax.random.key(0), TINY, mesh)
