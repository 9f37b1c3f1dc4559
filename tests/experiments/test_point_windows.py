"""The point transformer from generated scenes to weights, whole but small."""

import csv
import dataclasses
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import optax
import pytest
import safetensors

from experiments.config import override_config
from experiments.config import read_config
from experiments.recipes.recipe import Workplace
from experiments.tasks import training
import tapjax
from tapjax import checkpoints
from tapjax.checkpoints.torch_training import BUFFERS
from tapjax.data.point_odyssey.generated import write_procedural_scenes
from tapjax.data.procedural.videos import ProceduralConfig
from tapjax.media.pictures import import_pillow
from tapjax.models.contract import flatten_params
from tapjax.models.contract import Params
from tapjax.models.point_transformer.weights import list_weight_names
from tapjax.models.weight_names import list_torch_sources
from tapjax.training.snapshots import Snapshots
from tests.support import tiny_runs
from tests.support import torch_format

CONFIG = (
    pathlib.Path(training.__file__).parents[1]
    / 'configs/point_transformer_pointodyssey.py'
)
# A background that is swept along, and an object before it.
SCENES = ProceduralConfig(
    num_frames=27,
    resolution=(48, 48),
    num_queries=64,
    num_objects=1,
    object_share=0.2,
    object_speed=(2.0, 10.0),
    camera_speed=(8.0, 16.0),
    reach=(100.0, 200.0),
    still_share=0.0,
    samples_per_pixel=2,
    texture_size=32,
    num_leaves=8,
)
SETTINGS = (
    'backbone=None',
    'model.resolution=(48, 48)',
    'model.backbone_blocks=(1, 1)',
    'model.backbone_channels=8',
    'model.channels=64',
    'model.num_blocks=1',
    'model.num_heads=4',
    'model.token_time=frame',
    'model.dropout=0.02',
    # Of 40 windows; whole scenes would be too few to learn from.
    'data.split=window',
    'data.most_frames=27',
    'data.num_workers=1',
    'training.num_epochs=25',
    'training.peak_lr=2e-3',
    'loop.draw_every=4',
)


# A smaller network, on as few windows as there can be.
SMALL = (
    'model.resolution=(16, 16)',
    'model.backbone_blocks=(1,)',
    'model.backbone_channels=4',
    'model.channels=8',
    'model.num_heads=2',
    'model.window=3',
    'model.num_points=2',
    'model.dropout=0.2',
    'data.batch_size=2',
    'data.most_frames=20',
    'training.num_epochs=3',
    'loop.draw_every=1',
)


def make_config(root, *changes):
  config = read_config(str(CONFIG))
  return override_config(config, (f'data.root={root}', *SETTINGS, *changes))


def read_history(folder):
  with (folder / 'history.csv').open(encoding='utf-8') as file:
    return [
        {name: float(value) for name, value in row.items()}
        for row in csv.DictReader(file)
    ]


@pytest.mark.slow
@pytest.mark.heavy
def test_learns_until_half_of_no_motion(tmp_path, quick_compilation):
  """On generated scenes; the curve stays beside the other figures."""
  root, folder = tmp_path / 'scenes', tmp_path / 'run'
  write_procedural_scenes(root, 2, SCENES, seed=0)
  training.train_tracker(make_config(root), folder)
  rows = read_history(folder)
  assert rows[0]['validation'] > 0.5 * rows[0]['still']
  assert rows[-1]['validation'] < 0.5 * rows[-1]['still']
  curve = folder / 'visualizations' / 'loss_history_epoch24.png'
  with import_pillow().open(curve) as picture:
    assert picture.size == (760, 460)


def write_scenes(root):
  """Noise that moves by a pixel a frame, seven frames of each scene."""
  pillow = import_pillow()
  generator = np.random.default_rng(0)
  for name in ('one', 'two'):
    (root / name / 'rgbs').mkdir(parents=True)
    wide = generator.integers(0, 256, (16, 24, 3), np.uint8)
    for t in range(7):
      frame = np.ascontiguousarray(wide[:, 7 - t : 23 - t])
      path = root / name / 'rgbs' / f'rgb_{t:05}.png'
      pillow.fromarray(frame).save(path)
    positions = generator.uniform(2, 8, (1, 5, 2)).repeat(7, axis=0)
    positions[..., 0] += np.arange(7)[:, None]
    np.savez(
        root / name / 'anno.npz',
        trajs_2d=positions.astype(np.float32),
        visibs=np.ones((7, 5), bool),
    )


