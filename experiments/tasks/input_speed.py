"""Speed of the input pipeline of any config."""

from collections.abc import Callable
import dataclasses
import sys
import time
from typing import Any

from absl import flags
import jax

from experiments.config import override_config
from experiments.config import read_config
from experiments.config import RunConfig
from experiments.tasks import training
from tapjax import parallel
from tapjax import tables
from tapjax.data.kubric.batches import KubricConfig
from tapjax.data.kubric.batches import profile_input

_EXAMPLES = flags.DEFINE_integer(
    'examples', 20, 'Examples to time, for --task=input.'
)


def run() -> None:
  """Prints times of the stages, and examples per second."""
  if training.CONFIG.value is None:
    raise ValueError('--task=input needs --config=FILE')
  config = read_config(training.CONFIG.value)
  config = override_config(config, training.CHANGES.value)
  print_profile(config, _EXAMPLES.value)


def print_profile(config: RunConfig, num_examples: int) -> None:
  """Times examples, in whole batches, sequentially."""
  if num_examples < 1:
    raise ValueError(f'--examples must be at least 1; got {num_examples}')
  rows: list[tuple[str, float]] = []
  data = getattr(config, 'data', None)
  if isinstance(data, KubricConfig):
    profile = profile_input(data, num_examples, config.seed)
    rows = [
        ('reading and decoding', profile.read),
        ('tracks', profile.tracks),
        ('resizing and colors, on the device', profile.device),
    ]
    sys.stdout.write(f'{profile.per_core:.1f} examples a second and core\n')
  draw, batch_size = make_input(config)
  num_batches = -(-num_examples // batch_size)
  jax.block_until_ready(draw(0))  # Compiles.
  start = time.perf_counter()
  for step in range(1, num_batches + 1):
    jax.block_until_ready(draw(step))
  seconds = (time.perf_counter() - start) / (num_batches * batch_size)
  rows.append(('a batch, from beginning to end', seconds))
  tables.write_table(
      ('step', 'ms an example'),
      [(name, f'{1000 * seconds:.1f}') for name, seconds in rows],
  )
  sys.stdout.write(
      f'{1 / seconds:.1f} examples a second, without reading ahead\n'
  )


def make_input(config: RunConfig) -> tuple[Callable[[int], Any], int]:
  """Returns the function from a step to its batch, and the batch size.

  Batches are on one device, without reading ahead.
  """
  mesh = parallel.make_mesh(jax.devices()[:1])
  data: Any = getattr(config, 'data', None)
  if data is not None and hasattr(data, 'num_workers'):
    data = dataclasses.replace(data, num_workers=0)
    changes: dict[str, Any] = {'data': data}
    config = dataclasses.replace(config, **changes)
  return config.make_draw(mesh), data.batch_size
