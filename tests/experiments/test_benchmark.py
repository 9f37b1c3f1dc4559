"""Printed tables of the benchmark."""

import csv
import datetime
import json
import subprocess

from absl import flags
from absl.testing import flagsaver
import pytest

import experiments.run  # noqa: F401 - defines the flags.
from experiments.tasks import benchmark
from tests.experiments.test_printed_tables import LONG
from tests.experiments.test_printed_tables import split_columns

STREAM_ROW = benchmark.StreamRow(
    LONG, 5, 16, '256x256', 'a cpu', 2.0, 30.0, 40.0, 512.3, 0.5
)


@pytest.fixture(autouse=True)
def parsed_flags():
  with flagsaver.flagsaver():
    flags.FLAGS(['run', '--task=benchmark'])
    yield
  flags.FLAGS.unparse_flags()


@pytest.fixture
def measured(monkeypatch):
  monkeypatch.setattr(benchmark, 'measure_steps', lambda *_: STREAM_ROW)


def test_benchmark_prints_one_table_of_all_processes(
    measured, monkeypatch, capsys
):
  """Each process measures one row, and hands it over as JSON."""
  commands = []

  def run(command, **_):
    commands.append(command)
    models = [x.split('=')[1] for x in command if x.startswith('--model=')]
    with flagsaver.flagsaver(json=True, model=models, frames=['5']):
      benchmark.run()
    return subprocess.CompletedProcess(command, 0, capsys.readouterr().out)

  monkeypatch.setattr(subprocess, 'run', run)
  with flagsaver.flagsaver(streaming=True, model=['a', 'b'], frames=['5']):
    benchmark.run()
  assert len(commands) == 2
  header, *rows = split_columns(capsys.readouterr().out)
  assert header[:5] == ['preset', 'steps', 'queries', 'resolution', 'device']
  assert header[8] == 'points x frames_per_s'
  assert rows == 2 * [
      [LONG, '5', '16', '256x256', 'a cpu', '2', '30', '40', '512', '0.5']
  ]


def test_benchmark_as_json(measured, capsys):
  with flagsaver.flagsaver(json=True, streaming=True, model=['a']):
    benchmark.run()
  assert json.loads(capsys.readouterr().out) == list(STREAM_ROW)


def test_benchmark_without_a_header(measured, capsys):
  with flagsaver.flagsaver(header=False, streaming=True, model=['a']):
    benchmark.run()
  (row,) = split_columns(capsys.readouterr().out)
  assert row[0] == LONG


def test_rows_are_appended_to_a_table(measured, tmp_path, capsys):
  path = tmp_path / 'speed.csv'
  for _ in range(2):
    with flagsaver.flagsaver(streaming=True, model=['a'], csv=str(path)):
      benchmark.run()
  header, *rows = csv.reader(path.read_text().splitlines())
  assert header == [*split_columns(capsys.readouterr().out)[0], 'cores', 'date']
  assert len(rows) == 2
  assert rows[0][:9] == [
      LONG,
      '5',
      '16',
      '256x256',
      'a cpu',
      *['2', '30', '40', '512'],
  ]
  assert datetime.date.fromisoformat(rows[0][-1])
  before = path.read_text()
  with (
      flagsaver.flagsaver(model=['a'], csv=str(path)),
      pytest.raises(ValueError, match='--csv must be a new file, or have the'),
  ):
    benchmark.run()
  assert path.read_text() == before
