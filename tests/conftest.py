"""Test settings: shape annotations are executed, rank promotion is an error."""

import os
import pathlib

import jaxtyping

os.environ.setdefault('XLA_FLAGS', '--xla_force_host_platform_device_count=8')

jaxtyping.install_import_hook('tapjax', 'beartype.beartype')

import jax  # noqa: E402
import pytest  # noqa: E402

from tapjax.tracking.compilation import keep_compiled_programs  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_platforms', os.environ.get('JAX_PLATFORMS', 'cpu'))


def pytest_configure(config):
  """Compiles quickly for the default run, and as users do for the slow one.

  The default run also takes what an earlier one compiled, from pytest's cache.
  """
  is_default = 'not slow' in config.option.markexpr
  jax.config.update('jax_disable_most_optimizations', is_default)
  if is_default:
    keep_compiled_programs(config.cache.mkdir('compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


@pytest.fixture
def quick_compilation():
  """For what takes longer to compile than to run, in the slow run too."""
  name = 'jax_disable_most_optimizations'
  before = jax.config.read(name)
  jax.config.update(name, True)
  yield
  jax.config.update(name, before)


@pytest.fixture(scope='module', autouse=True)
def few_programs(request):
  """Lets compiled programs go: of all slow tests they are too many to map."""
  yield
  if 'not slow' not in request.config.option.markexpr:
    jax.clear_caches()


@pytest.fixture(scope='session', autouse=True)
def shared_compilations(tmp_path_factory):
  """Processes that tests start share what they compile; this one does not."""
  with pytest.MonkeyPatch.context() as patch:
    folder = tmp_path_factory.mktemp('compiled')
    patch.setenv('JAX_COMPILATION_CACHE_DIR', str(folder))
    yield


@pytest.fixture(scope='session')
def tapnet_file(tmp_path_factory):
  """Random weights of a TAP-Net in the published layout."""
  from tapjax.models import tapnet
  from tapjax.tracker import Tracker
  from tests.support import golden

  config = tapnet.TAPNET
  functions = tapnet.TapNetFunctions(config)
  params = golden.make_random_params(functions)
  path = tmp_path_factory.mktemp('weights') / 'checkpoint.npy'
  Tracker('tapnet', config, functions, params).save(path)
  return path


_REPOSITORY = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='session')
def reference() -> pathlib.Path:
  """The folder of reference data, or a skip that says where it was sought."""
  folder = pathlib.Path(
      os.environ.get('TAPJAX_REFERENCE')
      or _REPOSITORY.parent / 'shared' / 'reference'
  )
  if not folder.is_dir():
    pytest.skip(f'no reference data at {folder}; set TAPJAX_REFERENCE')
  return folder