@pytest.mark.slow
def test_what_a_run_leaves_and_how_it_resumes(tmp_path, quick_compilation):
  root, folder = tmp_path / 'scenes', tmp_path / 'run'
  write_scenes(root)
  config = make_config(root, *SMALL)
  state = training.train_tracker(config, folder)
  # Eight windows to train on, two to validate on, two in a batch.
  assert int(state.num_updates) == 12
  rows = read_history(folder)
  assert [row['epoch'] for row in rows] == [1, 2, 3]
  # Two steps of a pixel to the right: |dx| is 0, 1 and 2 of 16 pixels.
  still = (1 + 0.1 * 1) / 2 / 16
  assert rows[0]['still'] == pytest.approx(still, rel=1e-4)

  figures = {path.stem for path in (folder / 'visualizations').iterdir()}
  assert figures == {
      f'{kind}_epoch{epoch}{batch}'
      for epoch in range(3)
      for kind, batch in (
          ('loss_history', ''),
          ('val_predictions', ''),
          ('val_attention', ''),
          *(
              (kind, f'_batch{i}')
              for kind in ('predictions', 'attention')
              for i in (1, 2, 3)
          ),
      )
  }
  events = tiny_runs.read_events(folder / 'summaries')
  tags = {tag: steps for (_, tag), steps in events.items()}
  for name in ('total_loss', 'l1_loss', 'epe', 'temporal_loss'):
    assert tags[f'train/{name}'] == list(range(1, 13))
    assert tags[f'validation/{name}'] == [4, 8, 12]
  for name in (
      'validation/attention',
      'validation/predictions',
      'loss_history',
  ):
    assert tags[name] == [4, 8, 12]
  assert len(tags['train/attention']) == 9

  # Both files are trackers; `latest` is what the loop ended with.
  latest, best = (
      tapjax.load(checkpoint=folder / f'{name}.safetensors')
      for name in ('latest', 'best')
  )
  assert latest.config == best.config == config.model
  jax.tree.map(np.testing.assert_array_equal, latest.params, state.params)
  with safetensors.safe_open(
      folder / 'best.safetensors', framework='numpy'
  ) as file:
    metadata = file.metadata()
  losses = [row['validation'] for row in rows]
  assert int(metadata['steps']) == 4 * (1 + int(np.argmin(losses)))
  assert float(metadata['validation/total_loss']) == pytest.approx(
      min(losses), rel=1e-3
  )

  # As if killed in the last epoch: the same draws, dropout and rates again.
  history = (folder / 'history.csv').read_bytes()
  shutil.rmtree(folder / 'snapshots' / '12')
  resumed = training.train_tracker(config, folder)
  jax.tree.map(np.testing.assert_array_equal, resumed, state)
  assert (folder / 'history.csv').read_bytes() == history


def write_latest(path, state, config, epoch):
  """Writes a state as the published program would."""
  sources = list_torch_sources(list_weight_names(config.model))
  learned = {k: v for k, v in sources.items() if k.startswith('params|')}

  def name(params, sources):
    arrays = jax.tree.map(np.asarray, flatten_params(params))
    return checkpoints.invert_arrays(arrays, sources)

  arrays = name(state.params, sources)
  adam = next(
      node
      for node in jax.tree.leaves(
          state.optimizer,
          is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState),
      )
      if isinstance(node, optax.ScaleByAdamState)
  )
  means, squares = (
      name(Params(moments, {}), learned) for moments in (adam.mu, adam.nu)
  )
  archive = torch_format.Archive()
  add = archive.add
  names = [n for n in arrays if not n.endswith(('_mean', '_var'))]
  settings = config.training
  return archive.write(
      path,
      {
          'epoch': epoch,
          'model_state_dict': {n: add(array) for n, array in arrays.items()},
          'optimizer_state_dict': {
              'state': {
                  i: {
                      'step': add(np.float32(adam.count)),
                      'exp_avg': add(means[n]),
                      'exp_avg_sq': add(squares[n]),
                  }
                  for i, n in enumerate(names)
              },
              'param_groups': [
                  {
                      'lr': 1e-5,
                      'initial_lr': settings.peak_lr,
                      'betas': (settings.b1, settings.b2),
                      'eps': 1e-8,
                      'weight_decay': settings.weight_decay,
                      'amsgrad': False,
                      'params': list(range(len(names))),
                  }
              ],
          },
          'best_val_loss': 0.5,
          'loss_history': {'train': [0.75], 'val': [0.5]},
      },
  )


