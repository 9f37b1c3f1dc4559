"""Dispatch of commands: help, errors, warnings and exit statuses."""

import os
import subprocess
import sys
import warnings

import jax
import pytest

import tapjax
from tapjax import pretrained
from tapjax.cli import main
from tests.cli.command_runs import Answer


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trak'], "unknown command 'trak'; use track, live, edit, track-"),
        (['--video=v'], "unknown command '--video=v'"),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_unknown_commands(run, folder, arguments, message):
  run(*arguments).check_refusal(2, message)
  assert not list(folder.iterdir())


def test_help(run):
  answer = run('--help')
  assert answer.status == 0
  assert answer.err == ''
  for name in main.COMMANDS:
    assert f'tapjax {name}' in answer.out
    for flag in ('--help', '-h'):
      described = run(name, flag)
      assert described.status == 0
      assert described.err == ''
      assert described.out.startswith(main.COMMANDS[name] + '\n')
      assert 'absl' not in described.out
  assert (
      '--num_points: Track this many random points'
      in run('track', '--help').out
  )
  assert run().status == 2


@pytest.mark.filterwarnings('default')
def test_warnings_take_a_line(run, weights, folder, monkeypatch):
  load = pretrained.load

  def warn(*args, **kwargs):
    warnings.warn('a word\nof warning', stacklevel=1)
    return load(*args, **kwargs)

  monkeypatch.setattr(pretrained, 'load', warn)
  answer = run('convert', f'--checkpoint={weights}', '--output=new.safetensors')
  assert answer.status == 0
  assert answer.err == 'tapjax: warning: a word; of warning\n'
  assert os.listdir(folder) == ['new.safetensors']


def test_errors_of_our_own_are_not_hidden(run, weights, monkeypatch):
  def fail(*args, **kwargs):
    raise TypeError('a mistake of the program')

  monkeypatch.setattr(pretrained, 'load', fail)
  with pytest.raises(TypeError, match='mistake'):
    run('convert', f'--checkpoint={weights}', '--output=new.npy')


def test_python_runs_the_package(folder):
  answer = subprocess.run(
      [sys.executable, '-m', 'tapjax', 'track', '--model=tapnet', '--video=no'],
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
      capture_output=True,
      check=False,
      text=True,
  )
  Answer(answer.returncode, answer.stdout, answer.stderr).check_refusal(
      1, "no video file 'no'"
  )
  assert answer.stderr.count('\n') == 1
  assert not os.listdir(folder)


def run_in_shell(command, **environment):
  return subprocess.run(
      command,
      shell=True,
      capture_output=True,
      text=True,
      check=False,
      env={**os.environ, 'PYTHON': sys.executable, **environment},
  )


def test_version(run):
  answer = run('--version')
  assert (answer.status, answer.err) == (0, '')
  assert answer.out == f'tapjax {tapjax.__version__}\n'


def test_a_platform_that_is_not_there_takes_a_line(monkeypatch, capsys):
  def fail():
    raise RuntimeError("Unable to initialize backend 'tpu': none (set JAX_P..)")

  monkeypatch.setenv('JAX_PLATFORMS', 'tpu')
  monkeypatch.setattr(jax, 'devices', fail)
  assert main.run_command(['tapjax', 'models']) == 1
  error = capsys.readouterr().err
  assert error.startswith('tapjax: error: JAX_PLATFORMS=tpu names no device')
  assert error.count('\n') == 1
  assert 'unset it' in error


@pytest.mark.slow
def test_streams_that_are_closed_are_no_error():
  piped = run_in_shell('"$PYTHON" -m tapjax models | head -1')
  assert piped.stdout.startswith('model')
  assert piped.stderr == ''
  for closed in ('>&-', '2>&-'):
    assert run_in_shell(f'"$PYTHON" -m tapjax models {closed}').returncode == 0
  wrong = run_in_shell('"$PYTHON" -m tapjax nothing 2>&-')
  assert wrong.returncode == 2
