"""Training of a recipe: snapshots, summaries and weights in a folder.

DIR/snapshots           states of resumed runs
DIR/latest.safetensors  the weights at the last evaluation, for `tapjax.load`
DIR/best.safetensors    the weights with the best score
DIR/final.npy           the last weights, in the published JAX format
DIR/summaries           for TensorBoard
DIR/curves.csv          scalars of the summaries: step,name,value
DIR/config.txt          config and command
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import pathlib
import pprint
import shlex
import sys
from typing import Any
import warnings

from absl import flags
import jax

from experiments.config import override_config
from experiments.config import read_config
from experiments.config import RunConfig
from experiments.recipes.description import describe_run
from experiments.recipes.recipe import describe_scalars
from experiments.recipes.recipe import make_tracker
from experiments.recipes.recipe import Workplace
from tapjax import parallel
from tapjax.files import write_atomically
from tapjax.models import registry
from tapjax.models.contract import Params
from tapjax.training.loop import Evaluation
from tapjax.training.loop import train
from tapjax.training.snapshots import Snapshots
from tapjax.training.step import TrainState
from tapjax.training.summaries import Curves
from tapjax.training.summaries import Summaries

CONFIG = flags.DEFINE_string('config', None, 'A file with get_config().')
LATEST = 'latest.safetensors'
BEST = 'best.safetensors'
FINAL = 'final.npy'
CHANGES = flags.DEFINE_multi_string('set', [], 'Changes: --set a.b=value.')


def run(
    workdir: str,
    measure: Callable[[int], Mapping[str, float]] | None = None,
) -> None:
  """Trains the config of the flags, or resumes the run in `workdir`.

  See `train_tracker` for `measure`.
  """
  if CONFIG.value is None:
    raise ValueError('--task=train needs --config=FILE')
  config = override_config(read_config(CONFIG.value), CHANGES.value)
  train_tracker(config, pathlib.Path(workdir), measure)


def train_tracker(
    config: RunConfig,
    folder: pathlib.Path,
    measure: Callable[[int], Mapping[str, float]] | None = None,
) -> TrainState:
  """Trains a tracker in a folder, from its latest snapshot if there is one.

  Args:
    config: config of the run.
    folder: folder of the run, which several processes share; the first writes.
    measure: function from a step to further scalars of the weights saved by its
      evaluation.
  """
  is_first = jax.process_index() == 0
  folder.mkdir(parents=True, exist_ok=True)
  num_latest = config.loop.num_latest
  snapshots = Snapshots(folder / 'snapshots', num_latest)
  first_step = snapshots.latest_step or 0
  with contextlib.ExitStack() as stack:
    tables: list[Summaries | Curves] = []
    write_picture = _ignore
    if is_first:
      summaries = stack.enter_context(
          Summaries(folder / 'summaries', first_step)
      )
      tables = [summaries, Curves(folder / 'curves.csv', first_step)]
      write_picture = summaries.write_picture

    def write_scalars(step: int, scalars: Mapping[str, float]) -> None:
      for table in tables:
        table.write_scalars(step, scalars)

    place = Workplace(folder, write_picture, first_step)
    recipe = config.make_recipe(place)
    restored = snapshots.restore(recipe.state)
    if is_first:
      _describe_run(folder / 'config.txt', config)
      sys.stdout.write(
          describe_run(
              config.preset,
              recipe.state.params,
              recipe.data,
              _describe_devices(recipe.state),
          )
      )

    def save(
        name: str, step: int, params: Params, evaluation: Evaluation
    ) -> None:
      if not is_first:
        return
      metadata = {
          'command': _quote_command(),
          'steps': str(step),
          'num_steps': str(recipe.num_steps),
          'hardware': jax.devices()[0].device_kind,
          **describe_scalars(evaluation.scalars),
      }
      make_tracker(config, params).save(folder / name, metadata)

    def evaluate(step: int, params: Params) -> Evaluation:
      # Other processes' devices are out of reach of a tracker.
      params = parallel.fetch(params)
      evaluation = recipe.evaluate(step, params)
      save(LATEST, step, params, evaluation)
      if measure is not None and is_first:
        write_scalars(step, measure(step))
      return evaluation

    def keep_best(step: int, params: Params, evaluation: Evaluation) -> None:
      save(BEST, step, parallel.fetch(params), evaluation)

    state = train(
        recipe.state if restored is None else restored,
        recipe.update,
        recipe.draw,
        num_steps=recipe.num_steps,
        max_bad_steps=recipe.max_bad_steps,
        config=recipe.loop,
        snapshots=snapshots,
        write_scalars=write_scalars,
        evaluate=evaluate,
        keep_best=keep_best,
    )
    if is_first:
      _write_published(folder / FINAL, config, parallel.fetch(state.params))
  snapshots.close()
  return state


def _ignore(*arguments: Any) -> None:
  """Ignores outputs that only the first process writes."""


def _write_published(
    path: pathlib.Path, config: RunConfig, params: Params
) -> None:
  """Writes weights in the format of the published JAX program, if any."""
  architecture = registry.get_preset(config.preset).architecture
  names = architecture.list_weight_names(config.model)
  if not any(name.haiku for name in names):
    return
  with warnings.catch_warnings():
    # That it holds no settings is said in the README.
    warnings.simplefilter('ignore', UserWarning)
    make_tracker(config, params).save(path)


def _describe_run(path: pathlib.Path, config: RunConfig) -> None:
  text = f'{_quote_command()}\n\n{pprint.pformat(config)}\n'
  with write_atomically(path) as file:
    file.write(text.encode())


def _describe_devices(state: TrainState) -> str:
  """Returns the number and kind of the devices."""
  used = len(state.num_updates.sharding.device_set)
  kind = jax.devices()[0].device_kind
  return f'{used} of {jax.device_count()} ({kind})'


def _quote_command() -> str:
  return shlex.join(['python', '-m', 'experiments.run', *sys.argv[1:]])
