"""Fixtures for tests of commands: a runner, tiny weights and a clip."""

import functools

import pytest

from tapjax import pretrained
from tapjax.cli import main
from tapjax.media import video as video_files
from tapjax.models import tapnet
from tests.cli.command_runs import Answer
from tests.cli.command_runs import make_frames
from tests.support import golden


@pytest.fixture
def run(capsys):
  """Runs the command in this process."""

  def run(*arguments):
    capsys.readouterr()
    status = main.run_command(['tapjax', *map(str, arguments)])
    return Answer(status, *capsys.readouterr())

  return run


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
  """A file with a tiny TAP-Net."""
  config = tapnet.TapNetConfig(resolution=(64, 64), channels=(16, 16, 24))
  functions = tapnet.TapNetFunctions(config)
  params = golden.make_random_params(functions)
  path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
  pretrained.Tracker('tapnet', config, functions, params).save(path)
  return path


@pytest.fixture(scope='session')
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp('clip') / 'clip.mp4'
  video_files.write_video(path, make_frames(5, 48, 64), 12.5)
  return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """An empty working folder."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def compile_once(weights, monkeypatch):
  """All loads of the tiny weights return one tracker."""
  tracker = _load_once(weights)
  monkeypatch.setattr(pretrained, 'load', lambda *args, **kwargs: tracker)


@functools.cache
def _load_once(path):
  return pretrained.load(checkpoint=path)
