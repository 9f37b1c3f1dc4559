"""Runs a recipe: config in; snapshots, summaries and weights out.

DIR/snapshots           what to resume from
DIR/latest.safetensors  the weights at the last evaluation, for `tapjax.load`
DIR/best.safetensors    those with the best score
DIR/summaries           for TensorBoard
DIR/config.txt          what was trained, with the command
"""

import pathlib
import pprint
import shlex
import sys

from absl import flags
import jax

from experiments import pips_clips
from experiments import point_windows
from experiments import procedural
from experiments import taptr_videos
from experiments.config import override_config
from experiments.config import PipsTrainConfig
from experiments.config import PointTrainConfig
from experiments.config import read_config
from experiments.config import RunConfig
from experiments.config import TaptrTrainConfig
from experiments.recipes import describe_scalars
from experiments.recipes import make_tracker
from experiments.recipes import Recipe
from experiments.recipes import Workplace
from tapjax.files import write_atomically
from tapjax.models.base import Params
from tapjax.training.loop import Evaluation
from tapjax.training.loop import train
from tapjax.training.snapshots import Snapshots
from tapjax.training.step import TrainState
from tapjax.training.summaries import Summaries

_CONFIG = flags.DEFINE_string('config', None, 'A file with get_config().')
CHANGES = flags.DEFINE_multi_string('set', [], 'Changes: --set a.b=value.')


def run(workdir: str) -> None:
  """Trains what the flags say, going on from where `workdir` has come to."""
  if _CONFIG.value is None:
    raise ValueError('--task=train needs --config=FILE')
  config = override_config(read_config(_CONFIG.value), CHANGES.value)
  train_tracker(config, pathlib.Path(workdir))


def make_recipe(config: RunConfig, place: Workplace) -> Recipe:
  """Returns the recipe of a config, which its kind decides."""
  if isinstance(config, PointTrainConfig):
    return point_windows.make_recipe(config, place)
  if isinstance(config, PipsTrainConfig):
    return pips_clips.make_recipe(config, place)
  if isinstance(config, TaptrTrainConfig):
    return taptr_videos.make_recipe(config, place)
  return procedural.make_recipe(config, place)


def train_tracker(config: RunConfig, folder: pathlib.Path) -> TrainState:
  """Trains a tracker in a folder, from its latest snapshot if it has one."""
  folder.mkdir(parents=True, exist_ok=True)
  num_latest = config.loop.num_latest
  snapshots = Snapshots(folder / 'snapshots', num_latest)
  first_step = snapshots.latest_step or 0
  with Summaries(folder / 'summaries', first_step) as summaries:
    place = Workplace(folder, summaries.write_picture, first_step)
    recipe = make_recipe(config, place)
    restored = snapshots.restore(recipe.state)
    _describe_run(folder / 'config.txt', config)

    def save(
        name: str, step: int, params: Params, evaluation: Evaluation
    ) -> None:
      metadata = {
          'command': _quote_command(),
          'steps': str(step),
          'hardware': jax.devices()[0].device_kind,
          **describe_scalars(evaluation.scalars),
      }
      path = folder / f'{name}.safetensors'
      make_tracker(config, params).save(path, metadata)

    def evaluate(step: int, params: Params) -> Evaluation:
      evaluation = recipe.evaluate(step, params)
      save('latest', step, params, evaluation)
      return evaluation

    def keep_best(step: int, params: Params, evaluation: Evaluation) -> None:
      save('best', step, params, evaluation)

    state = train(
        recipe.state if restored is None else restored,
        recipe.update,
        recipe.draw,
        num_steps=recipe.num_steps,
        max_bad_steps=recipe.max_bad_steps,
        config=recipe.loop,
        snapshots=snapshots,
        write_scalars=summaries.write_scalars,
        evaluate=evaluate,
        keep_best=keep_best,
    )
  snapshots.close()
  return state


def _describe_run(path: pathlib.Path, config: RunConfig) -> None:
  text = f'{_quote_command()}\n\n{pprint.pformat(config)}\n'
  with write_atomically(path) as file:
    file.write(text.encode())


def _quote_command() -> str:
  return shlex.join(['python', '-m', 'experiments.run', *sys.argv[1:]])
