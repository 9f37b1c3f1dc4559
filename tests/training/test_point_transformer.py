"""The training of the point transformer against stored values."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.models.contract import flatten_params
from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tapjax.models.point_transformer.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tapjax.training import point_transformer as training
from tests.support import golden
from tests.support import narrow


@pytest.fixture
def stored(reference):
  folder = reference / 'point_transformer'
  with np.load(folder / 'golden_loss_and_schedule.npz') as file:
    return dict(file)


def test_published_losses(stored):
  compute = jax.jit(training.compute_point_losses)
  for frames, name in ((5, 'losses'), (1, 'losses_one_frame')):
    losses = compute(stored['pred'][:, :frames], stored['gt'][:, :frames])
    ours = (losses.total, losses.position, losses.end_point, losses.motion)
    np.testing.assert_allclose(ours, stored[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('num_epochs', [10, 50])
def test_published_learning_rates(num_epochs, stored):
  config = training.PointTrainingConfig(num_epochs=num_epochs)
  schedule = jax.jit(training.make_point_schedule(config, 7))
  for within in (0, 6):
    rates = [schedule(7 * epoch + within) for epoch in range(num_epochs)]
    np.testing.assert_allclose(
        rates, stored[f'lr_{num_epochs}_epochs'], rtol=1e-6, atol=1e-10
    )


def to_published(params, config):
  """Returns arrays by their published names."""
  arrays = flatten_params(params)
  sources = list_torch_sources(list_weight_names(config))
  return {
      source.name: (
          np.asarray(arrays[name])
          if source.axes is None
          else np.asarray(arrays[name]).transpose(np.argsort(source.axes))
      )
      for name, source in sources.items()
  }


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_published_updates(reference, tmp_path):
  """Gradients, running averages and weights; four steps on one batch."""
  folder = reference / 'point_transformer'
  with np.load(folder / 'golden_resnet18_train.npz') as file:
    expected = dict(file)
  meta = json.loads(str(expected.pop('meta')))
  tolerance = meta['tolerance']
  with np.load(reference / 'clips.npz') as clips:
    frames = clips[meta['clip']][np.asarray(meta['frames'])]
  top, left, height, width = meta['settings']['crop_y0_x0_h_w']
  frames = frames[:, :, top : top + height, left : left + width]
  checkpoint = golden.write_torch_checkpoint(
      folder / meta['manifest'],
      meta['seed'],
      tmp_path / 'best.pth',
      'model_state_dict',
  )
  tracker = tapjax.load(
      checkpoint=checkpoint, dropout=meta['settings']['dropout']
  )
  config, params = tracker.config, tracker.params
  batch = training.PointBatch(
      normalize_frames(frames), jnp.asarray(expected['gt_points'])
  )
  np.testing.assert_array_equal(
      expected['initial_points'], expected['gt_points'][:, 0]
  )
  key = jax.random.key(0)
  keys = jax.random.split(key, len(batch.video))

  @jax.jit
  def differentiate(weights):
    def compute(weights):
      losses, _ = training.compute_batch_losses(
          config, params._replace(params=weights), batch, keys=keys
      )
      return losses.total

    return jax.grad(compute)(weights)

  def assert_near(ours, theirs, name='relative_to_max'):
    limit = tolerance[name] * np.abs(theirs).max()
    np.testing.assert_allclose(ours, theirs, atol=limit)

  gradients = differentiate(params.params)
  by_name = to_published(params._replace(params=gradients), config)
  norms = [np.linalg.norm(by_name[name]) for name in meta['parameter_names']]
  assert_near(norms, expected['grad_norm_per_parameter'])
  qkv = 'transformer_layers.0.attn.qkv.weight'
  head = 'output_head.3.weight'
  assert_near(by_name[qkv][:8, :8], expected['grad_qkv0'])
  assert_near(by_name[head], expected['grad_head'])
  conv = by_name['feature_extractor.backbone.0.weight'][:4]
  assert_near(
      conv.transpose(2, 3, 1, 0),
      expected['grad_conv1'],
      'grad_conv1_relative_to_max',
  )
  np.testing.assert_allclose(
      np.linalg.norm(norms), expected['grad_norm_before_clip'][0], rtol=2e-3
  )

  settings = training.PointTrainingConfig()
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = training.make_point_state(params, settings, 4)
  state = parallel.replicate(mesh, jax.tree.map(jnp.asarray, state))
  batch = parallel.shard(mesh, batch)
  update = training.make_point_update(config, settings, 4, mesh)
  for step, (total, position, end_point, motion) in enumerate(
      expected['losses']
  ):
    state, metrics = update(state, batch, jax.random.fold_in(key, step))
    rtol = tolerance[
        'losses_relative_later_steps' if step else 'losses_relative_step0'
    ]
    np.testing.assert_allclose(
        metrics[:4], (total, end_point, position, motion), rtol=rtol
    )
    if step:
      continue
    np.testing.assert_allclose(
        metrics.gradient_norm, expected['grad_norm_before_clip'][0], rtol=2e-3
    )
    after = to_published(state.params, config)
    norm = 'feature_extractor.backbone.1.running_'
    close = np.testing.assert_allclose
    close(after[f'{norm}mean'], expected['bn1_running_mean_after'], atol=1e-6)
    close(after[f'{norm}var'], expected['bn1_running_var_after'], rtol=1e-5)
    close(
        after['feature_extractor.projection.1.running_var'],
        expected['projection_running_var_after'],
        rtol=1e-5,
    )
    close(after[head], expected['head_weight_after'], atol=2e-5)
    close(after[qkv][:8, :8], expected['qkv0_weight_after'], atol=2e-5)


@pytest.mark.slow
def test_dropout_is_on_where_there_is_a_key():
  params = golden.make_random_params(
      PointTransformerFunctions(narrow.POINT_TRANSFORMER)
  )
  video = jax.random.uniform(jax.random.key(0), (2, 4, 32, 32, 3))
  batch = training.PointBatch(video, jnp.full((2, 4, 3, 2), 0.4))

  def compute(dropout, key):
    keys = None if key is None else jax.random.split(key, 2)
    config = dataclasses.replace(narrow.POINT_TRANSFORMER, dropout=dropout)
    losses, statistics = jax.jit(
        training.compute_batch_losses, static_argnums=0
    )(config, params, batch, keys=keys)
    return float(losses.total), statistics

  first, second = (compute(0.5, jax.random.key(i))[0] for i in (1, 2))
  assert first != second
  assert compute(0.0, jax.random.key(1))[0] != first
  validation, statistics = compute(0.5, None)
  assert validation == compute(0.0, None)[0]
  jax.tree.map(np.testing.assert_array_equal, statistics, params.state)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_four_devices_learn_what_one_does():
  """Two updates with dropout, norms over the batch and unclipped gradients."""
  config = dataclasses.replace(narrow.POINT_TRANSFORMER, dropout=0.3)
  params = golden.make_random_params(PointTransformerFunctions(config))
  keys = jax.random.split(jax.random.key(1))
  batch = training.PointBatch(
      jax.random.uniform(keys[0], (4, 4, 32, 32, 3), minval=-1.0),
      jax.random.uniform(keys[1], (4, 4, 3, 2)),
  )
  settings = training.PointTrainingConfig(max_norm=1e6)
  results = []
  for number in (1, 4):
    mesh = parallel.make_mesh(jax.devices()[:number])
    state = training.make_point_state(
        jax.tree.map(jnp.copy, params), settings, 4
    )
    state = parallel.replicate(mesh, state)
    update = training.make_point_update(config, settings, 4, mesh)
    shards = parallel.shard(mesh, batch)
    for _ in range(2):
      state, metrics = update(state, shards, jax.random.key(2))
    # Moments, since Adam makes weights of gradients that are zero except for
    # rounding follow the rounding.
    learned = state.optimizer, state.params.state
    results.append((learned, metrics))
  (one, one_metrics), (four, four_metrics) = results
  assert float(one_metrics.gradient_norm) > 0
  np.testing.assert_allclose(one_metrics, four_metrics, rtol=1e-4)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
      one,
      four,
  )
