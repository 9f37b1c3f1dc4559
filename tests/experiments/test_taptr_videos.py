"""TAPTRv2's recipe: what it says, that it learns, and that it resumes."""

import dataclasses
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import override_config
from experiments.config import read_config
from experiments.recipes.taptr_videos import change_batches
from experiments.recipes.taptr_videos import make_taptr_draw
from experiments.tasks import training
import tapjax
from tapjax import parallel
from tapjax.data.procedural.distractors import DistractorConfig
from tapjax.models.taptr.config import TAPTRV2
from tapjax.training.taptr import make_taptr_schedule
from tapjax.types import Example
from tests.support import movi_writer

CONFIGS = pathlib.Path(training.__file__).parents[1] / 'configs'
CONFIG = CONFIGS / 'taptrv2_procedural.py'
KUBRIC = CONFIGS / 'taptrv2_kubric.py'
VIDEO = (
    'num_frames=5',
    'resolution=(16,16)',
    'num_objects=2',
    'texture_size=8',
    'num_leaves=2',
    'samples_per_pixel=1',
    'num_queries=8',
)
NETWORK = (
    'backbone=None',
    'model.resolution=(16,16)',
    'model.backbone_blocks=(1,1)',
    'model.backbone_channels=8',
    'model.channels=32',
    'model.hidden_channels=32',
    'model.num_heads=2',
    'model.num_samples=2',
    'model.num_groups=4',
    'model.encoder_layers=1',
    'model.decoder_layers=2',
    'model.window=4',
    *(f'validation.video.{setting}' for setting in VIDEO),
    'validation.num_videos=1',
    'loop.report_every=1',
    'loop.evaluate_every=4',
    'loop.save_every=2',
)
SMALL = (
    *NETWORK,
    *(f'data.video.{setting}' for setting in VIDEO),
    'data.num_queries=4',
    'data.batch_size=2',
    'data.num_videos=2',
)


def make_config(*changes):
  return override_config(read_config(str(CONFIG)), (*SMALL, *changes))


def make_batch():
  """Two videos of noise, with points that go right at different speeds."""
  keys = jax.random.split(jax.random.key(2))
  first = jax.random.uniform(keys[0], (2, 4, 1, 2), minval=2.0, maxval=8.0)
  speed = jnp.asarray([0.0, 0.5, 1.0, 1.5]).reshape(1, 4, 1, 1)
  steps = speed * jnp.arange(5.0).reshape(1, 1, 5, 1)
  positions = first + steps * jnp.asarray([1.0, 0]).reshape(1, 1, 1, 2)
  return Example(
      video=jax.random.uniform(keys[1], (2, 5, 16, 16, 3), minval=-1.0),
      query_points=jnp.pad(
          jnp.flip(positions[:, :, 0], axis=-1), ((0, 0), (0, 0), (1, 0))
      ),
      target_points=positions,
      occluded=jnp.zeros((2, 4, 5), bool),
  )


@pytest.mark.parametrize('path', [CONFIG, KUBRIC], ids=lambda path: path.stem)
def test_the_recipe_is_the_published_one(path):
  config = read_config(str(path))
  assert config.preset == 'taptrv2'
  assert config.model == TAPTRV2
  assert config.backbone == 'imagenet'
  training = config.training
  losses = training.losses
  assert (losses.position_weight, losses.visibility_weight) == (5, 1)
  assert (losses.focal_balance, losses.focal_power) == (0.25, 2)
  assert (training.b1, training.b2, training.weight_decay) == (0.9, 0.999, 1e-4)
  assert (training.max_norm, training.average_decay) == (0.1, 0.9997)
  schedule = make_taptr_schedule(training)
  epoch = training.num_steps / 150
  for number, share in ((0, 1), (99, 1), (101, 0.1), (129, 0.1), (131, 0.01)):
    assert schedule(int(number * epoch)) == pytest.approx(share)
  data = config.data
  assert data.batch_size == 32
  if path == KUBRIC:
    assert data.resolution == TAPTRV2.resolution == (512, 512)
    assert (data.num_frames, data.tracks.num_points) == (24, 800)
    assert (data.format, data.queries) == ('cotracker', 'first_or_middle')
    # What moves the camera replaces these.
    assert not data.random_crop
    assert not data.recolor
    camera = config.panning
    assert (camera.smallest_zoom, camera.largest_zoom) == (0.75, 1.25)
    assert (camera.largest_padding, camera.zoom_change) == (24, 0.05)
    assert (camera.drift, camera.flip) == (15, 0.5)
  else:
    assert data.video.resolution == TAPTRV2.resolution == (512, 512)
    assert data.video.num_frames == 24
    assert data.num_queries == data.video.num_queries == 800
    assert config.panning is None
  text = path.read_text()
  for words in (f'{path.name} --workdir=DIR', 'ardware:', 'hours', 'Expected'):
    assert words in text
  harder = config.distractors
  assert (harder.cover, harder.replace) == (0.5, 0.5)
  assert (harder.recolor, harder.blur) == (0.25, 0.25)
  assert (harder.smallest_side, harder.largest_side) == (2, 99)


