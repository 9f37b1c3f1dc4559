"""Compilation: counts, times, and programs kept between processes.

A program is compiled when a tracker meets a shape for the first time. What
`Tracker.warmup` compiles is ready when a video comes.
"""

from collections.abc import Iterator
import contextlib
import functools
import os
import pathlib

import jax
from jax.experimental.compilation_cache import compilation_cache

_COMPILED = '/jax/core/compile/backend_compile_duration'
# Counters that are open now.
_OPEN: list['Compilations'] = []


class Compilations:
  """Programs compiled while a `count_compilations` was open.

  Attributes:
    count: of programs.
    seconds: that compiling them took; tracing comes on top.
  """

  def __init__(self):
    self.count = 0
    self.seconds = 0.0


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
  """Counts programs that are compiled inside, and their time.

  ```python
  with tapjax.count_compilations() as compilations:
    tracker.track(frames, query_points)
  print(compilations.count, compilations.seconds)
  ```
  """
  _listen()
  compilations = Compilations()
  _OPEN.append(compilations)
  try:
    yield compilations
  finally:
    _OPEN.remove(compilations)


def keep_compiled_programs(folder: str | os.PathLike[str]) -> None:
  """Keeps what is compiled from now on in a folder, for later processes.

  Programs fit one version of JAX and one kind of device; others are compiled
  anew and kept beside.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  compilation_cache.reset_cache()  # JAX keeps the first folder otherwise.
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


@functools.cache
def _listen() -> None:
  """Registers the one listener that there is."""
  jax.monitoring.register_event_duration_secs_listener(_note)


def _note(event: str, duration_secs: float, **details: str | int) -> None:
  del details
  if event == _COMPILED:
    for compilations in _OPEN:
      compilations.count += 1
      compilations.seconds += duration_secs
