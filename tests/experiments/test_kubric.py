"""The recipes of Kubric: what they say, that they learn, and whole runs."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest

from experiments.config import override_config
from experiments.config import read_config
from experiments.tasks import training
import tapjax
from tapjax import checkpoints
from tapjax import parallel
from tapjax.data.kubric.batches import make_kubric_draw
from tapjax.models import registry
from tapjax.training.step import make_train_state
from tapjax.training.step import make_update
from tests.support import movi_writer
from tests.support import narrow
from tests.support import weights

CONFIGS = pathlib.Path(training.__file__).parents[1] / 'configs'
NAME = 'panning_movi_e/32x32'
NARROW_TAPIR = (
    'model.initial_resolution=(16,16)',
    'model.channels=(4,4,4,4)',
    'model.num_iterations=1',
    'model.mixer_blocks=1',
    'model.mixer_channels=8',
    'step.refined_queries=4',
)
NARROW = {
    'tapnet': ('model.channels=(8,8,8)',),
    'tapir': NARROW_TAPIR,
    'causal_tapir': NARROW_TAPIR,
    'bootstapir': (*NARROW_TAPIR, 'model.num_extra_convs=1'),
    'locotrack_base': narrow.LOCOTRACK,
    'locotrack_efficientnet_b0': narrow.LOCOTRACK,
}
PUBLISHED = {
    # Rate, warm-up, decay, steps, videos a device.
    'tapnet': (2e-3, 5000, 1e-2, 100_000, 8),
    'tapir': (1e-3, 1000, 1e-1, 100_000, 8),
    'causal_tapir': (1e-3, 1000, 1e-1, 100_000, 8),
    'bootstapir': (1e-3, 1000, 1e-1, 100_000, 8),
    'locotrack_base': (1e-3, 1000, 1e-3, 300_000, 4),
    'locotrack_efficientnet_b0': (1e-3, 1000, 1e-3, 300_000, 4),
}


@pytest.fixture(scope='module')
def movi(tmp_path_factory):
  root = tmp_path_factory.mktemp('movi')
  records = movi_writer.make_records(3)
  movi_writer.write_movi(root, NAME, 'train', records, 1)
  return movi_writer.write_movi(root, NAME, 'validation', records[:1], 1)


def read(name):
  return read_config(str(CONFIGS / f'{name}_kubric.py'))


def make_config(name, root, *changes):
  side = 32 if 'locotrack' in name else 16
  config = read(name)
  model = dataclasses.replace(
      config.model,
      resolution=(side, side),
      **{} if name == 'tapnet' else {'initial_resolution': (side, side)},
  )
  data = dataclasses.replace(
      config.data, root=str(root), name=NAME, resolution=(side, side)
  )
  config = dataclasses.replace(config, model=model, data=data)
  return override_config(
      config,
      (
          *NARROW[name],
          'data.batch_size=2',
          'data.num_frames=4',
          'data.tracks.num_points=8',
          'data.tracks.stride=1',
          'data.num_workers=1',
          'num_validation=1',
          'step.optimizer.warmup_steps=2',
          'step.optimizer.num_steps=20',
          *changes,
      ),
  )


@pytest.mark.parametrize('name', NARROW)
def test_the_recipe_is_the_published_one(name):
  config = read(name)
  assert config.preset == name
  precision = 'bfloat16' if 'efficientnet' in name else 'highest'
  model = dataclasses.replace(config.model, precision='highest')
  assert model == registry.get_preset(name).config
  assert config.model.precision == precision
  optimizer, losses = config.step.optimizer, config.step.losses
  assert (
      optimizer.peak_lr,
      optimizer.warmup_steps,
      optimizer.weight_decay,
      optimizer.num_steps,
      config.data.batch_size,
  ) == PUBLISHED[name]
  assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.95, 1e-8)
  assert (optimizer.end_lr, optimizer.max_bad_steps) == (0, 5)
  assert optimizer.max_norm == (1 if 'locotrack' in name else None)
  assert (losses.position_weight, losses.huber_delta) == (0.05, 4)
  assert losses.uncertainty_threshold == 6
  assert config.step.refined_queries == (32 if 'tapir' in name else None)
  data = config.data
  assert (data.name, data.resolution) == ('panning_movi_e/256x256', (256, 256))
  assert (data.random_crop, data.recolor) == (True, True)
  assert (data.tracks.num_points, data.tracks.stride) == (256, 4)
  assert data.tracks.largest_share == 0.1
  text = (CONFIGS / f'{name}_kubric.py').read_text()
  for words in (f'{name}_kubric.py --workdir=DIR', 'ardware:', 'Expected'):
    assert words in text


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        # LocoTrack takes minutes to compile.
        pytest.param(name, marks=[pytest.mark.heavy] * ('locotrack' in name))
        for name in NARROW
    ],
)
def test_twenty_steps_lower_the_loss_of_a_batch(movi, name, quick_compilation):
  config = make_config(name, movi, 'step.optimizer.peak_lr=3e-3')
  functions = registry.get_preset(name).architecture.make_functions(
      config.model
  )
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = make_train_state(functions, config.step, jax.random.key(0))
  state = parallel.replicate(mesh, state)
  batch = make_kubric_draw(config.data, 0, mesh)(0)
  update = make_update(functions, config.step, mesh)
  losses = []
  for _ in range(20):
    state, metrics = update(state, batch, jax.random.key(2))
    assert int(metrics.bad_updates) == 0
    losses.append(float(metrics.loss))
  assert np.isfinite(losses).all()
  assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])


@pytest.mark.slow
def test_a_run_resumes_exactly_and_leaves_the_published_layout(
    movi, reference, tmp_path, quick_compilation, monkeypatch
):
  mesh = parallel.make_mesh(jax.devices()[:1])
  monkeypatch.setattr(parallel, 'make_mesh', lambda devices=None: mesh)
  config = make_config(
      'tapir',
      movi,
      'data.batch_size=1',
      'step.optimizer.num_steps=4',
      'loop.evaluate_every=2',
      'loop.save_every=2',
      'loop.report_every=1',
  )
  state = training.train_tracker(config, tmp_path)
  shutil.rmtree(tmp_path / 'snapshots' / '4')
  (tmp_path / 'final.npy').unlink()
  resumed = training.train_tracker(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, resumed, state)

  # What readers of published files do, and the names that they find.
  path = tmp_path / 'final.npy'
  contents = np.load(path, allow_pickle=True).item()
  manifest = reference / 'tapir' / 'manifest_tapir.json'
  published = list_names(manifest)
  ours = {
      (module, name)
      for module, arrays in contents['params'].items()
      for name in arrays
  }
  # The network here has fewer blocks.
  assert ours < published
  assert {module.split('/')[0] for module, _ in ours} == {'tapir'}
  settings = {
      field.name: getattr(config.model, field.name)
      for field in dataclasses.fields(config.model)
  }
  tracker = tapjax.load('tapir', checkpoint=path, **settings)
  jax.tree.map(
      np.testing.assert_array_equal,
      tracker.params.params,
      state.params.params,
  )
  metadata = checkpoints.read_checkpoint(
      tmp_path / 'latest.safetensors'
  ).metadata
  assert (metadata['steps'], metadata['num_steps']) == ('4', '4')


def list_names(manifest):
  checkpoint = weights.haiku_checkpoint(weights.load_manifest(manifest), 0)
  return {
      (module, name)
      for module, arrays in checkpoint['params'].items()
      for name in arrays
  }


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('data.root=absent', 'must hold shards of panning_movi_e/32x32'),
        ('data.resolution=(8,8)', 'data.resolution must be the same'),
        ('data.format="tfds"', 'format must be'),
    ],
    ids=str,
)
def test_what_stops_a_run_is_told_at_once(movi, tmp_path, change, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    training.train_tracker(make_config('tapir', movi, change), tmp_path)
