"""Runs an experiment: `python -m experiments.run --task=TASK ...`.

--task=benchmark --model=tapir --frames=50 --queries=100
    Times a tracker on this machine and prints one row a setting.
--task=evaluate --model=tapir --benchmark=davis_first --data=DIR --workdir=DIR
    Evaluates trackers on benchmarks; goes on where it was interrupted.
--task=report --workdir=DIR
    Prints what was evaluated beside the published scores.
"""

import sys

from absl import app
from absl import flags

from experiments import benchmark
from experiments import evaluate

_TASK = flags.DEFINE_enum(
    'task',
    None,
    ['benchmark', 'evaluate', 'report'],
    'What to do.',
    required=True,
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder for everything a task writes.'
)


def main(argv: list[str]) -> None:
  """Runs the task that the flags name."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  if _TASK.value == 'benchmark':
    benchmark.run()
    return
  if _WORKDIR.value is None:
    raise app.UsageError('--workdir must name a folder for the results')
  try:
    if _TASK.value == 'evaluate':
      evaluate.run(_WORKDIR.value)
    else:
      evaluate.show_report(_WORKDIR.value)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'experiments.run: error: {error}')


if __name__ == '__main__':
  app.run(main)
