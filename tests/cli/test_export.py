"""`tapjax export` as its users meet it, and what they do with its files."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import numpy as np
import pytest

import tapjax
from tapjax import export
from tapjax import pretrained
from tapjax.cli import main
from tapjax.data.procedural import demo
from tapjax.export import onnx_files
from tapjax.export import stablehlo_files
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.functions import TapirFunctions
from tests.support import golden

EXAMPLE = pathlib.Path(__file__).parents[2] / 'examples' / 'track_onnx.py'
SIZE = (32, 40)
NUM_FRAMES, NUM_QUERIES = 4, 3
CONFIG = TapirConfig(
    resolution=SIZE,
    initial_resolution=(32, 32),
    refinement_resolutions=((32, 32),),
    channels=(4, 4, 8, 8),
    strides=(2, 1, 2, 1),
    num_iterations=1,
    mixer_blocks=1,
    mixer_channels=8,
    temporal='past',
)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A file with a tiny tracker that streams."""
  functions = TapirFunctions(CONFIG)
  params = golden.make_random_params(functions)
  path = tmp_path_factory.mktemp('weights') / 'tiny.safetensors'
  pretrained.Tracker('causal_tapir', CONFIG, functions, params).save(path)
  return path


@pytest.fixture(scope='module')
def files(weights, tmp_path_factory):
  """A folder with ONNX files for four frames, and for frame by frame."""
  folder = tmp_path_factory.mktemp('files')
  tracker = pretrained.load(checkpoint=weights)
  for num_frames in (NUM_FRAMES, None):
    export.export_tracker(
        tracker,
        folder,
        format='onnx',
        num_queries=NUM_QUERIES,
        num_frames=num_frames,
    )
  return folder


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
  """Runs the command in this process, in an empty folder."""
  monkeypatch.chdir(tmp_path)

  def run(*arguments):
    capsys.readouterr()
    status = main.run_command(['tapjax', 'export', *map(str, arguments)])
    return status, *capsys.readouterr()

  return run


@pytest.mark.parametrize(
    ('arguments', 'status', 'message'),
    [
        (['--model=tapir'], 2, 'either --frames.* or --step'),
        (['--frames=8', '--step'], 2, 'either --frames.* or --step'),
        (['--frames=0'], 2, 'frames'),
        (
            ['--step', '--queries=0'],
            2,
            '--queries must be a number of at least',
        ),
        (['--step', '--queries=few'], 2, '--queries must be a number .*few'),
        (['--step', '--format=tflite'], 2, 'onnx, stablehlo|onnx\\|stablehlo'),
        (
            ['--model=tapir', '--frames=8', '--resolution=100,256'],
            1,
            'resolution must be multiples of 8.*100,256 - use 96,256',
        ),
        (
            ['--model=tapnet', '--frames=8', '--resolution=100,100'],
            1,
            'resolution must be multiples of 8',
        ),
        (
            ['--model=taptrv2', '--frames=8', '--resolution=256,512'],
            1,
            'resolution must be a square',
        ),
        (
            ['--model=locotrack_base', '--step'],
            1,
            'base needs the whole .* use one of causal_tapir, causal_bootst',
        ),
        (
            ['--step', '--queries=any'],
            1,
            'queries must be a number for onnx.*others change no track',
        ),
        (
            [
                '--model=point_transformer_resnet18',
                '--frames=8',
                '--queries=any',
                '--format=stablehlo',
            ],
            1,
            'points are tracked together',
        ),
        (['--model=tapier', '--step'], 1, 'did you mean tapir'),
    ],
)
def test_what_cannot_be_exported_is_told_before_the_work(
    run, monkeypatch, arguments, status, message
):
  monkeypatch.setattr(pretrained, 'load', None)
  found, out, err = run(*arguments)
  assert (found, out) == (status, '')
  (line,) = err.splitlines()
  assert re.search(message, line), line
  assert os.listdir() == []


