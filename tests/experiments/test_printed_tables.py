"""Printed tables of experiments, in columns that names fit into."""

import pathlib
import re

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

import experiments.run  # noqa: F401 - defines the flags.
from experiments.tasks import benchmark
from experiments.tasks import forward_backward
from experiments.tasks import overhead
from tapjax.evaluation.forward_backward import ForwardBackwardErrors
from tapjax.media import video as video_files

ROOT = pathlib.Path(__file__).parents[2]
LONG = 'locotrack_efficientnet_b0_934'


@pytest.fixture(autouse=True)
def parsed_flags():
  with flagsaver.flagsaver():
    flags.FLAGS(['run', '--task=benchmark'])
    yield
  flags.FLAGS.unparse_flags()


def split_columns(text):
  """Returns the cells of a table, whose columns are two spaces apart."""
  lines = text.splitlines()
  width = max(map(len, lines))
  lines = [line.ljust(width) for line in lines]
  gaps = ''.join(
      ' ' if set(column) == {' '} else '#'
      for column in zip(*lines, strict=True)
  )
  spans = [match.span() for match in re.finditer(r'#+(?: #+)*', gaps)]
  return [[line[a:b].strip() for a, b in spans] for line in lines]


def test_forward_backward_errors_have_columns_for_long_names(
    tmp_path, monkeypatch, capsys
):
  name = 'a_video_with_a_very_long_name.mp4'
  frames = np.zeros((3, 32, 48, 3), np.uint8)
  video_files.write_video(tmp_path / name, frames, frame_rate=12)
  errors = iter(
      [
          ForwardBackwardErrors(256, 2, 1.5, 1.0),
          ForwardBackwardErrors(256, 1, 30.0, 0.0),
      ]
  )
  monkeypatch.setattr(
      forward_backward, 'measure_forward_backward', lambda *_: next(errors)
  )

  class Tracker:
    track = None

  with flagsaver.flagsaver(videos=[str(tmp_path)]):
    forward_backward.run([LONG, 'tapir'], lambda model: Tracker())
  assert split_columns(capsys.readouterr().out) == [
      ['preset', 'video', 'size', 'points', 'back', 'median px', '< 4 px'],
      [LONG, name, '32x48', '256', '2', '1.50', '100%'],
      ['tapir', name, '32x48', '256', '1', '30.00', '0%'],
  ]


def test_overhead_has_columns_for_long_names(monkeypatch, capsys):
  monkeypatch.setattr(benchmark, 'make_random_tracker', lambda model: model)
  monkeypatch.setattr(overhead, 'measure', lambda tracker: (2, 1.5, 1.0))
  with flagsaver.flagsaver(model=[LONG, 'tapir']):
    overhead.run()
  assert split_columns(capsys.readouterr().out) == [
      ['preset', 'videos', 'programs', 'evaluation_s', 'bare_s', 'ratio'],
      [LONG, '5', '2', '1.5', '1', '1.50'],
      ['tapir', '5', '2', '1.5', '1', '1.50'],
  ]


def test_columns_are_aligned_in_one_place_alone():
  aligned = {
      path.relative_to(ROOT).as_posix()
      for folder in ('tapjax', 'experiments')
      for path in (ROOT / folder).rglob('*.py')
      if re.search(
          r'tabulate\.|\.[lr]just\(|:[<>]\d+\}', path.read_text('utf-8')
      )
  }
  assert aligned == {'tapjax/tables.py'}
