"""Learning to match: the loss against a plain loop, and features that learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.training.matching import compute_matching_losses
from tapjax.training.matching import make_matching_update
from tapjax.training.matching import MatchingConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import make_train_state
from tapjax.training.step import StepConfig
from tapjax.types import Example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

SIDE = 32
MODEL = TapirConfig(
    resolution=(SIDE, SIDE),
    initial_resolution=(SIDE, SIDE),
    channels=(4, 4, 8, 8),
    num_iterations=1,
    mixer_blocks=1,
    mixer_channels=8,
)
CONFIG = MatchingConfig(
    fine_reach=2.5,
    optimizer=OptimizerConfig(
        peak_lr=1e-2, warmup_steps=1, num_steps=200, weight_decay=0.0
    ),
)


@functools.cache
def get_functions():
  return TapirFunctions(MODEL)


def make_batch(seed=0, size=2, num_frames=3, num_points=5):
  """Noise that moves as a whole, and points that move with it."""
  generator = np.random.default_rng(seed)
  video, targets = [], []
  for _ in range(size):
    canvas = generator.uniform(-1, 1, (2 * SIDE, 2 * SIDE, 3))
    shifts = generator.integers(0, SIDE // 2, (num_frames, 2))
    video.append([canvas[y : y + SIDE, x : x + SIDE] for y, x in shifts])
    places = generator.uniform(SIDE // 2, SIDE, (num_points, 1, 2))
    targets.append(places - shifts[None, :, ::-1])
  targets = np.asarray(targets)
  occluded = np.any((targets < 0) | (targets >= SIDE), axis=-1)
  occluded |= generator.random(occluded.shape) < 0.2
  return Example(
      jnp.asarray(np.asarray(video), jnp.float32),
      jnp.zeros((size, num_points, 3)),
      jnp.asarray(targets, jnp.float32),
      jnp.asarray(occluded),
  )


def compute_plainly(grid, positions, visible, temperature, reach):
  """The loss of one video and the share of right matches, pair by pair."""
  num_frames, height, width, _ = grid.shape
  scale = width / SIDE
  losses, rights = [], []

  def read(frame, place):
    x, y = place * scale - 0.5
    total = 0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
      for column in (int(np.floor(x)), int(np.floor(x)) + 1):
        weight = (1 - abs(row - y)) * (1 - abs(column - x))
        held = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
        total = total + weight * grid[frame][held]
    return total

  for a in range(num_frames):
    for b in range(num_frames):
      for point in range(positions.shape[0]):
        if a == b or not (visible[point, a] and visible[point, b]):
          continue
        vector = read(a, positions[point, a])
        place = positions[point, b] * scale
        scores, offsets = [], []
        for row in range(height):
          for column in range(width):
            offset = max(
                abs(row + 0.5 - place[1]), abs(column + 0.5 - place[0])
            )
            if offset <= reach:
              scores.append(vector @ grid[b, row, column] / temperature)
              offsets.append(offset)
        same = vector @ read(b, positions[point, b]) / temperature
        losses.append(np.log(np.sum(np.exp(scores))) - same)
        rights.append(offsets[int(np.argmax(scores))] <= 2)
  return np.mean(losses), np.mean(rights)


def test_losses_equal_a_plain_loop():
  functions = get_functions()
  params = functions.init(jax.random.key(0))
  batch = make_batch()
  losses = jax.jit(
      lambda params, batch: compute_matching_losses(
          functions, params, batch, CONFIG
      )
  )(params, batch)
  grids = jax.tree.map(np.asarray, functions.encode_video(params, batch.video))
  for grid, reach, ours, right in (
      (grids[0].coarse, np.inf, losses.coarse, losses.accuracy),
      (grids[0].fine, CONFIG.fine_reach, losses.fine, None),
  ):
    rows = [
        compute_plainly(
            grid[video].astype(np.float64),
            np.asarray(batch.target_points[video], np.float64),
            ~np.asarray(batch.occluded[video]),
            CONFIG.temperature,
            reach,
        )
        for video in range(2)
    ]
    loss, accuracy = np.mean(rows, axis=0)
    np.testing.assert_allclose(ours, loss, rtol=1e-4)
    if right is not None:
      np.testing.assert_allclose(right, accuracy, rtol=1e-6)


def test_hidden_points_count_for_nothing():
  functions = get_functions()
  params = functions.init(jax.random.key(0))
  batch = make_batch()
  moved = jnp.where(
      batch.occluded[..., None], batch.target_points + 1e3, batch.target_points
  )

  @jax.jit
  @jax.value_and_grad
  def compute(params, targets):
    losses = compute_matching_losses(
        functions, params, batch._replace(target_points=targets), CONFIG
    )
    return losses.coarse + losses.fine

  for targets in (batch.target_points, moved):
    loss, gradients = compute(params, targets)
    assert jnp.isfinite(loss)
    assert all(
        jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(gradients)
    )
  np.testing.assert_allclose(
      compute(params, moved)[0],
      compute(params, batch.target_points)[0],
      rtol=1e-6,
  )
  none = batch._replace(occluded=jnp.ones_like(batch.occluded))
  assert compute_matching_losses(functions, params, none, CONFIG).coarse == 0


def test_features_learn_to_match():
  mesh = parallel.make_mesh(jax.devices()[:2])
  functions = get_functions()
  update = make_matching_update(functions, CONFIG, mesh)
  state = make_train_state(
      functions, StepConfig(optimizer=CONFIG.optimizer), jax.random.key(0)
  )
  # Copies: the state is given up.
  before = jax.tree.map(np.array, state.params.params)
  state = parallel.replicate(mesh, state)
  metrics = []
  for step in range(60):
    state, metric = update(state, parallel.shard(mesh, make_batch(step)))
    metrics.append(jax.tree.map(float, metric))
  first, last = (
      np.mean([metric.loss for metric in part])
      for part in (metrics[:10], metrics[-10:])
  )
  assert last < 0.8 * first
  after = jax.tree.map(np.asarray, state.params.params)
  # What is no feature stays as it was.
  for module, arrays in after.items():
    changed = any(
        not np.array_equal(array, before[module][name])
        for name, array in arrays.items()
    )
    assert changed == ('resnet' in module), module


def test_devices_change_nothing():
  states = []
  config = dataclasses.replace(
      CONFIG,
      optimizer=dataclasses.replace(CONFIG.optimizer, kind='sgd'),
  )
  for num_devices in (1, 2):
    mesh = parallel.make_mesh(jax.devices()[:num_devices])
    update = make_matching_update(get_functions(), config, mesh)
    state = make_train_state(
        get_functions(),
        StepConfig(optimizer=config.optimizer),
        jax.random.key(0),
    )
    # Every video has as many pairs, and so the same share of the mean.
    batch = make_batch()
    batch = batch._replace(occluded=jnp.zeros_like(batch.occluded))
    state, _ = update(
        parallel.replicate(mesh, state), parallel.shard(mesh, batch)
    )
    states.append(jax.tree.map(np.asarray, state.params.params))
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), *states
  )
