"""Self-training: what is believed, what counts, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.data.procedural.videos import make_batch
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.data.unlabeled.clips import UnlabeledBatch
from tapjax.data.unlabeled.degradation import DegradationConfig
from tapjax.models.contract import TrackerFunctions
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.training import bootstrap
from tapjax.training.bootstrap import SelfTrainingConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.types import TrackState
from tests.support import golden

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

MODEL = TapirConfig(
    resolution=(32, 32),
    initial_resolution=(32, 32),
    channels=(4, 4, 4, 4),
    num_iterations=1,
    mixer_blocks=1,
    mixer_channels=8,
    temporal='past',
    # Tracks of random weights count too.
    visibility_threshold=0.01,
)
STILL = DegradationConfig(least_scale=1.0, jpeg_chance=0.0)
CONFIG = SelfTrainingConfig(
    optimizer=OptimizerConfig(
        peak_lr=1e-3, warmup_steps=1, num_steps=50, weight_decay=0.0
    ),
    degradation=STILL,
    cycle_threshold=1e6,
    least_confidence=0.0,
)


@functools.cache
def get_functions():
  return TapirFunctions(MODEL)


@functools.cache
def get_params(seed=0):
  return golden.make_random_params(get_functions(), seed)


def make_unlabeled(count=2, seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  points = jax.random.uniform(keys[1], (count, 4, 2), maxval=32.0)
  times = jnp.asarray([0.0, 1, 2, 3]).reshape(1, 4, 1)
  return UnlabeledBatch(
      jax.random.uniform(keys[0], (count, 4, 32, 32, 3), minval=-1.0),
      jnp.concatenate([jnp.broadcast_to(times, (count, 4, 1)), points], -1),
  )


class Known(TrackerFunctions):
  """A tracker whose tracks are given."""

  config = MODEL
  platform = 'cpu'

  def __init__(self, state):
    self._state = state

  def init(self, key):
    return get_functions().init(key)

  def encode_video(self, params, video, num_frames=None):
    return ()

  def describe_queries(self, params, features, query_points):
    return ()

  def initialize_tracks(
      self,
      params,
      features,
      query_features,
      query_points,
      memory=None,
      *,
      target_points=None,
  ):
    return self._state

  def refine_tracks(
      self,
      params,
      features,
      query_features,
      state,
      memory=None,
      valid=None,
      query_points=None,
      *,
      target_points=None,
  ):
    return jax.tree.map(lambda array: jnp.stack([array] * 2), state), None

  def finalize_tracks(self, states):
    return get_functions().finalize_tracks(states)


def fake(positions, *, occluded=False, certain=True):
  """Functions whose tracks are what one says."""
  positions = jnp.asarray(positions, jnp.float32)
  shape = positions.shape[:-1]
  occlusion = jnp.broadcast_to(
      jnp.where(jnp.asarray(occluded), 9.0, -9.0), shape
  )
  uncertainty = jnp.broadcast_to(
      jnp.where(jnp.asarray(certain), -9.0, 9.0), shape
  )
  return Known(TrackState(positions, occlusion, uncertainty))


def test_pseudo_labels_are_what_the_teacher_sees():
  positions = np.asarray(
      [
          [[5, 5], [6, 6], [40, 6], [8, 8]],  # Leaves the frame.
          [[1, 1], [2, 2], [3, 3], [4, 4]],
          [[9, 9], [9, 9], [9, 9], [9, 9]],
      ]
  )
  occluded = np.zeros((1, 3, 4), bool)
  occluded[0, 1] = [True, False, True, True]
  certain = np.ones((1, 3, 4), bool)
  certain[0, 2] = False
  batch = UnlabeledBatch(
      jnp.zeros((1, 4, 32, 32, 3)),
      jnp.asarray([[[0.0, 5, 5], [0, 1, 1], [2, 9, 8]]]),
  )
  functions = fake(positions[None], occluded=occluded, certain=certain)

  def make(seed):
    return bootstrap.make_pseudo_labels(
        functions, get_params(), batch, 0.25, jax.random.key(seed)
    )

  labels = make(0)
  np.testing.assert_allclose(labels.target_points[0], positions)
  np.testing.assert_array_equal(labels.occluded, occluded)
  # Hidden points count, and those one is not sure of do not.
  np.testing.assert_array_equal(labels.trusted, certain | occluded)
  starts = [np.asarray(make(seed).query_points[0]) for seed in range(40)]
  assert {row[0, 0] for row in starts} == {0, 1, 3}
  for row in starts:
    t = int(row[0, 0])
    np.testing.assert_allclose(row[0, :0:-1], positions[0, t])
    np.testing.assert_allclose(row[1], [1, 2, 2])
    # None is sure: the query as it was.
    np.testing.assert_allclose(row[2], [2, 9, 8])


def test_tracks_count_that_come_back_and_are_seen():
  positions = np.full((4, 4, 2), 10.0)
  positions[1, 2] += [0.4, 0]  # 3.2 pixels of 256x256.
  positions[2, 2] += [0.4, 0.4]  # 4.5 pixels.
  occluded = np.zeros((1, 4, 4), bool)
  occluded[0, 3, 2] = True
  functions = fake(positions[None], occluded=occluded)
  states = bootstrap.predict_states(
      functions,
      get_params(),
      jnp.zeros((1, 4, 32, 32, 3)),
      jnp.zeros((1, 4, 3)),
  ).states
  queries = jnp.broadcast_to(
      jnp.asarray([2.0, 10, 10]).reshape(1, 1, 3), (1, 4, 3)
  )
  returned = bootstrap.find_returned(functions, states, queries, 4.0)
  np.testing.assert_array_equal(returned, [[True, True, False, False]])


def compute(functions, config, batch, seed=0):
  params = get_params()

  @jax.jit
  def compute_all(batch, key):
    return bootstrap.compute_self_training_losses(
        functions, config, params, params, batch, key
    )

  return compute_all(batch, jax.random.key(seed))


def test_a_perfect_student_has_no_position_loss():
  """However frames move: what it says is taken back to the clean video."""
  batch = make_unlabeled()
  positions = np.asarray(batch.query_points)[:, :, None, :0:-1].repeat(4, 2)
  still = fake(positions)
  losses, (kept, counted) = compute(still, CONFIG, batch)
  np.testing.assert_allclose(losses.position, 0, atol=1e-6)
  assert float(kept) == float(counted) == 1
  # Where the frame has moved, standing still on the canvas is wrong.
  moving = dataclasses.replace(
      CONFIG, degradation=DegradationConfig(least_scale=0.5, jpeg_chance=0.0)
  )
  losses, _ = compute(still, moving, batch)
  assert losses.position.min() > 0.01
  strict = dataclasses.replace(moving, cycle_threshold=1e-3)
  losses, (kept, counted) = compute(still, strict, batch)
  assert float(losses.total) == float(kept) == float(counted) == 0


@functools.cache
def get_update(num_devices, config):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  return mesh, bootstrap.make_self_training_update(
      get_functions(), config, mesh
  )


def run(config, count, num_devices=1, labeled=None):
  mesh, update = get_update(num_devices, config)
  # The first state is given up.
  params = jax.tree.map(jnp.copy, get_params())
  state = bootstrap.make_self_training_state(params, config)
  state = parallel.replicate(mesh, state)
  batch = parallel.shard(mesh, make_unlabeled())
  if labeled is not None:
    labeled = parallel.shard(mesh, labeled)
  history = []
  for _ in range(count):
    state, metrics = update(state, (batch, labeled), jax.random.key(1))
    history.append(parallel.fetch(metrics))
  return parallel.fetch(state), history


def test_it_learns_and_the_teacher_follows():
  config = dataclasses.replace(CONFIG, teacher_decay=0.9)
  before = get_params().params
  state, history = run(config, 12)
  assert all(np.isfinite(metrics.loss) for metrics in history)
  # The teacher goes on as well, but not as far.
  assert np.mean([m.loss for m in history[-3:]]) < history[0].loss
  one, _ = run(config, 1)
  expected = jax.tree.map(
      lambda old, new: 0.9 * np.asarray(old) + 0.1 * new,
      before,
      one.params.params,
  )
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=1e-6),
      one.optimizer.teacher.params,
      expected,
  )
  assert int(state.num_updates) == 12


@pytest.mark.heavy
def test_labeled_videos_are_learned_from_as_well():
  video = ProceduralConfig(
      num_frames=4,
      resolution=(32, 32),
      num_objects=2,
      texture_size=8,
      num_leaves=2,
      samples_per_pixel=1,
      num_queries=4,
  )
  labeled = make_batch(jax.random.key(0), video, 2)
  alone, _ = run(CONFIG, 2)
  both, metrics = run(CONFIG, 2, labeled=labeled)
  assert alone.optimizer.labeled.inner_state[0].count == 0
  assert both.optimizer.labeled.inner_state[0].count == 2
  assert metrics[0].labeled_loss > 0
  assert any(
      not np.array_equal(a, b)
      for a, b in zip(
          jax.tree.leaves(alone.params),
          jax.tree.leaves(both.params),
          strict=True,
      )
  )