@pytest.mark.slow
@pytest.mark.heavy
def test_goes_on_from_a_file_of_the_published_program(
    tmp_path, quick_compilation, capsys
):
  root = tmp_path / 'scenes'
  write_scenes(root)
  config = make_config(root, *SMALL, 'training.num_epochs=2')
  whole = training.train_tracker(config, tmp_path / 'whole')
  shutil.rmtree(tmp_path / 'whole' / 'snapshots' / '8')
  place = Workplace(tmp_path / 'unused', lambda *_: None, 0)
  place.folder.mkdir()
  snapshots = Snapshots(tmp_path / 'whole' / 'snapshots')
  middle = snapshots.restore(config.make_recipe(place).state)
  snapshots.close()
  assert int(middle.num_updates) == 4
  path = write_latest(tmp_path / 'latest.pth', middle, config, epoch=0)

  config = dataclasses.replace(config, resume=str(path))
  capsys.readouterr()
  resumed = training.train_tracker(config, tmp_path / 'resumed')
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  first, last = read_history(tmp_path / 'resumed')
  assert (first['train'], first['validation']) == (0.75, 0.5)
  assert np.isnan(first['still'])
  assert last == read_history(tmp_path / 'whole')[-1]
  said = capsys.readouterr().out
  for line in ('model: point_transformer_resnet18', 'devices: 2 of 8'):
    assert line in said
  assert re.search(r'^data: 8 windows in .*, and 2 to validate on$', said, re.M)
  assert re.search(r'^total: [\d,]+ parameters', said, re.M)
  # Its own snapshots come before the file.
  path.unlink()
  again = training.train_tracker(config, tmp_path / 'resumed')
  jax.tree.map(np.testing.assert_array_equal, again, whole)

  for change, message in (
      ('training.peak_lr=3e-4', 'initial_lr is 0.002; the config has 0.0003'),
      ('model.channels=16', 'does not fit the model'),
      ('training.num_epochs=1', 'num_epochs must be more than the 1 of'),
  ):
    path = write_latest(tmp_path / 'latest.pth', middle, config, epoch=0)
    with pytest.raises(ValueError, match=message):
      training.train_tracker(
          override_config(config, [change]), tmp_path / 'other'
      )


def test_parameters_are_in_the_published_order(reference):
  """By which the optimizer of the published program numbers them."""
  folder = reference / 'point_transformer'
  layout = json.loads((folder / 'checkpoint_layout.json').read_text())
  for name, expected in layout['parameter_order'].items():
    manifest = json.loads((folder / f'manifest_{name}.json').read_text())
    names = [array['name'] for array in manifest]
    order = [n for n in names if not checkpoints.is_ignored(n, BUFFERS)]
    assert order == expected


def test_a_run_has_one_beginning(tmp_path):
  with pytest.raises(ValueError, match='resume and initial must not both'):
    make_config('.', 'resume=a.pth', 'initial=b.pth')
  root = tmp_path / 'scenes'
  write_scenes(root)
  with pytest.raises(FileNotFoundError, match=r'there is no checkpoint a\.pth'):
    training.train_tracker(
        make_config(root, *SMALL, 'resume=a.pth'), tmp_path / 'run'
    )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (['data.root='], '--set data.root=DIR'),
        (['data.root=absent'], "a folder of scenes, .*; got 'absent'"),
        (['model.window=1'], 'window must be at least 2'),
    ],
    ids=str,
)
def test_what_stops_a_run_is_told_at_once(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    training.train_tracker(make_config('.', *changes), tmp_path)
