"""The training of PIPs++ against stored values, and what it leans on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.evaluation.pips_metrics import compute_pips_metrics
from tapjax.models.contract import flatten_params
from tapjax.models.contract import unflatten_params
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tapjax.models.pips_plus_plus.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tapjax.training import pips
from tests.support import golden
from tests.support import weights

pytestmark = pytest.mark.slow
SMALL = PipsPlusPlusConfig(
    resolution=(32, 40),
    channels=(8, 8, 8, 8),
    fused_channels=8,
    feature_channels=8,
    levels=1,
    radius=1,
    frequencies=2,
    block_channels=(8,),
    num_iterations=2,
)


@pytest.fixture(scope='module')
def blocks(reference):
  with np.load(reference / 'pips2' / 'golden_ops_blocks.npz') as file:
    return dict(file)


def test_published_loss(blocks):
  positions = jnp.asarray(blocks['loss_preds'].swapaxes(2, 3))
  target = jnp.asarray(blocks['loss_gt'].swapaxes(1, 2))
  valid = jnp.asarray(blocks['loss_valid'].swapaxes(1, 2))
  loss = jax.jit(pips.compute_pips_loss)
  close = np.testing.assert_allclose
  close(loss(positions, target, valid), blocks['loss'], rtol=1e-5)
  none = jnp.zeros_like(valid)
  close(loss(positions, target, none), blocks['loss_no_valid'], atol=1e-6)
  # What is not valid does not matter.
  moved = jnp.where(valid[..., None] > 0, target, 1e3)
  close(loss(positions, moved, valid), blocks['loss'], rtol=1e-5)


@pytest.mark.parametrize('num_steps', [200_000, 10_000])
def test_published_learning_rates(num_steps, blocks):
  config = pips.PipsTrainingConfig(num_steps=num_steps)
  schedule = jax.jit(pips.make_pips_schedule(config))
  rates = [schedule(step) for step in blocks[f'lr_steps_{num_steps}']]
  np.testing.assert_allclose(
      rates, blocks[f'lr_{num_steps}'], rtol=2e-5, atol=1e-10
  )


def test_starts_are_on_the_truth_and_half_of_them_stand_still():
  target = jax.random.uniform(jax.random.key(0), (2, 200, 5, 2)) * 40
  start = jax.jit(pips.draw_start_tracks, static_argnums=2)(
      jax.random.key(1), target, (40, 40)
  )
  np.testing.assert_array_equal(start[:, :, 0], target[:, :, 0])
  still = (start == start[:, :, :1]).all(axis=(2, 3))
  assert 0.4 < still.mean() < 0.6
  assert start.min() >= 0
  assert start.max() <= 40
  # The share of noise is that of the whole track.
  away = jnp.abs(start - target)[:, :, 1:].mean(axis=(2, 3))[~still]
  assert np.ptp(away) > 5


def test_transposed_twice_is_the_same():
  key = jax.random.key(2)
  batch = pips.PipsBatch(
      video=jax.random.uniform(key, (1, 2, 4, 6, 3)),
      target_points=jax.random.uniform(key, (1, 3, 2, 2)),
      valid=jnp.ones((1, 3, 2), bool),
  )
  swapped = pips.transpose_batch(batch)
  assert swapped.video.shape == (1, 2, 6, 4, 3)
  np.testing.assert_array_equal(
      swapped.target_points[..., 0], batch.target_points[..., 1]
  )
  jax.tree.map(
      np.testing.assert_array_equal, pips.transpose_batch(swapped), batch
  )


def test_accuracy_is_that_of_the_evaluation():
  generator = np.random.default_rng(4)
  target = generator.uniform(0, 40, (2, 30, 6, 2)).astype(np.float32)
  noise = generator.normal(0, 1, target.shape).astype(np.float32)
  valid = generator.random((2, 30, 6)) < 0.7
  ours = jax.jit(pips.measure_accuracy, static_argnums=3)(
      target + noise, target, valid, (40, 60)
  )
  theirs = compute_pips_metrics(target + noise, target, valid, (40, 60))
  assert 20 < theirs.d_avg < 80
  np.testing.assert_allclose(ours, theirs.d_avg, rtol=1e-5)


@pytest.fixture
def double_precision():
  jax.config.update('jax_enable_x64', True)
  yield
  jax.config.update('jax_enable_x64', False)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.usefixtures('double_precision')
def test_published_gradients(reference):
  """In float64, as rectifiers that flip move float32 ones by percents."""
  path = reference / 'pips2' / 'golden_pips2_trainstep.npz'
  with np.load(path) as file:
    stored = dict(file)
  meta = json.loads(str(stored['meta']))
  settings = meta['settings']
  top, left, height, width = settings['crop']
  with np.load(reference / 'clips.npz') as clips:
    frames = clips[meta['clip'].split()[0]][meta['frames']]
  frames = frames[:, top : top + height, left : left + width]
  config = PipsPlusPlusConfig(
      resolution=(height, width), num_iterations=settings['iters']
  )
  functions = PipsPlusPlusFunctions(config)
  sources = list_torch_sources(list_weight_names(config))
  arrays = weights.fill(
      weights.load_manifest(reference / 'pips2' / meta['manifest']),
      meta['seed'],
  )
  params = unflatten_params(
      {
          ours: jnp.asarray(
              arrays[source.name]
              if source.axes is None
              else arrays[source.name].transpose(source.axes),
              jnp.float64,
          )
          for ours, source in sources.items()
      }
  )

  def move(tracks):
    """Frames last, float64 and raster coordinates."""
    return jnp.asarray(tracks.swapaxes(0, 1), jnp.float64)[None] + 0.5

  batch = pips.PipsBatch(
      video=jnp.asarray(frames, jnp.float64)[None] / 127.5 - 1,
      target_points=move(stored['gt_tracks']),
      valid=jnp.asarray(stored['gt_valid'].T > 0)[None],
  )
  start = move(stored['init_tracks'])

  @jax.jit
  @jax.value_and_grad
  def differentiate(learned):
    return pips.compute_batch_loss(
        functions,
        params._replace(params=learned),
        batch,
        start,
        settings['gamma'],
    )

  loss, gradients = differentiate(params.params)
  tolerance = meta['tolerance']['float64']
  np.testing.assert_allclose(
      loss, stored['loss_float64'], rtol=tolerance['loss_rel']
  )
  ours = flatten_params(params._replace(params=gradients))
  published = {
      source.name: (
          np.asarray(ours[name])
          if source.axes is None
          else np.asarray(ours[name]).transpose(np.argsort(source.axes))
      )
      for name, source in sources.items()
  }
  for name, norm in zip(
      meta['grad_names'], stored['grad_norm_float64'], strict=True
  ):
    if name not in meta['tiny_grad_names']:
      np.testing.assert_allclose(
          np.linalg.norm(published[name]),
          norm,
          rtol=tolerance['grad_norm_rel'],
          err_msg=name,
      )
    if f'gradindex_{name}' in stored:
      entries = published[name].reshape(-1)[stored[f'gradindex_{name}']]
      error = np.abs(entries - stored[f'gradentries_{name}']).max()
      limit = tolerance['grad_entries_rel_to_max']
      assert error <= limit * stored[f'gradmax_{name}'], name
  for name in meta['no_grad_names']:
    assert not published[name].any()


@pytest.mark.slow
def test_a_step_lowers_the_loss():
  functions = PipsPlusPlusFunctions(SMALL)
  params = golden.make_random_params(functions)
  key = jax.random.key(3)
  batch = pips.PipsBatch(
      video=jax.random.uniform(key, (1, 4, 32, 40, 3), minval=-1.0),
      target_points=jax.random.uniform(key, (1, 3, 4, 2)) * 32,
      valid=jnp.ones((1, 3, 4), bool),
  )
  start = pips.draw_start_tracks(key, batch.target_points, (32, 40))
  training = pips.PipsTrainingConfig(num_steps=20, peak_lr=1e-2)
  optimizer = pips.make_pips_optimizer(training)

  @jax.jit
  def update(weights, state):
    loss, gradients = jax.value_and_grad(
        lambda w: pips.compute_batch_loss(
            functions, params._replace(params=w), batch, start
        )
    )(weights)
    changes, state = optimizer.update(gradients, state, weights)
    return jax.tree.map(jnp.add, weights, changes), state, loss

  weights, state = params.params, optimizer.init(params.params)
  losses = []
  for _ in range(20):
    weights, state, loss = update(weights, state)
    losses.append(float(loss))
  assert losses[-1] < 0.9 * losses[0]


@pytest.mark.usefixtures('quick_compilation')
def test_four_devices_learn_what_one_does():
  """Clips differ in how many positions are valid; gradients are unclipped."""
  functions = PipsPlusPlusFunctions(SMALL)
  params = golden.make_random_params(functions)
  keys = jax.random.split(jax.random.key(4), 3)
  chance = jnp.asarray([0.1, 0.4, 0.7, 1.0])[:, None, None]
  batch = pips.PipsBatch(
      video=jax.random.uniform(keys[0], (4, 4, 32, 40, 3), minval=-1.0),
      target_points=jax.random.uniform(keys[1], (4, 6, 4, 2)) * 32,
      valid=jax.random.uniform(keys[2], (4, 6, 4)) < chance,
  )
  settings = pips.PipsTrainingConfig(num_steps=20, max_norm=1e6)
  results = []
  for number in (1, 4):
    mesh = parallel.make_mesh(jax.devices()[:number])
    state = pips.make_pips_state(jax.tree.map(jnp.copy, params), settings)
    state = parallel.replicate(mesh, state)
    update = pips.make_pips_update(functions, settings, mesh)
    state, metrics = update(
        state, parallel.shard(mesh, batch), jax.random.key(5)
    )
    results.append((state.params, metrics))
  (one, one_metrics), (four, four_metrics) = results
  assert float(one_metrics.gradient_norm) > 0
  np.testing.assert_allclose(one_metrics, four_metrics, rtol=1e-4)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, four
  )
