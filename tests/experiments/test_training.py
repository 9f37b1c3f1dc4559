"""Training runs from the command line, small but whole."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

import tapjax
from tapjax.training.summaries import read_curves

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow

VIDEO = ['num_frames=3', 'resolution=(16,16)', 'num_objects=2']
VIDEO += ['texture_size=8', 'num_leaves=2', 'samples_per_pixel=1']
SETTINGS = [
    *(f'data.video.{setting}' for setting in VIDEO),
    *(f'validation.video.{setting}' for setting in VIDEO),
    'data.video.num_queries=8',
    'data.num_queries=4',
    'data.num_videos=2',
    'validation.video.num_queries=4',
    'validation.num_videos=2',
    'model.resolution=(16,16)',
    'model.channels=(4,4,4,4)',
    'model.mixer_channels=8',
    'model.mixer_blocks=1',
    'loop.evaluate_every=5',
    'loop.save_every=2',
    'loop.report_every=1',
    'step.optimizer.num_steps=14',
    'step.optimizer.warmup_steps=2',
]


def start(folder, *changes):
  command = [sys.executable, '-m', 'experiments.run', '--task=train']
  command += ['--config=experiments/configs/tapir_tiny_procedural.py']
  command += [f'--workdir={folder}']
  for setting in (*SETTINGS, *changes):
    command += ['--set', setting]
  return subprocess.Popen(
      command,
      cwd=ROOT,
      env={
          **os.environ,
          'XLA_FLAGS': '',
          'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
  )


def finish(process):
  output, _ = process.communicate(timeout=400)
  return process.returncode, output


def read_last_state(folder):
  """The bytes of every array of the last snapshot, through the library."""
  import orbax.checkpoint as ocp

  with ocp.CheckpointManager(
      (folder / 'snapshots').absolute(),
      item_handlers=ocp.StandardCheckpointHandler(),
  ) as manager:
    return manager.latest_step(), manager.restore(manager.latest_step())


def test_killed_run_ends_with_the_same_bits(tmp_path):
  code, output = finish(start(tmp_path / 'whole'))
  assert code == 0, output
  assert '14/14' in output
  assert 'validation/average_jaccard' in output

  process = start(tmp_path / 'killed')
  saved = tmp_path / 'killed' / 'snapshots' / '6'
  deadline = time.monotonic() + 400
  while not saved.exists() and time.monotonic() < deadline:
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.wait()
  code, output = finish(start(tmp_path / 'killed'))
  assert code == 0, output
  assert '14/14' in output

  step, whole = read_last_state(tmp_path / 'whole')
  resumed_step, resumed = read_last_state(tmp_path / 'killed')
  assert step == resumed_step == 14
  assert_same(whole, resumed)

  # What it leaves is a tracker, and says how it came to be.
  best = tmp_path / 'killed' / 'best.safetensors'
  tracker = tapjax.load(checkpoint=best)
  assert tracker.name == 'tapir_tiny'
  assert tracker.config.mixer_channels == 8
  with safetensors.safe_open(best, framework='numpy') as file:
    metadata = file.metadata()
  assert '--task=train' in metadata['command']
  assert int(metadata['steps']) in (5, 10, 14)
  assert list((tmp_path / 'killed' / 'summaries').iterdir())
  curves = read_curves(tmp_path / 'killed' / 'curves.csv')
  expected = read_curves(tmp_path / 'whole' / 'curves.csv')
  assert curves['train/loss'] == expected['train/loss']


def assert_same(ours, theirs):
  import jax

  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('step.optimizer.peak_rl=1', 'did you mean peak_lr?'),
        ('step.optimizer.peak_lr=float("nan")', 'must be float'),
        ('data.batch_size=3', 'num_videos must be a multiple of batch_size'),
        ('initial=absent.safetensors', 'there is no checkpoint'),
    ],
)
def test_what_stops_a_run_is_told_in_one_line(tmp_path, change, message):
  code, output = finish(start(tmp_path, change))
  assert code == 1
  assert message in output.splitlines()[-1]
  assert 'Traceback' not in output
