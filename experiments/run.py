"""Runs an experiment: `python -m experiments.run --task=TASK ...`.

--task=train --config=experiments/configs/FILE.py --workdir=DIR [--set a.b=c]
    Trains, or goes on from where DIR has come to.
--task=cycle --model=tapir_tiny --videos=FOLDER
    Tracks videos there and back, and prints how far points are from home.
--task=release --workdir=DIR --output=FILE.safetensors
    Packs the best weights of a training run in half precision.
--task=benchmark --model=tapir --frames=50 --queries=100
    Times a tracker on this machine and prints one row a setting.
"""

import sys

from absl import app
from absl import flags
from absl import logging

from experiments import benchmark
from experiments import cycle
from experiments import release
from experiments import training

_TASK = flags.DEFINE_enum(
    'task',
    None,
    ['benchmark', 'cycle', 'release', 'train'],
    'What to do.',
    required=True,
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder for everything a task writes.'
)


def main(argv: list[str]) -> None:
  """Runs the task that the flags name; bad input is told in one line."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  if flags.FLAGS['verbosity'].using_default_value:
    logging.set_verbosity(logging.WARNING)
  try:
    if _TASK.value == 'benchmark':
      benchmark.run()
    elif _TASK.value == 'cycle':
      cycle.run(benchmark.MODELS.value)
    elif _TASK.value == 'train':
      training.run(_WORKDIR.value)
    elif _TASK.value == 'release':
      release.run(_WORKDIR.value)
  except (ValueError, FileNotFoundError) as error:
    sys.exit(f'experiments.run: {error}')


if __name__ == '__main__':
  app.run(main)
