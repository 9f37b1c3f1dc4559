"""Runs an experiment: `python -m experiments.run --task=TASK ...`.

--task=train --config=experiments/configs/FILE.py --workdir=DIR [--set a.b=c]
    Trains, or resumes the run in DIR; with --benchmark, each evaluation also
    runs that benchmark. On several machines:
    --coordinator=HOST:PORT --num_processes=2 --process=0, and 1.
--task=finetune --model=tapir_tiny --videos=FOLDER --workdir=DIR
    Fine-tunes a preset's weights, or those of --checkpoint, by self-training on
    videos, or on the data of --config=FILE. --frozen=PATTERN freezes modules.
--task=follow --workdir=DIR --benchmark=davis_first --data=DATA
    Evaluates each new checkpoint of a training run in DIR.
--task=input --config=experiments/configs/tapir_kubric.py --set data.root=DIR
    Times the input pipeline of a config.
--task=generate --workdir=DIR --num_scenes=16 [--set num_frames=24]
    Writes procedural training scenes in PointOdyssey's format.
--task=export_clips --workdir=DIR --set root=POINT_ODYSSEY/train
    Writes training clips of PIPs++ as videos; resumes a killed run.
--task=cycle --model=tapir_tiny --videos=FOLDER
    Prints forward-backward errors on unlabeled videos.
--task=release --workdir=DIR --output=FILE.safetensors
    Packs the best weights of a training run in half precision.
--task=benchmark --model=tapir --frames=50 --queries=100
    Times a tracker on this machine and prints one row per setting; with
    --streaming --queries=16,256,1024 the steps of a session; with --export
    ONNX Runtime and JAX.
--task=overhead --model=tapir
    Times the overhead of evaluation over bare calls.
--task=evaluate --model=tapir --benchmark=davis_first --data=DIR --workdir=DIR
    Evaluates trackers on benchmarks; resumes an interrupted run.
--task=report --workdir=DIR
    Prints all results with published scores.
"""

from collections.abc import Callable
import sys

from absl import app
from absl import flags
from absl import logging
import jax

from experiments.tasks import benchmark
from experiments.tasks import evaluate
from experiments.tasks import export_clips
from experiments.tasks import finetune
from experiments.tasks import follow
from experiments.tasks import forward_backward
from experiments.tasks import generate
from experiments.tasks import input_speed
from experiments.tasks import overhead
from experiments.tasks import release
from experiments.tasks import training

# From the name of a task to its function, which takes the folder for results.
_TASKS: dict[str, Callable[[str], None]] = {
    'benchmark': lambda _: benchmark.run(),
    'cycle': lambda _: forward_backward.run(
        benchmark.MODELS.value, evaluate.load_tracker
    ),
    'evaluate': evaluate.run,
    'export_clips': lambda workdir: export_clips.run(
        workdir, training.CHANGES.value
    ),
    'finetune': finetune.run,
    'follow': follow.run,
    'generate': lambda workdir: generate.run(workdir, training.CHANGES.value),
    'input': lambda _: input_speed.run(),
    'overhead': lambda _: overhead.run(),
    'release': release.run,
    'report': evaluate.show_report,
    'train': lambda workdir: training.run(
        workdir, follow.make_measure(workdir)
    ),
}
_TASK = flags.DEFINE_enum(
    'task', None, list(_TASKS), 'Task to run.', required=True
)
_COORDINATOR = flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of the first of several processes, the same for all; '
    '--num_processes says how many, --process which of them this is.',
)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder for everything a task writes.'
)
# Tasks that only print.
_WITHOUT_FOLDER = ('benchmark', 'cycle', 'input', 'overhead')


def main(argv: list[str]) -> None:
  """Runs the task named by the flags; bad input is a one-line error."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  if _TASK.value not in _WITHOUT_FOLDER and _WORKDIR.value is None:
    raise app.UsageError('--workdir must name a folder for the results')
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  try:
    if _COORDINATOR.value is not None:
      _join(_COORDINATOR.value)
    _TASKS[_TASK.value](_WORKDIR.value or '')
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'experiments.run: error: {error}')


def _join(coordinator: str) -> None:
  """Joins a group of processes that train together."""
  number, process = evaluate.NUM_PROCESSES.value, evaluate.PROCESS.value
  if number is None or process is None or not 0 <= process < number:
    raise ValueError(
        '--coordinator needs --num_processes and --process, from 0 on; got '
        f'{number} and {process}'
    )
  jax.distributed.initialize(coordinator, number, process)


if __name__ == '__main__':
  app.run(main)
