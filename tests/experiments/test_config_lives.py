"""Every config of the folder, by the command of its docstring, as a whole."""

import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from experiments import config as configs
from experiments.recipes.kubric import KubricTrainConfig
from experiments.recipes.matching import MatchingTrainConfig
from experiments.recipes.pips_clips import PipsTrainConfig
from experiments.recipes.point_windows import PointTrainConfig
from experiments.recipes.procedural import TrainConfig
from experiments.recipes.recipe import make_functions
from experiments.recipes.self_training import SelfTrainConfig
from experiments.recipes.taptr_videos import TaptrTrainConfig
import tapjax
from tapjax import checkpoints
from tapjax.media.pictures import import_pillow
from tapjax.models import registry
from tapjax.tracker import Tracker
from tapjax.training.summaries import read_curves
from tests.support import tiny_runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('one_device', 'kept_programs'),
]
# Pictures in TensorBoard, by the class of configs.
PICTURES = {
    KubricTrainConfig: {'validation/tracks'},
    MatchingTrainConfig: set(),
    PipsTrainConfig: {'validation/predictions'},
    PointTrainConfig: {
        'loss_history',
        'train/attention',
        'train/predictions',
        'validation/attention',
        'validation/predictions',
    },
    SelfTrainConfig: set(),
    TaptrTrainConfig: {'validation/tracks'},
    TrainConfig: {'validation/tracks'},
}


@pytest.fixture(scope='module')
def inputs(inputs):
  tiny_runs.write_stored(inputs / 'VIDEOS')
  return inputs


def make_arguments(path, config, inputs, folder):
  """Returns a config's own command, with files for words in capitals."""
  (command,) = (
      command
      for command in tiny_runs.list_commands(path)
      if f'--config=experiments/configs/{path.name}' in command
  )
  arguments = []
  for argument in command:
    name, _, value = argument.rpartition('=')
    if name == '--workdir':
      value = folder
    elif name == '--config':
      value = path
    elif value.partition('/')[0].isupper():
      value = inputs / value
      if value.suffix == '.safetensors':
        write_weights(value, config)
      assert value.exists(), f'{argument}: tests do not write {value.name}'
    arguments.append(f'{name}={value}' if name else argument)
  settings = tiny_runs.list_settings(config)
  return [*arguments, *(f'--set={setting}' for setting in settings)]


def write_weights(path, config):
  """Writes what an earlier stage would have left: weights at random."""
  functions = make_functions(config)
  params = functions.init(jax.random.key(7))
  path.parent.mkdir(exist_ok=True)
  Tracker(config.preset, config.model, functions, params).save(path)


def list_steps(folder):
  return sorted(int(path.name) for path in (folder / 'snapshots').iterdir())


@pytest.mark.parametrize('path', tiny_runs.CONFIGS, ids=lambda path: path.stem)
def test_a_run_trains_draws_judges_and_resumes(path, inputs, tmp_path):
  folder = tmp_path / 'run'
  config = configs.read_config(str(path))
  config = configs.override_config(config, tiny_runs.list_settings(config))
  arguments = make_arguments(path, config, inputs, folder)
  assert tiny_runs.call(*arguments) == 0

  # Numbers and figures are in TensorBoard's files.
  curves = read_curves(folder / 'curves.csv')
  assert {name.partition('/')[0] for name in curves} >= {'train', 'validation'}
  events = tiny_runs.read_events(folder / 'summaries')
  assert set(curves) <= {tag for kind, tag in events if kind != 'image'}
  pictures = {tag for kind, tag in events if kind == 'image'}
  assert pictures == PICTURES[type(config)]
  if isinstance(config, PointTrainConfig):
    assert (folder / 'history.csv').exists()
    figures = list((folder / 'visualizations').iterdir())
    assert len(figures) == 2 * len(pictures)
    for figure in figures:
      with import_pillow().open(figure) as picture:
        picture.verify()

  # What it leaves are trackers, and the command that made them.
  last = list_steps(folder)[-1]
  assert last > 1
  for name in ('latest', 'best'):
    file = folder / f'{name}.safetensors'
    tracker = tapjax.load(checkpoint=file)
    assert (tracker.name, tracker.config) == (config.preset, config.model)
    assert all(
        np.isfinite(array).all()
        for array in jax.tree.leaves(tracker.params.params)
    )
    metadata = checkpoints.read_checkpoint(file).metadata
    assert metadata['num_steps'] == str(last)
    assert any(key.startswith('validation/') for key in metadata)
  assert config.preset in (folder / 'config.txt').read_text()
  architecture = registry.get_preset(config.preset).architecture
  is_published = any(
      name.haiku for name in architecture.list_weight_names(config.model)
  )
  assert (folder / 'final.npy').exists() == is_published

  # As if killed before the last snapshot.
  latest = folder / 'latest.safetensors'
  expected = safetensors.numpy.load_file(latest)
  shutil.rmtree(folder / 'snapshots' / str(last))
  latest.unlink()
  (folder / 'final.npy').unlink(missing_ok=True)
  assert list_steps(folder)
  assert tiny_runs.call(*arguments) == 0
  assert list_steps(folder)[-1] == last
  assert (folder / 'final.npy').exists() == is_published
  resumed = safetensors.numpy.load_file(latest)
  assert resumed.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(resumed[name], array, err_msg=name)
