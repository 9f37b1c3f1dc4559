"""Programs that run exported files."""

import pathlib
import re

from tapjax.export import run_file


def test_programs_that_run_files_know_nothing_of_tapjax():
  source = pathlib.Path(run_file.__file__).read_text()
  imported = re.findall(r'^\s*(?:from|import) (\w+)', source, re.MULTILINE)
  assert set(imported) == {
      'collections',
      'jax',
      'numpy',
      'onnxruntime',
      'sys',
      'typing',
  }
