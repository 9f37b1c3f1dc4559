"""Fixtures of whole runs: data, one device, and compiled programs."""

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest

from tapjax import parallel
from tests.support import tiny_runs


@pytest.fixture(scope='module')
def inputs(kept_programs, tmp_path_factory):
  return tiny_runs.write_inputs(tmp_path_factory.mktemp('inputs'))


@pytest.fixture(scope='module')
def one_device():
  mesh = parallel.make_mesh(jax.devices()[:1])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(parallel, 'make_mesh', lambda devices=None: mesh)
    yield


@pytest.fixture(scope='module')
def kept_programs(tmp_path_factory):
  """A run that goes on, and configs that differ little, compile nothing new.

  The rest is compiled quickly, that of `inputs` as well.
  """
  quick = 'jax_disable_most_optimizations'
  changes = {
      'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('programs')),
      'jax_persistent_cache_min_compile_time_secs': 0.0,
      'jax_persistent_cache_min_entry_size_bytes': -1,
  }
  before = {name: getattr(jax.config, name) for name in changes}
  before[quick] = jax.config.read(quick)
  for name, value in {**changes, quick: True}.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
