"""README and docs say what is so: blocks run, commands and tables hold."""

import dataclasses
import functools
from importlib import metadata
import inspect
import pathlib
import re
import runpy
import shlex
import sys
import types

from absl import flags
from absl.testing import flagsaver
import numpy as np
from PIL import Image
import pytest

from examples import draw_pictures
import tapjax
from tapjax.cli import main
from tapjax.data.procedural import demo
from tapjax.data.procedural import heldout
from tapjax.evaluation import benchmarks
from tapjax.media import track_files
from tapjax.models import registry
from tapjax.models.locotrack import cost as locotrack_cost
from tapjax.models.tapir_tiny.config import TAPIR_TINY
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions
from tapjax.settings import replace_settings
from tests.support import golden

ROOT = pathlib.Path(__file__).parents[1]
PATHS = (
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
)
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
    for path in PATHS
}
README = PAGES['README.md']
# The blocks of that page outline code; the functions are in the library.
OUTLINES = ('docs/architecture.md',)
BENCHMARKS = ('tapvid_davis', 'tapvid_kinetics', 'robotap')


def list_blocks(language, page):
  return re.findall(rf'^```{language}\n(.*?)^```', PAGES[page], re.M | re.S)


def get_marked_block(marker):
  """Returns the block after a marker, by the rule of `.ci/run`."""
  pattern = rf'^<!-- {marker} -->\n```\w+\n(.*?)^```'
  (block,) = re.findall(pattern, README, re.M | re.S)
  return block


def list_lines():
  """Returns the commands of all pages, without continuations, once each."""
  blocks = ''.join(''.join(list_blocks('bash', page)) for page in PAGES)
  return list(dict.fromkeys(blocks.replace('\\\n', ' ').splitlines()))


def list_commands(program):
  return [line for line in list_lines() if line.startswith(f'{program} ')]


def get_section(page, start, end=None):
  """Returns a page from one heading to another."""
  section = PAGES[page].split(f'\n{start}\n')[1]
  return section if end is None else section.split(f'\n{end}\n')[0]


def list_cells(section):
  """Returns the cells of all rows of the tables of a section."""
  lines = [line for line in section.splitlines() if line.startswith('|')]
  return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]


@functools.cache
def make_small_tracker():
  config = dataclasses.replace(
      TAPIR_TINY,
      resolution=(32, 32),
      channels=(4, 4, 8, 8),
      num_iterations=1,
      mixer_blocks=1,
      mixer_channels=8,
  )
  functions = TapirTinyFunctions(config)
  params = golden.make_random_params(functions)
  return tapjax.Tracker('tapir_tiny', config, functions, params)


@pytest.fixture
def small_world(monkeypatch, tmp_path):
  """A folder with a video, where whatever is loaded is a small tracker."""
  signature = inspect.signature(tapjax.load)

  def load(*args, **kwargs):
    asked = signature.bind(*args, **kwargs).arguments
    preset = registry.get_preset(asked.get('name', registry.DEFAULT))
    settings = dict(asked.get('settings', {}))
    if 'resolution' in asked:
      settings['resolution'] = asked['resolution']
    config = replace_settings(preset.config, settings)
    preset.architecture.make_functions(config)
    return make_small_tracker()

  monkeypatch.setattr(tapjax, 'load', load)
  monkeypatch.chdir(tmp_path)
  clip = demo.make_demo_clip(5, (32, 48))
  tapjax.write_video('video.mp4', clip.frames, frame_rate=24)
  return tmp_path


