"""Notebooks are clean, import and call only, and run from top to bottom."""

import ast
import importlib.util
import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import venv

import numpy as np
import pytest

import tapjax
from tapjax.data.procedural.demo import make_demo_clip
from tapjax.models import registry
from tapjax.models import tapnet
from tests.support import golden

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


def read_field(path, name):
  """Returns a form field: its line, its value, and the choices."""
  text = ''.join(list_code(path))
  (line,) = re.findall(rf'^{name} = .*@param.*$', text, re.M)
  assignment, choices = line.split('# @param')
  (choices,) = re.findall(r'\[.*\]', choices) or ['null']
  value = ast.literal_eval(assignment.split('=')[1].strip())
  return value, json.loads(choices)


def test_models_to_choose_from_can_be_loaded(notebook):
  """Those whose weights come with their names, and online those that stream."""
  value, choices = read_field(notebook, 'model')
  assert choices == [
      model.name
      for model in tapjax.list_models()
      if model.name == registry.DEFAULT
      or (model.url is not None and not model.url.endswith('/'))
      if model.streams or notebook.stem != 'track_online'
  ]
  assert value in choices


def test_resolution_is_that_of_the_preset_unless_set(notebook):
  assert read_field(notebook, 'resolution') == ('', None)
  assert '256' not in ''.join(
      line for line in list_code(notebook) if 'tapjax.load(' in line
  )


def test_colab_gives_a_tpu(notebook):
  metadata = json.loads(notebook.read_text(encoding='utf-8'))['metadata']
  assert metadata['accelerator'] == 'TPU'
  assert metadata['colab']['gpuType'].startswith('V')  # The name of a TPU.


def test_the_repository_is_set_in_the_first_line(notebook):
  """By the same cell in all notebooks, as the README says."""
  installs = {list_code(path)[0] for path in NOTEBOOKS}
  assert list_code(notebook)[0] in installs
  assert len(installs) == 1
  assert list_code(notebook)[0].startswith("REPOSITORY = ''  # @param")
  readme = (ROOT / 'README.md').read_text(encoding='utf-8')
  section = readme.split('\n## Notebooks\n')[1].split('\n## ')[0]
  assert '`REPOSITORY`' in section
  assert 'pip install git+<your clone>' in ' '.join(section.split())


@pytest.fixture
def environment(tmp_path, monkeypatch):
  """Settings for a notebook of seconds: few frames, random weights."""
  config = tapnet.TAPNET
  functions = tapnet.TapNetFunctions(config)
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
      'TAPJAX_NUM_POINTS': 16,
      'TAPJAX_RESOLUTION': '64,64',
  }
  for name, value in settings.items():
    monkeypatch.setenv(name, str(value))
  return tmp_path


@pytest.fixture(scope='session')
def empty_venv(tmp_path_factory):
  """An environment that has nothing but a kernel, and no tapjax around."""
  folder = tmp_path_factory.mktemp('empty') / 'venv'
  venv.create(folder, with_pip=True)
  python = str(folder / 'bin' / 'python')
  for command in (
      ['-m', 'pip', 'install', '--quiet', 'ipykernel'],
      ['-m', 'ipykernel', 'install', '--sys-prefix', '--name=fresh'],
  ):
    subprocess.run([python, *command], check=True)
  assert not list_packages(python) & {'tapjax', 'jax', 'numpy', 'mediapy'}
  return folder


def list_packages(python):
  command = [python, '-m', 'pip', 'list', '--format=json']
  listed = json.loads(subprocess.check_output(command))
  return {package['name'] for package in listed}


@pytest.fixture
def fresh_environment(empty_venv, environment, monkeypatch):
  """The empty one for the first test, and for others one without tapjax.

  The first brings in what tapjax needs, which takes minutes.
  """
  monkeypatch.delenv('PYTHONPATH')
  monkeypatch.delenv('TAPJAX_CHECKPOINT')
  monkeypatch.setenv('TAPJAX_MODEL', 'tapir_tiny')
  monkeypatch.setenv('JUPYTER_PATH', str(empty_venv / 'share' / 'jupyter'))
  python = str(empty_venv / 'bin' / 'python')
  assert 'tapjax' not in list_packages(python)
  yield environment
  command = [python, '-m', 'pip', 'uninstall', '--yes', '--quiet', 'tapjax']
  subprocess.run(command, check=True)


@pytest.fixture
def repository(tmp_path):
  """A copy of the repository, as far as pip needs it."""
  folder = tmp_path / 'tapjax-main'
  shutil.copytree(
      ROOT / 'tapjax',
      folder / 'tapjax',
      ignore=shutil.ignore_patterns('__pycache__'),
  )
  for name in ('LICENSE', 'README.md', 'pyproject.toml', 'setup.py'):
    shutil.copy(ROOT / name, folder)
  return folder


@pytest.fixture
def colab(tmp_path, monkeypatch):
  """A folder with a `google.colab` that uploads, and notes what it is asked."""
  folder = tmp_path / 'colab'
  (folder / 'google' / 'colab').mkdir(parents=True)
  for name in ('__init__', 'output'):  # JAX imports `output`, where it is.
    (folder / 'google' / 'colab' / f'{name}.py').write_text('')
  (folder / 'google' / 'colab' / 'files.py').write_text(f"""
import pathlib, shutil

def upload():
  (path,) = pathlib.Path({str(folder)!r}, 'upload').iterdir()
  shutil.copy(path, '.')
  return {{path.name: path.read_bytes()}}

def download(path):
  assert pathlib.Path(path).is_file()
  with open({str(folder / 'downloads')!r}, 'a') as file:
    file.write(pathlib.Path(path).name + chr(10))
""")
  (folder / 'google' / 'colab' / 'drive.py').write_text("""
import pathlib

def mount(path):
  pathlib.Path(path, 'MyDrive').mkdir(parents=True, exist_ok=True)
""")
  (folder / 'upload').mkdir()
  path = [str(folder), os.environ.get('PYTHONPATH')]
  monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, path)))
  return folder


