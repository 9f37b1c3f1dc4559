"""Several processes, and evaluation that follows a run: whole programs."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from tests.support import movi_writer

ROOT = pathlib.Path(__file__).parents[2]
NAME = 'panning_movi_e/32x32'
pytestmark = [
    pytest.mark.slow,
    pytest.mark.heavy,
]
CONFIG = """
from experiments.recipes.kubric import KubricTrainConfig
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.query_choices import MoviTrackConfig
from tapjax.models.tapir.config import TapirConfig
from tapjax.training.loop import LoopConfig
from tapjax.training.optimizers import OptimizerConfig
from tapjax.training.step import StepConfig


def get_config():
  return KubricTrainConfig(
      preset='tapir',
      model=TapirConfig(
          resolution=(16, 16),
          initial_resolution=(16, 16),
          channels=(4, 4, 4, 4),
          num_iterations=1,
          mixer_blocks=1,
          mixer_channels=8,
      ),
      data=KubricConfig(
          root={root!r},
          name={name!r},
          resolution=(16, 16),
          num_frames=4,
          batch_size=4,
          tracks=MoviTrackConfig(num_points=8, stride=1),
          num_workers=1,
      ),
      num_validation=1,
      # Not Adam: where a gradient is zero except for rounding, it follows that.
      step=StepConfig(
          optimizer=OptimizerConfig(
              kind='sgd', peak_lr=1e-2, warmup_steps=1, num_steps=4
          )
      ),
      loop=LoopConfig(report_every=1, evaluate_every=4, save_every=2),
  )
"""


@pytest.fixture
def config(tmp_path):
  records = movi_writer.make_records(3)
  root = tmp_path / 'data'
  movi_writer.write_movi(root, NAME, 'train', records, 1)
  movi_writer.write_movi(root, NAME, 'validation', records[:1], 1)
  path = tmp_path / 'small.py'
  path.write_text(CONFIG.format(root=str(root), name=NAME))
  return path


def start(num_devices, *flags):
  flag = f'--xla_force_host_platform_device_count={num_devices}'
  environment = {**os.environ, 'XLA_FLAGS': flag, 'PYTHONPATH': str(ROOT)}
  return subprocess.Popen(
      [sys.executable, '-m', 'experiments.run', *flags],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
  )


def finish(*processes):
  for process in processes:
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output


def find_port():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def start_two(*flags):
  address = f'--coordinator=127.0.0.1:{find_port()}'
  return [
      start(2, *flags, address, '--num_processes=2', f'--process={process}')
      for process in range(2)
  ]


def read_weights(path):
  return safetensors.numpy.load_file(path)


def test_two_processes_end_where_one_does(config, tmp_path):
  flags = ['--task=train', f'--config={config}']
  finish(start(4, *flags, f'--workdir={tmp_path / "one"}'))
  finish(*start_two(*flags, f'--workdir={tmp_path / "two"}'))
  one, two = (
      read_weights(tmp_path / name / 'latest.safetensors')
      for name in ('one', 'two')
  )
  assert one.keys() == two.keys()
  for name, array in one.items():
    np.testing.assert_allclose(array, two[name], atol=2e-5, err_msg=name)
  assert (tmp_path / 'two' / 'final.npy').exists()
  assert len(list((tmp_path / 'two' / 'summaries').iterdir())) == 1
  # Killed after the second step, they go on to the same end.
  shutil.rmtree(tmp_path / 'two' / 'snapshots' / '4')
  (tmp_path / 'two' / 'latest.safetensors').unlink()
  finish(*start_two(*flags, f'--workdir={tmp_path / "two"}'))
  again = read_weights(tmp_path / 'two' / 'latest.safetensors')
  for name, array in two.items():
    np.testing.assert_array_equal(array, again[name], err_msg=name)


def test_evaluation_follows_training(config, reference, tmp_path):
  data = reference / 'tapvid' / 'samples' / 'tapvid_davis.pkl'
  benchmark = ['--benchmark=davis_first', f'--data={data}']
  folder = tmp_path / 'run'
  train = ['--task=train', f'--config={config}', f'--workdir={folder}']
  place = folder / 'evaluations' / '4' / 'davis_first' / 'tapir'
  # Training evaluates as well, when it is asked to.
  finish(start(1, *train, *benchmark))
  assert (place / 'results.json').exists()
  shutil.rmtree(folder / 'evaluations')
  # What follows ends with the training.
  follow = ['--task=follow', f'--workdir={folder}', '--poll_seconds=0.1']
  finish(start(1, *follow, *benchmark))
  assert (place / 'results.json').exists()
  assert list((folder / 'summaries' / 'follow').iterdir())
