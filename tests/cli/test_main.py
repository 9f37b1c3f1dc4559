"""Dispatch of commands: help, errors, warnings and exit statuses."""

import io
import os
import subprocess
import sys
import warnings

import jax
import pytest

import tapjax
from tapjax import pretrained
from tapjax.cli import main
from tapjax.cli import progress
from tests.cli.command_runs import Answer


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trak'], "unknown command 'trak'; use track, live, edit, track-"),
        (['trak'], 'export - did you mean track'),
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


def test_version(run):
  answer = run('--version')
  assert answer == (0, f'tapjax {tapjax.__version__}\n', '')


@pytest.mark.parametrize(
    ('platforms', 'reason', 'message'),
    [
        (
            'cuda',
            AssertionError(),
            "got 'cuda' - unset it or set .*=cpu; for a cuda .*cuda12",
        ),
        (
            'tpu',
            RuntimeError("No 'tpu' here (set JAX_PLATFORMS='' to choose)"),
            r"got 'tpu' \(No 'tpu' here\) - unset .*=cpu; for a tpu .*tpu",
        ),
        (
            'moon',
            AssertionError(),
            "got 'moon' - unset it or set JAX_PLATFORMS=cpu$",
        ),
        (
            None,
            RuntimeError('no driver'),
            r'this machine \(no driver\) - set JAX_PLATFORMS=cpu to do without',
        ),
    ],
    ids=['cuda', 'tpu', 'unknown', 'unset'],
)
def test_platforms_that_are_not_here(
    run, weights, monkeypatch, platforms, reason, message
):
  def fail(*args, **kwargs):
    raise reason

  before = jax.config.jax_platforms
  monkeypatch.setattr(pretrained, 'load', fail)
  monkeypatch.setattr(jax, 'devices', fail)
  jax.config.update('jax_platforms', platforms)
  try:
    answer = run('convert', f'--checkpoint={weights}', '--output=new.npy')
  finally:
    jax.config.update('jax_platforms', before)
  answer.check_refusal(1, message)


_FULL = 'tapjax: error: the output cannot be written to stdout'


def call(shell, *arguments, **environment):
  """Runs the command in a shell, where "$@" stands for it."""
  answer = subprocess.run(
      ['sh', '-c', shell, 'sh', sys.executable, '-m', 'tapjax', *arguments],
      env={
          **os.environ,
          'PYTHONPATH': os.pathsep.join(sys.path),
          **environment,
      },
      capture_output=True,
      check=False,
      text=True,
  )
  return Answer(answer.returncode, answer.stdout, answer.stderr)


@pytest.mark.parametrize(
    ('shell', 'expected'),
    [
        ('"$@" >&-', (0, '', '')),
        ('"$@" >&- 2>&- <&-', (0, '', '')),
        ('{ sleep 0.1; "$@"; echo $? >&2; } | true', (0, '', '0\n')),
        (
            '"$@" >/dev/full',
            (1, '', f'{_FULL}: No space left on device\n'),
        ),
    ],
    ids=['closed', 'all-closed', 'no-reader', 'full-disk'],
)
def test_output_that_nobody_takes(folder, shell, expected):
  assert call(shell, '--version') == expected


@pytest.mark.parametrize(
    'shell', ['"$@" 2>&-', '{ sleep 0.1; "$@" 2>&1 >&3; } 3>&1 | true; exit 1']
)
def test_messages_that_nobody_takes(folder, shell):
  assert call(shell, 'trak')[1:] == ('', '')


def test_progress_that_nobody_takes(monkeypatch):
  """Results are worth more than the words on the way."""

  class Broken(io.StringIO):

    def write(self, text):
      raise BrokenPipeError(text)

  monkeypatch.setattr(sys, 'stderr', Broken())
  with progress.ProgressBars() as bars:
    with bars.stage('load'):
      bars.log('a word')
    bars.update('track', 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('JAX_PLATFORMS', 'cuda', "got 'cuda'.* - unset it or set JAX_PLATF"),
        ('JAX_PLATFORMS', 'tpu', "got 'tpu'.* - unset it or set JAX_PLATF"),
        ('JAX_ENABLE_X64', 'perhaps', "'perhaps' for environment 'JAX_ENABLE_"),
    ],
)
def test_flags_of_jax(weights, folder, name, value, message):
  answer = call(
      '"$@"',
      'convert',
      f'--checkpoint={weights}',
      '--output=new.npy',
      **{name: value},
  )
  answer.check_refusal(1, message)
  assert answer.err.count('\n') == 1
  assert not os.listdir(folder)


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
