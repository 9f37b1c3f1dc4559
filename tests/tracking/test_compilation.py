"""Compilations are counted, and kept where one asks for it."""

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import pytest

import tapjax


def test_counts_what_is_compiled_inside():
  double = jax.jit(lambda x: 2 * x)
  x = jnp.ones(3)
  with tapjax.count_compilations() as outer:
    double(x)
    with tapjax.count_compilations() as inner:
      double(x)
  triple = jax.jit(lambda x: 3 * x)
  triple(x)
  assert (outer.count, inner.count) == (1, 0)
  assert outer.seconds > 0
  assert inner.seconds == 0


@pytest.fixture
def restored_cache():
  names = (
      'jax_compilation_cache_dir',
      'jax_persistent_cache_min_compile_time_secs',
      'jax_persistent_cache_min_entry_size_bytes',
  )
  old = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in old.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


@pytest.mark.usefixtures('restored_cache')
def test_programs_are_kept_in_the_last_folder(tmp_path):
  for side in (5, 6):
    folder = tmp_path / str(side)
    tapjax.keep_compiled_programs(folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.jit(lambda x: x @ x)(jnp.ones((side, side)))
    assert list(folder.iterdir())
