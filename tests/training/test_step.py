"""The update: it learns, and any number of devices does the same."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tapjax import parallel
from tapjax.models import tapnet
from tapjax.models.contract import describe_params
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions
from tapjax.training.losses import LossConfig
from tapjax.training.optimizers import make_optimizer
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.optimizers import select_modules
from tapjax.training.step import compute_example_losses
from tapjax.training.step import make_train_state
from tapjax.training.step import make_update
from tapjax.training.step import StepConfig
from tapjax.types import Example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

# Guesses on a frame build on the refined frame before it.
CONFIG = TapirTinyConfig(
    resolution=(32, 32),
    channels=(4, 4, 4, 4),
    strides=(1, 2, 2, 1),
    mixer_blocks=1,
    mixer_channels=8,
    support_radius=0,
    stem_support_radius=0,
    template_weight=1.0,
    motion_weight=2.0,
    frames_at_once=1,
)
# Guesses do not depend on what is refined.
GUESSING = TapirConfig(
    resolution=(32, 32),
    initial_resolution=(32, 32),
    channels=(4, 4, 4, 4),
    num_iterations=1,
    mixer_blocks=1,
    mixer_channels=8,
    temporal='past',
)
# Not Adam: a gradient of zero, except for rounding, makes it follow rounding.
STEP = StepConfig(
    losses=LossConfig(heatmap_weight=0.3),
    optimizer=OptimizerConfig(
        kind='sgd', peak_lr=1e-2, warmup_steps=1, num_steps=100, max_norm=1.0
    ),
)


def make_batch(size, seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  positions = jax.random.uniform(keys[1], (size, 3, 2, 2), maxval=32.0)
  query_points = jnp.concatenate(
      [jnp.zeros((size, 3, 1)), positions[:, :, 0, ::-1]], axis=-1
  )
  return Example(
      video=jax.random.uniform(keys[0], (size, 2, 32, 32, 3), minval=-1.0),
      query_points=query_points,
      target_points=positions,
      occluded=jax.random.bernoulli(keys[2], 0.2, (size, 3, 2)),
  )


@functools.cache
def get_functions():
  return TapirTinyFunctions(CONFIG)


def make_state(seed=0):
  return make_train_state(get_functions(), STEP, jax.random.key(seed))


@functools.cache
def get_update(num_devices, config):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  return mesh, make_update(get_functions(), config, mesh)


def run(num_devices, num_updates=3, config=STEP, batches=None):
  mesh, update = get_update(num_devices, config)
  state = make_train_state(get_functions(), config, jax.random.key(0))
  state = parallel.replicate(mesh, state)
  metrics = []
  for i in range(num_updates):
    batch = make_batch(8, seed=i) if batches is None else batches[i]
    state, metric = update(
        state, parallel.shard(mesh, batch), jax.random.key(9)
    )
    metrics.append(jax.tree.map(np.asarray, metric))
  return jax.tree.map(np.asarray, state.params.params), metrics


def assert_close(ours, theirs, **tolerance):
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, **tolerance), ours, theirs
  )


@pytest.fixture(scope='module')
def one_device():
  return run(1)


@pytest.mark.parametrize('num_devices', [8])
def test_devices_change_nothing(num_devices, one_device):
  """Also not the norm of the gradient, which a doubled mean would multiply."""
  weights, metrics = run(num_devices)
  assert_close(metrics, one_device[1], rtol=2e-4, atol=1e-5)
  assert_close(weights, one_device[0], atol=2e-5)


def test_equals_pmap(one_device):
  optimizer = make_optimizer(STEP.optimizer)

  def compute(weights, params, batch):
    losses, _ = compute_example_losses(
        get_functions(), params._replace(params=weights), batch, STEP.losses
    )
    return losses.total

  @functools.partial(jax.pmap, axis_name='i', devices=jax.devices()[:4])
  def update(state, batch):
    loss, gradients = jax.lax.pmean(
        jax.value_and_grad(compute)(state.params.params, state.params, batch),
        'i',
    )
    changes, rest = optimizer.update(
        gradients, state.optimizer, state.params.params
    )
    weights = optax.apply_updates(state.params.params, changes)
    params = state.params._replace(params=weights)
    return state._replace(params=params, optimizer=rest), loss

  state = jax.tree.map(lambda a: jnp.stack([a] * 4), make_state())
  for i in range(3):
    batch = jax.tree.map(
        lambda a: a.reshape(4, 2, *a.shape[1:]), make_batch(8, seed=i)
    )
    state, loss = update(state, batch)
    np.testing.assert_allclose(loss[0], one_device[1][i].loss, rtol=2e-4)
  weights = jax.tree.map(lambda a: np.asarray(a[0]), state.params.params)
  assert_close(weights, one_device[0], atol=2e-5)


def test_accumulation_changes_nothing(one_device):
  config = dataclasses.replace(STEP, accumulated=4)
  weights, metrics = run(1, config=config)
  assert_close(metrics, one_device[1], rtol=2e-4, atol=1e-5)
  assert_close(weights, one_device[0], atol=2e-5)


def test_updates_lower_the_loss():
  batch = make_batch(8)
  _, metrics = run(1, 40, batches=[batch] * 40)
  assert metrics[-1].loss < 0.9 * metrics[0].loss


def test_update_without_a_finite_gradient_is_skipped():
  batch = make_batch(8)
  broken = batch._replace(video=batch.video.at[0, 0].set(jnp.nan))
  good, _ = run(1, 2, batches=[batch, batch])
  skipped, metrics = run(1, 3, batches=[batch, broken, batch])
  assert [m.bad_updates for m in metrics] == [0, 1, 0]
  assert_close(skipped, good, atol=1e-6)


def test_bfloat16_encodes_in_halves_and_learns_the_same():
  # Of an untrained network, rounding may move a peak by a cell. With templates
  # all frames after it would look for something else.
  exact = TapirFunctions(GUESSING)
  halved = TapirFunctions(dataclasses.replace(GUESSING, precision='bfloat16'))
  batch = make_batch(1)
  params = exact.init(jax.random.key(0))

  @functools.partial(jax.jit, static_argnums=0)
  def learn(functions, params):
    def compute(weights):
      losses, _ = compute_example_losses(
          functions, params._replace(params=weights), batch, STEP.losses
      )
      return losses.total

    features = functions.encode_video(params, batch.video)
    return features, *jax.value_and_grad(compute)(params.params)

  features, loss, gradients = learn(exact, params)
  rounded, rounded_loss, rounded_gradients = learn(halved, params)
  for ours, theirs in zip(
      jax.tree.leaves(rounded), jax.tree.leaves(features), strict=True
  ):
    assert ours.dtype == theirs.dtype == jnp.float32
    # Unit vectors; single entries differ by more, where norms are over few.
    assert np.sqrt(np.mean(np.square(ours - theirs))) < 0.1
    np.testing.assert_array_equal(ours, ours.astype(jnp.bfloat16))
    assert not np.array_equal(ours, theirs)
  assert float(rounded_loss) == pytest.approx(float(loss), rel=0.05)
  for ours in jax.tree.leaves(rounded_gradients):
    assert ours.dtype == jnp.float32
  ours = jnp.concatenate(
      [leaf.ravel() for leaf in jax.tree.leaves(rounded_gradients)]
  )
  theirs = jnp.concatenate(
      [leaf.ravel() for leaf in jax.tree.leaves(gradients)]
  )
  cosine = ours @ theirs / jnp.linalg.norm(ours) / jnp.linalg.norm(theirs)
  assert float(cosine) > 0.9


def test_a_tracker_that_tells_no_chances_has_no_heatmap_loss():
  functions = tapnet.TapNetFunctions(
      tapnet.TapNetConfig(resolution=(32, 32), channels=(8, 8, 8))
  )
  params = describe_params(functions)
  with pytest.raises(ValueError, match='heatmap_weight must be 0'):
    jax.eval_shape(
        lambda *arguments: compute_example_losses(
            functions, *arguments, LossConfig(heatmap_weight=0.5)
        ),
        params,
        make_batch(1),
    )


def test_frozen_parts_stay_as_they_are():
  frozen = '*resnet*', '*/extra_convs*'
  config = StepConfig(
      optimizer=dataclasses.replace(STEP.optimizer, frozen=frozen[:1])
  )
  before = make_state().params.params
  after, metrics = run(1, 2, config=config)
  modules = list(before)
  kept = [module for module in modules if 'resnet' in module]
  assert 0 < len(kept) < len(modules)
  for module in modules:
    same = all(
        np.array_equal(before[module][name], after[module][name])
        for name in before[module]
    )
    assert same == (module in kept), module
  assert metrics[0].gradient_norm > 0
  with pytest.raises(ValueError, match='none matches'):
    select_modules(before, frozen)


def test_refinement_is_learned_from_the_first_queries_alone():
  batch = make_batch(2)
  functions = TapirFunctions(GUESSING)
  params = functions.init(jax.random.key(0))

  @functools.partial(jax.jit, static_argnums=2)
  def learn(params, batch, count):
    def compute(weights):
      losses, _ = compute_example_losses(
          functions,
          params._replace(params=weights),
          batch,
          STEP.losses,
          count,
      )
      return losses.total

    return jax.value_and_grad(compute)(params.params)

  def get_mixer(gradients):
    return {k: v for k, v in gradients.items() if 'mixer' in k}

  loss, gradients = learn(params, batch, None)
  partial_loss, partial_gradients = learn(params, batch, 1)
  np.testing.assert_allclose(partial_loss, loss, rtol=1e-5)
  # What the first query alone gives, as one of three.
  first = batch._replace(
      query_points=batch.query_points[:, :1],
      target_points=batch.target_points[:, :1],
      occluded=batch.occluded[:, :1],
  )
  _, alone = learn(params, first, None)
  mixer = get_mixer(partial_gradients)
  assert mixer
  for name, arrays in get_mixer(alone).items():
    for key, array in arrays.items():
      np.testing.assert_allclose(
          mixer[name][key], array / 3, atol=1e-5, rtol=1e-3
      )
  assert not np.allclose(
      *(
          np.concatenate([np.ravel(a) for a in jax.tree.leaves(get_mixer(g))])
          for g in (gradients, partial_gradients)
      ),
      atol=1e-5,
  )


def test_refinement_that_guesses_depend_on_is_learned_from_all_queries():
  with pytest.raises(ValueError, match='refined_queries must be None'):
    jax.eval_shape(
        lambda params, batch: compute_example_losses(
            get_functions(), params, batch, STEP.losses, 1
        ),
        describe_params(get_functions()),
        make_batch(1),
    )


def test_batch_norms_see_the_videos_of_all_devices():
  functions = tapnet.TapNetFunctions(
      tapnet.TapNetConfig(
          resolution=(16, 16), channels=(8, 8, 8), strides=(1, 2, 1)
      )
  )
  batch = make_batch(4)
  batch = batch._replace(
      video=batch.video[:, :, :16, :16], query_points=batch.query_points / 2
  )
  # TAP-Net has no heatmap to learn from.
  config = dataclasses.replace(STEP, losses=LossConfig())
  results = []
  for count in (1, 2):
    mesh = parallel.make_mesh(jax.devices()[:count])
    state = make_train_state(functions, config, jax.random.key(0))
    update = make_update(functions, config, mesh)
    state = parallel.replicate(mesh, state)
    for _ in range(2):
      state, metrics = update(
          state, parallel.shard(mesh, batch), jax.random.key(9)
      )
    results.append(parallel.fetch((state.params, metrics)))
  assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
  statistics = results[0][0].state
  name = next(
      n
      for n in statistics
      if n.endswith('unit_0_block_0/~/batch_norm/~/mean_ema')
  )
  assert statistics[name]['counter'] == 2
  assert np.abs(statistics[name]['average']).max() > 1e-3
  # Tracking afterwards uses them, and no batch.
  params = jax.tree.map(jnp.asarray, results[0][0])
  encode = jax.jit(functions.encode_video)
  single = encode(params, batch.video[:1])
  together = encode(params, batch.video)
  np.testing.assert_allclose(single[0], together[0], atol=1e-5)
