"""What importing tapjax does, and above all what it does not."""

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
