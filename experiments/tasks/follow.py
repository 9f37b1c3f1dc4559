"""Evaluation of a training run in progress, in a separate process.

Each new DIR/latest.safetensors is evaluated until the run ends; results are in
DIR/evaluations/STEP and in TensorBoard's files.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import pathlib
import time

from absl import flags

from experiments.tasks import evaluate
from experiments.tasks.training import LATEST
import tapjax
from tapjax import checkpoints
from tapjax.evaluation import methods
from tapjax.evaluation.evaluate import Share
from tapjax.training.summaries import Summaries

_POLL_SECONDS = flags.DEFINE_float(
    'poll_seconds', 30.0, 'Between looks for new weights, for --task=follow.'
)
_MOST_POLLS = flags.DEFINE_integer(
    'most_polls',
    None,
    'Looks in a row that find nothing new, after which --task=follow ends; '
    'without it, it goes on until the training is at its end.',
)


def run(workdir: str) -> None:
  """Evaluates weights of a training run as they appear."""
  folder = pathlib.Path(workdir)
  done = -1
  polls = 0
  with Summaries(folder / 'summaries' / 'follow') as summaries:
    while True:
      found = read_steps(folder / LATEST)
      if found is not None and found[0] > done:
        done, polls = found[0], 0
        summaries.write_scalars(done, evaluate_weights(folder, done))
      elif _MOST_POLLS.value is not None and polls >= _MOST_POLLS.value:
        return
      else:
        polls += 1
        time.sleep(_POLL_SECONDS.value)
      if found is not None and found[1] is not None and done >= found[1]:
        return


def read_steps(path: pathlib.Path) -> tuple[int, int | None] | None:
  """Returns the steps of weights and of the whole training, or None.

  Files appear atomically, by renaming.
  """
  if not path.exists():
    return None
  metadata = checkpoints.read_checkpoint(path).metadata
  whole = metadata.get('num_steps')
  return int(metadata['steps']), None if whole is None else int(whole)


def evaluate_weights(folder: pathlib.Path, step: int) -> dict[str, float]:
  """Evaluates the current weights on the benchmarks of the flags."""
  tracker = tapjax.load(checkpoint=folder / LATEST)
  method = methods.make_method(tracker)
  scalars = {}
  for name in evaluate.BENCHMARK.value:
    place = folder / 'evaluations' / str(step)
    # Nobody shares the work, however many processes train.
    result = evaluate.run_one(name, method, place, Share(0, 1))
    assert result is not None, 'no process is left to wait for'
    for metric, mean in result['mean'].items():
      if mean['value'] is not None:
        scalars[f'{name}/{metric}'] = mean['value']
  return scalars


def make_measure(workdir: str) -> Callable[[int], Mapping[str, float]] | None:
  """Returns the evaluation during training; None without `--benchmark`."""
  if not evaluate.BENCHMARK.present:
    return None
  return functools.partial(evaluate_weights, pathlib.Path(workdir))
