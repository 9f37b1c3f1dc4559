"""`--task=evaluate` as users run it: killed, resumed, shared, reported."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tapjax.evaluation import classical
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.tracker import Tracker
from tests.support import golden
from tests.support.tiny_runs import call

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = TapirConfig(
    resolution=(64, 64),
    initial_resolution=(64, 64),
    channels=(8, 8, 8, 8),
    pooled_levels=1,
    num_iterations=1,
    mixer_blocks=1,
    mixer_channels=16,
    temporal='past',
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  functions = TapirFunctions(CONFIG)
  params = golden.make_random_params(functions)
  path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
  Tracker('causal_tapir', CONFIG, functions, params).save(path)
  return path


def start(checkpoint, reference, workdir, *arguments, devices=1):
  command = [sys.executable, '-m', 'experiments.run', '--task=evaluate']
  command += ['--model=causal_tapir', f'--checkpoint={checkpoint}']
  command += ['--benchmark=davis_strided', f'--workdir={workdir}']
  command += [f'--data={reference}/tapvid/samples/tapvid_davis.pkl']
  flag = f'--xla_force_host_platform_device_count={devices}'
  return subprocess.Popen(
      [*command, *arguments],
      cwd=ROOT,
      env={**os.environ, 'XLA_FLAGS': flag, 'PYTHONPATH': str(ROOT)},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )


def finish(process):
  output, errors = process.communicate(timeout=600)
  assert process.returncode == 0, errors
  return output


def read(workdir):
  folder = workdir / 'davis_strided' / 'causal_tapir'
  return json.loads((folder / 'results.json').read_text())


@pytest.mark.slow
def test_killed_resumed_and_shared(checkpoint, reference, tmp_path):
  process = start(checkpoint, reference, tmp_path / 'killed')
  videos = tmp_path / 'killed' / 'davis_strided' / 'causal_tapir' / 'videos'
  for _ in range(6000):
    if list(videos.glob('[0-9]*.json')) or process.poll() is not None:
      break
    time.sleep(0.1)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  finished = {p.name: p.stat().st_mtime_ns for p in videos.glob('0*.json')}
  assert finished
  output = finish(start(checkpoint, reference, tmp_path / 'killed'))
  assert 'davis_strided' in output
  assert '58.3' in output  # Published.
  for name, time_ns in finished.items():
    assert (videos / name).stat().st_mtime_ns == time_ns
  expected = read(tmp_path / 'killed')
  assert expected['num_videos'] == 2
  assert expected['directions'] == ['forward', 'backward']

  finish(start(checkpoint, reference, tmp_path / 'four', devices=4))
  assert read(tmp_path / 'four') == expected

  pair = [
      start(
          checkpoint,
          reference,
          tmp_path / 'pair',
          f'--process={index}',
          '--num_processes=2',
      )
      for index in range(2)
  ]
  for process in pair:
    finish(process)
  assert read(tmp_path / 'pair') == expected


def test_classical_tracker_and_report(reference, tmp_path, capsys):
  arguments = [
      '--task=evaluate',
      f'--model={classical.NAME}',
      '--benchmark=rgb_stacking_first',
      '--resolution=64,64',
      f'--data={reference}/tapvid/samples',
      f'--workdir={tmp_path}',
  ]
  assert call(*arguments) == 0
  table = capsys.readouterr().out
  header, row = table.splitlines()
  assert header.split()[:4] == ['benchmark', 'model', 'resolution', 'AJ']
  assert row.split()[:2] == ['rgb_stacking_first', classical.NAME]
  assert call('--task=report', f'--workdir={tmp_path}', '--latex') == 0
  report = capsys.readouterr().out
  assert report.startswith(table)
  assert 'AJ & ' in report


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--benchmark=davis_frist'], 'did you mean davis_first'),
        (['--benchmark=davis_first'], 'download it from'),
        (['--benchmark=davis_first', '--data=/nowhere'], 'no file or folder'),
        (['--model=tapri'], 'did you mean tapir'),
        (['--task=report'], 'must have results'),
    ],
    ids=['benchmark', 'data', 'path', 'model', 'report'],
)
def test_bad_input_is_one_line(arguments, message, tmp_path):
  base = ['--task=evaluate', f'--model={classical.NAME}']
  status = call(*base, f'--workdir={tmp_path}', *arguments)
  assert message in status
  assert '\n' not in status


def test_a_folder_must_be_named(capsys):
  from absl import app

  with pytest.raises(app.UsageError, match='--workdir must name a folder'):
    call('--task=evaluate', f'--model={classical.NAME}')


def test_settings_of_the_preset():
  from experiments.tasks.evaluate import parse_settings

  assert parse_settings('taptrv2', []) == {}
  # A checkpoint's own settings are replaced also by what the preset has.
  assert parse_settings('taptrv2', ['ends=edges', 'window=8']) == {
      'ends': 'edges',
      'window': 8,
  }
  with pytest.raises(ValueError, match='did you mean ends'):
    parse_settings('taptrv2', ['endz=edges'])
