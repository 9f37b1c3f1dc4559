"""Runs an experiment: `python -m experiments.run --task=TASK ...`.

--task=benchmark --model=tapir --frames=50 --queries=100
    Times a tracker on this machine and prints one row a setting.
"""

from absl import app
from absl import flags

from experiments import benchmark

_TASK = flags.DEFINE_enum(
    'task', None, ['benchmark'], 'What to do.', required=True
)


def main(argv: list[str]) -> None:
  """Runs the task that the flags name."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  if _TASK.value == 'benchmark':
    benchmark.run()


if __name__ == '__main__':
  app.run(main)
