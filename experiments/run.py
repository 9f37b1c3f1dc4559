"""Runs an experiment: `python -m experiments.run --task=TASK ...`.

--task=train --config=experiments/configs/FILE.py --workdir=DIR [--set a.b=c]
    Trains, or goes on from where DIR has come to; with --benchmark, also
    evaluates on it whenever weights are judged. On several machines:
    --coordinator=HOST:PORT --num_processes=2 --process=0, and 1.
--task=finetune --model=tapir_tiny --videos=FOLDER --workdir=DIR
    Trains on from a preset's weights, or those of --checkpoint, by what the
    tracker itself believes of videos; --config=FILE has other data instead.
    --frozen=PATTERN keeps modules as they are.
--task=follow --workdir=DIR --benchmark=davis_first --data=DATA
    Evaluates the weights that a training run in DIR leaves, as they come.
--task=input --config=experiments/configs/tapir_kubric.py --set data.root=DIR
    Times how the data of a config is read, or made.
--task=generate --workdir=DIR --num_scenes=16 [--set num_frames=24]
    Writes procedural scenes in PointOdyssey's format, to train on.
--task=export_clips --workdir=DIR --set root=POINT_ODYSSEY/train
    Writes training clips of PIPs++ as videos; goes on where it was killed.
--task=cycle --model=tapir_tiny --videos=FOLDER
    Tracks videos there and back, and prints how far points are from home.
--task=release --workdir=DIR --output=FILE.safetensors
    Packs the best weights of a training run in half precision.
--task=benchmark --model=tapir --frames=50 --queries=100
    Times a tracker on this machine and prints one row a setting; with
    --streaming --queries=16,256,1024 the steps of a session; with --export
    ONNX Runtime beside JAX.
--task=overhead --model=tapir
    Times what evaluation costs over bare calls.
--task=evaluate --model=tapir --benchmark=davis_first --data=DIR --workdir=DIR
    Evaluates trackers on benchmarks; goes on where it was interrupted.
--task=report --workdir=DIR
    Prints what was evaluated beside the published scores.
"""

import sys

from absl import app
from absl import flags
from absl import logging
import jax

from experiments import benchmark
from experiments import cycle
from experiments import evaluate
from experiments import export_clips
from experiments import finetune
from experiments import follow
from experiments import generate
from experiments import input_speed
from experiments import overhead
from experiments import release
from experiments import training

_TASK = flags.DEFINE_enum(
    'task',
    None,
    [
        'benchmark',
        'cycle',
        'evaluate',
        'export_clips',
        'finetune',
        'follow',
        'generate',
        'input',
        'overhead',
        'release',
        'report',
        'train',
    ],
    'What to do.',
    required=True,
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
  """Runs the task that the flags name; bad input is told in one line."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected argument {argv[1]!r}')
  if _TASK.value not in _WITHOUT_FOLDER and _WORKDIR.value is None:
    raise app.UsageError('--workdir must name a folder for the results')
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)
  try:
    if _COORDINATOR.value is not None:
      _join(_COORDINATOR.value)
    _run(_TASK.value, _WORKDIR.value or '')
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'experiments.run: error: {error}')


def _join(coordinator: str) -> None:
  """Makes this one of several processes that work on the same."""
  number, process = evaluate.NUM_PROCESSES.value, evaluate.PROCESS.value
  if number is None or process is None or not 0 <= process < number:
    raise ValueError(
        '--coordinator needs --num_processes and --process, from 0 on; got '
        f'{number} and {process}'
    )
  jax.distributed.initialize(coordinator, number, process)


def _run(task: str, workdir: str) -> None:
  if task == 'benchmark':
    benchmark.run()
  elif task == 'cycle':
    cycle.run(benchmark.MODELS.value, evaluate.load_tracker)
  elif task == 'train':
    training.run(workdir, follow.make_measure(workdir))
  elif task == 'finetune':
    finetune.run(workdir)
  elif task == 'follow':
    follow.run(workdir)
  elif task == 'input':
    input_speed.run()
  elif task == 'generate':
    generate.run(workdir, training.CHANGES.value)
  elif task == 'export_clips':
    export_clips.run(workdir, training.CHANGES.value)
  elif task == 'overhead':
    overhead.run()
  elif task == 'release':
    release.run(workdir)
  elif task == 'evaluate':
    evaluate.run(workdir)
  else:
    evaluate.show_report(workdir)


if __name__ == '__main__':
  app.run(main)