def test_example_of_the_readme(small_world, capsys):
  example = get_marked_block('example')
  assert len([line for line in example.splitlines() if line]) <= 10
  names = {}
  exec(compile(example, 'README.md, example', 'exec'), names)
  assert names['tracks'].positions.shape == (256, 5, 2)
  assert names['overlay'].shape == (5, 32, 48, 3)
  assert tapjax.read_video(small_world / 'tracks.mp4').shape == (5, 32, 48, 3)
  assert re.fullmatch(r'\[.*\] (True|False)\n', capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize(
    'page',
    [
        page
        for page in PAGES
        if page not in OUTLINES and list_blocks('python', page)
    ],
)
def test_python_blocks_run(page, small_world):
  """Later blocks of a page go on from where earlier ones end."""
  names = {}
  for number, block in enumerate(list_blocks('python', page)):
    # Dataclasses look their module up.
    names.setdefault('__name__', '__main__')
    exec(compile(block, f'{page}, block {number}', 'exec'), names)
    if page == 'docs/tutorials/track_a_video.md' and number == 0:
      whole = names['tracks']
  if page == 'docs/tutorials/track_a_video.md':
    np.testing.assert_allclose(
        names['positions'][0], whole.positions, rtol=0, atol=1e-3
    )


def test_pictures_are_drawn_again(tmp_path, monkeypatch):
  monkeypatch.setattr(draw_pictures, 'SIZE', (32, 48))
  monkeypatch.setattr(draw_pictures, 'NUM_FRAMES', 3)
  frames = draw_pictures.draw_tracks_of_demo(make_small_tracker())
  ringed = draw_pictures.draw_rings(frames[0], np.float32([[24.0, 16.0]]))
  changed = np.argwhere((ringed != frames[0]).any(axis=-1)) + 0.5
  distances = np.hypot(*(changed - (16, 24)).T)
  assert np.all(np.abs(distances - draw_pictures.RING) < 1)
  draw_pictures.write_webp(tmp_path / 'tracks.webp', frames)
  with Image.open(tmp_path / 'tracks.webp') as picture:
    assert (picture.size, picture.n_frames) == ((48, 32), 3)


def test_every_command_is_known():
  """No line of a block is left out by the tests of this file."""
  known = re.compile(
      r'tapjax .*|python -m experiments\.run .*|python -m examples\.\w+ .*'
      r'|python examples/\w+\.py .*|pip install .*|pytest.*|ruff check .*'
      r'|pyink .*|mypy|lint-imports|sphinx-build -W docs .*'
      r'|tensorboard --logdir.*|git (lfs install|clone .*)|python -m build'
  )
  assert [line for line in list_lines() if not known.fullmatch(line)] == []


@pytest.mark.parametrize('page', PAGES)
def test_links_between_pages_lead_somewhere(page):
  folder = (ROOT / page).parent
  links = re.findall(r'\]\((?!\w+:|#)([^)#\s]+)', PAGES[page])
  missing = [link for link in links if not (folder / link).exists()]
  assert missing == []


def test_readme_is_short_and_its_picture_small():
  assert len(README.splitlines()) <= 160
  for picture in (ROOT / 'docs' / 'images').iterdir():
    assert picture.stat().st_size <= 2_000_000, picture


@pytest.mark.parametrize('command', list_commands('tapjax'))
def test_commands_parse(command, monkeypatch):
  ran = []
  for name in main.COMMANDS:
    monkeypatch.setattr(
        main.import_command(name), 'run', lambda _, name=name: ran.append(name)
    )
  arguments = shlex.split(command)
  with pytest.raises(SystemExit) as exit_status:
    main.main(arguments)
  assert exit_status.value.code == 0
  assert ran == arguments[1:2]
  values = dict(re.findall(r'--(\w+)=(\S+)', command))
  if 'model' in values:
    registry.get_preset(values['model'])


@pytest.mark.parametrize('command', list_commands('python -m experiments.run'))
def test_experiments_parse(command):
  import experiments.run  # noqa: F401 - defines the flags.

  arguments = shlex.split(command)[2:]
  with flagsaver.flagsaver():
    assert flags.FLAGS(arguments) == arguments[:1]
  flags.FLAGS.unparse_flags()


def list_installed_commands():
  """Extras, and commands that the README runs after it installs these."""
  for block in (b for page in PAGES for b in list_blocks('bash', page)):
    extra = None
    for line in block.splitlines():
      install = re.fullmatch(r"pip install (?:-e )?'\.\[(\w+)\]'", line)
      if install:
        extra = install[1]
      elif extra and (program := line.split()[0]) not in ('python', 'tapjax'):
        yield extra, program


def find_package(program):
  """The installed package that brings a program."""
  return next(
      package.name.lower()
      for package in metadata.distributions()
      if any(
          file.stem == program and file.parent.name in ('bin', 'Scripts')
          for file in package.files or ()
      )
  )


def read_extras(monkeypatch):
  """Names of the packages that each extra brings."""
  arguments = {}
  setuptools = types.SimpleNamespace(
      setup=lambda **given: arguments.update(given),
      find_packages=lambda **_: [],
  )
  monkeypatch.setitem(sys.modules, 'setuptools', setuptools)
  runpy.run_path(str(ROOT / 'setup.py'))
  return {
      extra: {
          re.split(r'[<>=]', requirement)[0].lower() for requirement in brought
      }
      for extra, brought in arguments['extras_require'].items()
  }


def test_commands_come_with_the_extras_that_are_installed(monkeypatch):
  extras = read_extras(monkeypatch)
  commands = set(list_installed_commands())
  assert {('train', 'tensorboard'), ('test', 'pytest')} <= commands
  for extra, program in commands:
    assert find_package(program) in extras[extra], (extra, program)


def test_what_ci_runs():
  assert get_marked_block('install').splitlines() == [
      'pip install .',
      'tapjax track',
  ]
  assert get_marked_block('test').splitlines() == [
      "pip install '.[test]'",
      'pytest',
  ]


def test_model_table_is_that_of_list_models():
  rows = [
      '| `{}` | {:.1f} M | {} | {} | {} |'.format(
          model.name,
          model.num_parameters / 1e6,
          'yes' if model.streams else 'no',
          model.licence,
          ' | '.join(
              f'{model.scores[name]:.1f}' if name in model.scores else '-'
              for name in BENCHMARKS
          ),
      )
      for model in tapjax.list_models()
  ]
  section = get_section('docs/trackers.md', '## All presets')
  section = section.split('\n## ')[0]
  table = [line for line in section.splitlines() if line.startswith('|')]
  assert table[2:] == rows, 'the rows must be\n' + '\n'.join(rows)


def test_locotrack_table_counts_what_the_code_does():
  section = get_section(
      'docs/trackers.md', '### Operations and time of LocoTrack', '## PIPs++'
  )
  table = [line for line in section.splitlines() if line.startswith('|')]
  rows = [[cell.strip() for cell in line.split('|')[1:5]] for line in table[2:]]
  expected = []
  for name, preset in registry.PRESETS.items():
    if name.startswith('locotrack'):
      frame = locotrack_cost.count_frame(preset.config)
      point = locotrack_cost.count_point(preset.config, 50)
      expected.append(
          [
              f'`{name}`',
              f'{preset.num_parameters / 1e6:.1f} M',
              f'{frame / 1e9:.2f}',
              f'{point / 1e9:.3f}',
          ]
      )
  assert rows == expected, 'the rows must be\n' + '\n'.join(
      '| ' + ' | '.join(row) for row in expected
  )


def test_benchmark_table_is_that_of_the_runner():
  section = PAGES['docs/benchmarks.md']
  table = section.split('\n| benchmark | data | metric |\n')[1].split('\n\n')[0]
  named = [
      name
      for row in list_cells(table)
      for name in re.findall(r'`(\w+)`', row[0])
  ]
  assert named == list(benchmarks.BENCHMARKS)
  (videos,) = {
      int(number) for number in re.findall(r'(\d+) videos each', section)
  }
  assert videos == heldout.NUM_VIDEOS


def test_published_points_are_those_of_the_report():
  section = PAGES['docs/benchmarks.md']
  rows = [
      [f'`{name}`', *(f'{x:.1f}' for x in scores[:3]), scores.source]
      for name in benchmarks.BENCHMARKS
      for scores in benchmarks.get_published_points(name, 'pips_plus_plus')
  ]
  assert len(rows) == 5
  assert [row for row in list_cells(section) if len(row) == 5][2:] == rows


def test_addresses_of_all_data_are_listed():
  section = PAGES['docs/benchmarks.md']
  listed = {row[1].strip('<>`') for row in list_cells(section) if len(row) == 2}
  published = {b.address for b in benchmarks.BENCHMARKS.values() if b.address}
  assert published <= listed


def test_panning_movi_e_comes_by_git_lfs():
  section = get_section('docs/tutorials/training.md', '## Kubric')
  assert '273 GB' in section
  (line,) = re.findall(r'^git clone (.*)$', section, re.M)
  address, folder = line.split()
  assert f'<{address}>' in PAGES['docs/benchmarks.md']
  assert f'`{folder.split("/", 1)[1]}/256x256/1.0.0`' in section


def test_result_files_hold_what_is_listed(tmp_path):
  page = PAGES['docs/tutorials/track_a_video.md']
  table = page.split('| `tracks.npz` |')[1].split('\n')
  tracks = tapjax.Tracks(
      positions=np.zeros((1, 2, 2), np.float32),
      visible=np.ones((1, 2), bool),
      occlusion_logits=np.zeros((1, 2), np.float32),
      uncertainty_logits=np.zeros((1, 2), np.float32),
  )
  points = np.zeros((1, 3), np.float32)
  track_files.write_arrays(
      tmp_path / 'tracks.npz', tracks, points, 24.0, 'tapir'
  )
  with np.load(tmp_path / 'tracks.npz') as arrays:
    assert sorted(re.findall(r'`(\w+)`', table[0])) == sorted(arrays)
  track_files.write_table(tmp_path / 'tracks.csv', tracks, np.arange(2.0))
  header = (tmp_path / 'tracks.csv').read_text().splitlines()[0]
  assert f'`{header}`' in table[1]


@pytest.mark.parametrize(
    'path',
    sorted(
        set(
            re.findall(
                r'`((?:tapjax|tests|colabs|examples|experiments|\.ci)/[\w./]+)`',
                '\n'.join(PAGES.values()),
            )
        )
    ),
)
def test_named_files_exist(path):
  assert (ROOT / path).exists()