def join_streams(outputs):
  """Joins neighbouring messages of one stream.

  A kernel sends a printed line in one message or in several, by its speed.
  """
  joined = []
  for output in outputs:
    last = joined[-1] if joined else None
    if (
        last is not None
        and last.output_type == output.output_type == 'stream'
        and last.name == output.name
    ):
      last.text += output.text
    else:
      joined.append(output)
  return joined


def execute(notebook, folder, kernel='python3', changes=()):
  """Runs a notebook in a folder and returns the outputs of its cells.

  `changes` are pairs of a text in its code, and another in its place.
  """
  import nbclient
  import nbformat

  folder.mkdir(exist_ok=True)
  contents = nbformat.read(notebook, as_version=4)
  for old, new in changes:
    cells = [cell for cell in contents.cells if old in cell.source]
    assert cells, f'{old!r} is not in {notebook.name}'
    for cell in cells:
      cell.source = cell.source.replace(old, new)
  nbclient.NotebookClient(
      contents,
      timeout=1500,
      kernel_name=kernel,
      resources={'metadata': {'path': str(folder)}},
  ).execute()
  outputs = {
      cell.id: join_streams(cell.get('outputs', [])) for cell in contents.cells
  }
  assert f'tapjax {tapjax.__version__} with' in outputs['install'][-1].text
  return outputs


@pytest.mark.slow
def test_an_empty_environment_installs_from_git(
    fresh_environment, repository, monkeypatch
):
  for command in (
      ['init', '--quiet'],
      ['add', '--all'],
      ['-c', 'user.name=a', '-c', 'user.email=a', 'commit', '-qm', 'all'],
  ):
    subprocess.run(['git', *command], cwd=repository, check=True)
  address = f'git+{repository.as_uri()}'
  outputs = execute(
      ROOT / 'colabs' / 'track_a_video.ipynb',
      fresh_environment / 'work',
      'fresh',
      [("REPOSITORY = ''", f"REPOSITORY = '{address}'")],
  )
  assert '16 points' in outputs['track'][0].text
  assert '<video' in outputs['show'][0].data['text/html']
  assert 'tracks.mp4' in outputs['save'][0].text


@pytest.mark.slow
def test_an_empty_environment_installs_an_archive(
    fresh_environment, repository, monkeypatch
):
  video = make_demo_clip(8, (64, 64))
  davis = {
      'dots': {
          'video': video.frames,
          'points': video.target_points / 64,
          'occluded': video.occluded,
      }
  }
  data = fresh_environment / 'tapvid_davis.pkl'
  data.write_bytes(pickle.dumps(davis))
  monkeypatch.setenv('TAPJAX_DATA', str(data))
  folder = fresh_environment / 'work'
  folder.mkdir()
  shutil.make_archive(
      str(folder / 'tapjax-main'), 'zip', repository.parent, repository.name
  )
  outputs = execute(ROOT / 'colabs' / 'evaluate_davis.ipynb', folder, 'fresh')
  assert 'davis_first' in outputs['evaluate'][0].text
  assert re.search(r'^dots +8 +\d', outputs['videos'][0].text, re.M)
  assert '<video' in outputs['show'][0].data['text/html']


@pytest.mark.slow
def test_an_empty_colab_asks_for_an_archive(
    fresh_environment, repository, colab
):
  shutil.make_archive(
      str(colab / 'upload' / 'renamed'), 'zip', repository.parent, 'tapjax-main'
  )
  outputs = execute(
      ROOT / 'colabs' / 'track_online.ipynb',
      fresh_environment / 'work',
      'fresh',
  )
  assert '16 points' in outputs['session'][0].text
  assert '<video' in outputs['show'][0].data['text/html']
  assert (colab / 'downloads').read_text().split() == [
      'session.safetensors',
      'tracks.mp4',
  ]


def test_without_a_repository_one_line_says_what_to_set(tmp_path, monkeypatch):
  """Checked by the first cell alone, where tapjax cannot be found."""
  (code,) = list_code(ROOT / 'colabs' / 'track_a_video.ipynb')[:1]
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match='set REPOSITORY'):
    exec(compile(code, 'install', 'exec'), {})


@pytest.mark.slow
def test_colab_uploads_a_video_and_keeps_tracks_in_drive(environment, colab):
  frames = np.zeros((4, 32, 48, 3), np.uint8)
  tapjax.write_video(colab / 'upload' / 'mine.mp4', frames, frame_rate=12)
  execute(
      ROOT / 'colabs' / 'track_a_video.ipynb',
      environment / 'work',
      changes=[
          ('upload = False', 'upload = True'),
          ('save_to_drive = False', 'save_to_drive = True'),
          ("points = 'grid'", "points = 'random'"),
          ('/content/drive', str(environment / 'drive')),
      ],
  )
  folder = environment / 'drive' / 'MyDrive' / 'tracks'
  with np.load(folder / 'tracks.npz') as arrays:
    assert arrays['positions'].shape == (16, 4, 2)
    assert len(set(arrays['query_points'][:, 0])) > 1  # Of random frames.
  assert not (colab / 'downloads').exists()


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
  assert re.search(r'^camel +\d+ ', outputs['videos'][0].text, re.M)
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