@pytest.mark.parametrize('missing', ['jax2onnx', 'onnxruntime'])
def test_missing_packages_are_named(run, monkeypatch, missing):
  for package in ('jax2onnx', 'onnxruntime'):
    module = types.ModuleType(package)
    module.__spec__ = importlib.machinery.ModuleSpec(package, None)
    here = None if package == missing else module
    monkeypatch.setitem(sys.modules, package, here)
  monkeypatch.setattr(pretrained, 'load', None)
  status, _, err = run('--step')
  assert status == 1
  assert "pip install 'tapjax[export]'" in err
  assert missing in err


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_files_that_compute_something_else_are_not_left(
    run, weights, monkeypatch
):
  write = stablehlo_files.write_stablehlo

  def write_shifted(path, *programs):
    def shift(program):
      def function(*arrays):
        positions, *rest = program.function(*arrays)
        return positions + 0.02, *rest

      return program._replace(function=function)

    write(path, *map(shift, programs))

  monkeypatch.setattr(stablehlo_files, 'write_stablehlo', write_shifted)
  status, out, err = run(
      f'--checkpoint={weights}',
      '--frames=2',
      '--queries=1',
      '--format=stablehlo',
      '--output=files',
  )
  assert (status, out) == (1, '')
  assert 'differs by 0.02 px in positions, and nothing is written' in err
  assert not os.path.exists('files')


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_sessions_become_two_files(run, weights):
  status, out, err = run(
      f'--checkpoint={weights}',
      '--step',
      '--queries=2',
      '--format=stablehlo',
      '--output=files',
  )
  assert status == 0, err
  wrote, differences = out.splitlines()
  assert wrote == (
      'causal_tapir: wrote causal_tapir_start.stablehlo and '
      'causal_tapir_step.stablehlo to files'
  )
  assert re.search(r'from JAX: .* px in positions', differences)
  names = [
      f'causal_tapir_{part}.{kind}'
      for part in ('start', 'step')
      for kind in ('json', 'stablehlo')
  ]
  assert sorted(os.listdir('files')) == names
  description = json.loads(pathlib.Path('files', names[2]).read_text())
  assert description['preset'] == 'causal_tapir'
  assert description['resolution'] == '32,40'
  assert description['weights'] == weights.name
  assert description['licence_of_published_weights'] == 'Apache-2.0'
  assert description['inputs']['frame'] == {
      'type': 'uint8',
      'shape': [32, 40, 3],
  }
  assert description['outputs']['positions'] == {
      'type': 'float32',
      'shape': [2, 2],
  }


def read_table(text):
  rows = [line.split(',') for line in text.splitlines()[1:]]
  return np.asarray(rows, np.float64)


def run_example(*arguments):
  answer = subprocess.run(
      [sys.executable, '-P', EXAMPLE, *map(str, arguments)],
      capture_output=True,
      text=True,
      check=False,
  )
  assert answer.returncode == 0, answer.stderr
  return read_table(answer.stdout)


@pytest.mark.slow
def test_the_example_tracks_with_exported_files(weights, files, tmp_path):
  """Whole videos and frame by frame, at twice the size of the network."""
  clip = demo.make_demo_clip(NUM_FRAMES, (64, 80)).frames
  video = tmp_path / 'video.mp4'
  tapjax.write_video(video, clip, 24)
  whole = run_example(video, files / 'causal_tapir.onnx')
  stream = run_example(
      video,
      files / 'causal_tapir_start.onnx',
      files / 'causal_tapir_step.onnx',
  )
  for table in (whole, stream):
    assert table.shape == (NUM_FRAMES * NUM_QUERIES, 5)
    np.testing.assert_array_equal(
        table[:, 0], np.arange(NUM_FRAMES).repeat(NUM_QUERIES)
    )
    assert set(table[:, 4]) <= {0, 1}
  # What the tracker finds in the frames that the example's reader returns.
  specification = importlib.util.spec_from_file_location('example', EXAMPLE)
  example = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(example)
  size, *frames = example.read_frames(video, *SIZE)
  assert size == (64, 80)
  frames = np.stack(frames)
  points = np.float32([[0, 8, 10], [0, 8, 30], [0, 24, 10]])
  tracker = pretrained.load(checkpoint=weights)
  tracks = tracker.track(frames, points)
  found = whole[:, 2:4].reshape(NUM_FRAMES, NUM_QUERIES, 2).swapaxes(0, 1)
  np.testing.assert_allclose(found, 2 * tracks.positions, atol=0.02)
  session = tracker.start(frames[0], points[:, 1:])
  for index, frame in enumerate(frames):
    session, tracks = tracker.step(session, frame)
    found = stream[stream[:, 0] == index, 2:4]
    np.testing.assert_allclose(found, 2 * tracks.positions[:, 0], atol=0.02)


@pytest.mark.slow
def test_onnx_files_say_what_they_are(files):
  import onnx

  model = onnx.load(files / 'causal_tapir.onnx')
  onnx.checker.check_model(model)
  versions = {now.domain: now.version for now in model.opset_import}
  assert versions == {'': onnx_files.OPSET}
  metadata = {entry.key: entry.value for entry in model.metadata_props}
  assert metadata['preset'] == 'causal_tapir'
  assert '(0.5, 0.5) its center' in metadata['coordinates']
  assert [value.name for value in model.graph.input] == [
      'frames',
      'query_points',
  ]
  assert [value.name for value in model.graph.output] == [
      'positions',
      'visible',
      'occlusion_logits',
      'uncertainty_logits',
  ]