@pytest.mark.slow
def test_distractors_depend_on_the_number_of_a_batch(quick_compilation):
  batch = make_batch()
  mesh = parallel.make_mesh(jax.devices()[:2])
  config = DistractorConfig(
      cover=1.0, smallest_side=4, largest_side=5, recolor=0.0, blur=0.0
  )
  draw = change_batches(
      lambda _: parallel.shard(mesh, jax.tree.map(np.asarray, batch)),
      jax.random.key(0),
      config,
      None,
      mesh,
  )
  videos = [np.asarray(draw(step).video) for step in (1, 1, 2)]
  np.testing.assert_array_equal(videos[0], videos[1])
  assert (videos[0] != videos[2]).any()
  # Each video has its own rectangles, and none on its first frame.
  changed = (videos[0] != np.asarray(batch.video)).any(axis=-1)
  assert not changed[:, 0].any()
  assert changed[:, 1:].any(axis=(2, 3)).all()
  assert (changed[0] != changed[1]).any()


@pytest.mark.slow
@pytest.mark.heavy
def test_a_run_leaves_the_average_and_resumes(tmp_path, quick_compilation):
  num_devices = len(jax.devices())
  config = make_config(
      'training.num_steps=6',
      f'data.batch_size={num_devices}',
      f'data.num_videos={num_devices}',
  )
  state = training.train_tracker(config, tmp_path)
  assert int(state.num_updates) == 6
  latest = tapjax.load(checkpoint=tmp_path / 'latest.safetensors')
  assert latest.config == config.model
  jax.tree.map(np.testing.assert_array_equal, latest.params, state.params)
  moved = [
      np.abs(average - weights).max()
      for average, weights in zip(
          jax.tree.leaves(state.params.params),
          jax.tree.leaves(state.optimizer.weights),
          strict=True,
      )
  ]
  assert max(moved) > 0

  shutil.rmtree(tmp_path / 'snapshots' / '6')
  resumed = training.train_tracker(config, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, resumed, state)


@pytest.fixture
def kubric(tmp_path):
  root = tmp_path / 'kubric'
  return movi_writer.write_cotracker(root, movi_writer.make_records(3))


def make_kubric_config(root, *changes):
  return override_config(
      read_config(str(KUBRIC)),
      (
          *NETWORK,
          f'data.root={root}',
          'data.resolution=(16,16)',
          'data.num_frames=5',
          'data.tracks.num_points=6',
          'data.batch_size=2',
          'data.num_workers=0',
          'distractors.largest_side=4',
          *changes,
      ),
  )


@pytest.mark.slow
def test_kubric_is_panned_and_the_same_on_all_devices(
    kubric, quick_compilation
):
  config = make_kubric_config(kubric)
  plain = dataclasses.replace(config, distractors=None, panning=None)
  (one, two), (before,) = (
      [
          make_taptr_draw(settings, parallel.make_mesh(jax.devices()[:number]))(
              3
          )
          for number in numbers
      ]
      for settings, numbers in ((config, (1, 2)), (plain, (1,)))
  )
  assert one.video.shape == (2, 5, 16, 16, 3)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, two
  )
  # On the first frame, which nothing covers, only the camera makes a change.
  assert (one.video[:, 0] != before.video[:, 0]).any()
  frames = np.asarray(before.query_points[..., 0]).astype(int)
  hidden = np.asarray(before.occluded)
  np.testing.assert_array_equal(frames, hidden.argmin(axis=-1))
  # Points are chosen among those of the first frame and of the middle one.
  assert (~hidden[..., 0] | ~hidden[..., 2]).all()


@pytest.mark.slow
@pytest.mark.heavy
def test_kubric_is_learned_from(kubric, tmp_path, quick_compilation):
  num_devices = len(jax.devices())
  config = make_kubric_config(
      kubric, 'training.num_steps=2', f'data.batch_size={num_devices}'
  )
  state = training.train_tracker(config, tmp_path / 'run')
  assert int(state.num_updates) == 2
  assert (tmp_path / 'run' / 'latest.safetensors').exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['data.resolution=(8,8)'], 'data.resolution must be the same'),
        (['data.root='], '--set data.root=DIR'),
    ],
    ids=str,
)
def test_what_is_wrong_with_kubric_is_told_at_once(changes, message, tmp_path):
  config = make_kubric_config('absent', *changes)
  with pytest.raises(ValueError, match=message):
    training.train_tracker(config, tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('model.resolution=(64,64)', 'data.video.resolution must be the same'),
        ('preset=tapir', 'preset must be taptrv2'),
        ('training.restarted=2.0', 'restarted must be between 0 and 1'),
    ],
    ids=str,
)
def test_what_stops_a_run_is_told_at_once(change, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    training.train_tracker(make_config(change), tmp_path)
