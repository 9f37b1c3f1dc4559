"""Layout of the repository: a test file for each module, and module sizes."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
# A module with more lines has a test file of its name.
MOST_UNTESTED = 40
# A module with more lines has more than one subject.
MOST_LINES = 500


def count_lines(folder):
  """Returns the lines of each module below a folder, by its path."""
  return {
      path.relative_to(ROOT): len(path.read_text('utf-8').splitlines())
      for path in sorted((ROOT / folder).rglob('*.py'))
  }


def test_modules_have_test_files_of_their_names():
  tested = {path.name for path in (ROOT / 'tests').rglob('test_*.py')}
  modules = {**count_lines('tapjax'), **count_lines('experiments')}
  missing = [
      str(path)
      for path, num_lines in modules.items()
      if num_lines > MOST_UNTESTED
      and path.name != '__init__.py'
      and 'configs' not in path.parts
      and f'test_{path.name}' not in tested
  ]
  assert modules
  assert missing == []


def test_modules_have_one_subject():
  large = {
      str(path): num_lines
      for path, num_lines in count_lines('tapjax').items()
      if num_lines > MOST_LINES
  }
  assert large == {}
