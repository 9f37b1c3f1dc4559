"""LocoTrack's recipe: what it says, and that it learns."""

import pathlib

import jax
import numpy as np
import pytest

from experiments.config import override_config
from experiments.config import read_config
from tapjax import parallel
from tapjax.data.procedural.pool import make_draw
from tapjax.models import registry
from tapjax.models.locotrack.functions import LocoTrackFunctions
from tapjax.training.optimizers import make_schedule
from tapjax.training.step import make_train_state
from tapjax.training.step import make_update
from tests.support import narrow

CONFIGS = pathlib.Path(__file__).parents[2] / 'experiments' / 'configs'
SMALL = [
    'model.resolution=(32,32)',
    *narrow.LOCOTRACK,
    'data.video.num_frames=3',
    'data.video.resolution=(32,32)',
    'data.video.num_objects=2',
    'data.video.texture_size=16',
    'data.video.num_leaves=2',
    'data.video.samples_per_pixel=1',
    'data.video.num_queries=8',
    'data.num_queries=8',
    'data.batch_size=1',
    'data.num_videos=1',
    'step.optimizer.warmup_steps=5',
    'step.optimizer.num_steps=60',
]


def read(name):
  return read_config(str(CONFIGS / f'locotrack_{name}_procedural.py'))


@pytest.mark.parametrize('name', ['small', 'base'])
def test_the_recipe_is_the_published_one(name):
  config = read(name)
  assert config.preset == f'locotrack_{name}'
  assert config.model == registry.get_preset(config.preset).config
  losses, optimizer = config.step.losses, config.step.optimizer
  assert (losses.position_weight, losses.huber_delta) == (0.05, 4)
  assert (losses.uncertainty_threshold, losses.rebalance_factor) == (6, 0)
  assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.95, 1e-8)
  assert (optimizer.weight_decay, optimizer.max_norm) == (1e-3, 1)
  schedule = make_schedule(optimizer)
  for step, rate in ((0, 0), (500, 5e-4), (1000, 1e-3), (300_000, 0)):
    assert schedule(step) == pytest.approx(rate, abs=1e-9)
  assert config.data.video.num_frames == 24
  assert config.data.num_queries == 256


@pytest.mark.slow
@pytest.mark.heavy
def test_the_loss_falls_on_one_batch():
  config = override_config(read('small'), SMALL)
  functions = LocoTrackFunctions(config.model)
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = make_train_state(functions, config.step, jax.random.key(0))
  state = parallel.replicate(mesh, state)
  batch = make_draw(jax.random.key(1), config.data, mesh)(0)
  update = make_update(functions, config.step, mesh)
  losses = []
  for _ in range(40):
    state, metrics = update(state, batch, jax.random.key(2))
    assert int(metrics.bad_updates) == 0
    losses.append(float(metrics.loss))
  assert int(state.num_updates) == 40
  assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
