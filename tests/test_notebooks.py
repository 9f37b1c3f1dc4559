"""Notebooks are clean, import and call only, and run from top to bottom."""

import ast
import json
import os
import pathlib
import re

import golden
import numpy as np
import pytest

import tapjax
from tapjax.models import tapnet

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'colabs').glob('*.ipynb'))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
  return request.param


def list_code(path):
  """Returns the code cells of a notebook, shell lines made Python."""
  from IPython.core import inputtransformer2

  manager = inputtransformer2.TransformerManager()
  cells = json.loads(path.read_text(encoding='utf-8'))['cells']
  return [
      manager.transform_cell(''.join(cell['source']))
      for cell in cells
      if cell['cell_type'] == 'code'
  ]


def test_there_are_notebooks():
  assert NOTEBOOKS


def test_no_outputs_are_stored(notebook):
  import nbformat

  contents = nbformat.read(notebook, as_version=4)
  nbformat.validate(contents)
  for cell in contents.cells:
    if cell.cell_type == 'code':
      assert not cell.outputs
      assert cell.execution_count is None


def test_notebooks_define_nothing(notebook):
  definitions = (
      ast.FunctionDef,
      ast.AsyncFunctionDef,
      ast.ClassDef,
      ast.Lambda,
  )
  for code in list_code(notebook):
    for node in ast.walk(ast.parse(code)):
      assert not isinstance(node, definitions), ast.unparse(node)


def test_models_to_choose_from_are_all_presets(notebook):
  text = ''.join(list_code(notebook))
  (line,) = re.findall(r'^model = .*@param.*$', text, re.M)
  choices = json.loads(line.split('# @param')[1])
  assert choices == [model.name for model in tapjax.list_models()]
  assert ast.literal_eval(line.split('#')[0].split('=')[1].strip()) in choices


@pytest.fixture
def environment(tmp_path, monkeypatch):
  """What makes a notebook run in seconds: few frames, random weights."""
  config = tapnet.TAPNET
  functions = tapnet.make_functions(config)
  params = golden.make_random_params(functions)
  checkpoint = tmp_path / 'checkpoint.npy'
  tapjax.Tracker('tapnet', config, functions, params).save(checkpoint)
  settings = {
      'IPYTHONDIR': tmp_path / 'ipython',
      'JUPYTER_PLATFORM_DIRS': '1',
      'JUPYTER_RUNTIME_DIR': tmp_path / 'runtime',
      'PYTHONPATH': os.pathsep.join(
          filter(None, [str(ROOT), os.environ.get('PYTHONPATH')])
      ),
      'TAPJAX_CHECKPOINT': checkpoint,
      'TAPJAX_MAX_FRAMES': 6,
      'TAPJAX_MODEL': 'tapnet',
      'TAPJAX_POINTS': 4,
      'TAPJAX_RESOLUTION': 64,
  }
  for name, value in settings.items():
    monkeypatch.setenv(name, str(value))
  return tmp_path


def execute(notebook, folder):
  """Runs a notebook in a folder and returns the outputs of its cells."""
  import nbclient
  import nbformat

  folder.mkdir()
  contents = nbformat.read(notebook, as_version=4)
  nbclient.NotebookClient(
      contents,
      timeout=300,
      kernel_name='python3',
      resources={'metadata': {'path': str(folder)}},
  ).execute()
  outputs = {cell.id: cell.get('outputs', []) for cell in contents.cells}
  assert not outputs['install']  # It is there already.
  return outputs


@pytest.mark.slow
@pytest.mark.parametrize('source', ['demo', 'file'])
def test_track_a_video(environment, monkeypatch, source):
  shape = (6, 256, 256, 3)
  if source == 'file':
    shape = (6, 32, 48, 3)  # The first six of nine frames.
    frames = np.random.default_rng(0).integers(256, size=(9, *shape[1:]))
    path = environment / 'video.mp4'
    tapjax.write_video(path, frames.astype(np.uint8), frame_rate=12)
    monkeypatch.setenv('TAPJAX_VIDEO', str(path))
  folder = environment / 'work'
  outputs = execute(ROOT / 'colabs' / 'track_a_video.ipynb', folder)
  assert '16 points' in outputs['track'][0].text
  (shown,) = outputs['show']
  assert '<video' in shown.data['text/html']
  assert 'tracks.mp4' in outputs['save'][0].text
  with np.load(folder / 'tracks' / 'tracks.npz') as arrays:
    assert arrays['positions'].shape == (16, 6, 2)
    assert np.isfinite(arrays['positions']).all()
    assert arrays['model'] == 'tapnet'
  lines = (folder / 'tracks' / 'tracks.csv').read_text().splitlines()
  assert len(lines) == 1 + 16 * 6
  assert tapjax.read_video(folder / 'tracks' / 'tracks.mp4').shape == shape


@pytest.mark.slow
def test_evaluate_davis(environment, monkeypatch, reference):
  data = reference / 'tapvid' / 'samples' / 'tapvid_davis.pkl'
  monkeypatch.setenv('TAPJAX_DATA', str(data))
  folder = environment / 'work'
  outputs = execute(ROOT / 'colabs' / 'evaluate_davis.ipynb', folder)
  assert '2 videos of 8 10 frames' in outputs['data'][0].text
  assert 'davis_first  tapnet' in outputs['evaluate'][0].text
  assert '33.0' in outputs['evaluate'][0].text  # Published.
  assert 'camel' in outputs['videos'][0].text
  (shown,) = outputs['show']
  assert '<video' in shown.data['text/html']
  path = folder / 'evaluation' / 'davis_first' / 'tapnet' / 'results.json'
  results = json.loads(path.read_text())
  assert results['num_videos'] == 2
  assert results['resolution'] == [64, 64]
  assert not results['failed']


@pytest.mark.slow
def test_track_online(environment, monkeypatch):
  monkeypatch.delenv('TAPJAX_CHECKPOINT')
  monkeypatch.setenv('TAPJAX_MODEL', 'tapir_tiny')
  folder = environment / 'work'
  outputs = execute(ROOT / 'colabs' / 'track_online.ipynb', folder)
  assert '16 points in 32 slots' in outputs['session'][0].text
  assert re.search(r'frames a second, \d+ programs', outputs['step'][0].text)
  assert 'of 24 points are lost' in outputs['step'][0].text
  (shown,) = outputs['show']
  assert '<video' in shown.data['text/html']
  assert 'session.safetensors' in outputs['save'][0].text
  drawn = tapjax.read_video(folder / 'online' / 'tracks.mp4')
  assert drawn.shape == (6, 256, 256, 3)
