"""Effects of importing tapjax, and modules that it must not import."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

# Slow to import, or not installed with the library.
UNWANTED = {
    'IPython',
    'cv2',
    'matplotlib',
    'mediapy',
    'pandas',
    'scipy',
    'tensorflow',
    'torch',
}
PROGRAM = """
import json
import sys
import tapjax
from tapjax.cli import main
for name in tapjax.__all__:
  getattr(tapjax, name)
for name in main.COMMANDS:
  main.import_command(name)
print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))
import jax
jax.devices()
"""


@pytest.fixture(scope='module')
def process():
  """A process that imports tapjax where no device can be had, then asks."""
  return subprocess.run(
      [sys.executable, '-W', 'error', '-c', PROGRAM],
      cwd=pathlib.Path(__file__).parents[1],
      env={**os.environ, 'JAX_PLATFORMS': 'none'},
      capture_output=True,
      text=True,
      check=False,
  )


def test_import_starts_no_device(process):
  assert process.stdout, process.stderr  # The import went well,
  assert 'Unable to initialize backend' in process.stderr  # asking did not.


def test_import_is_light(process):
  modules = set(json.loads(process.stdout))
  assert 'tapjax' in modules
  assert not modules & UNWANTED


def test_help_imports_no_jax():
  program = """
import sys
from tapjax.cli import main
status = main.run_command(['tapjax', '--help'])
sys.exit(status or ' '.join({'jax', 'haiku'} & set(sys.modules)) or 0)
"""
  answer = subprocess.run(
      [sys.executable, '-c', program],
      cwd=pathlib.Path(__file__).parents[1],
      capture_output=True,
      text=True,
      check=False,
  )
  assert (answer.returncode, answer.stderr) == (0, '')
  assert 'tapjax track ' in answer.stdout


def test_public_names():
  import tapjax

  assert set(tapjax.__all__) == tapjax._MODULES.keys()
  for name in tapjax.__all__:
    assert getattr(tapjax, name).__name__ == name
  assert set(tapjax.__all__) <= set(dir(tapjax))
  with pytest.raises(AttributeError, match="no attribute 'trackers'"):
    _ = tapjax.trackers
