"""Wires a training run: config in; snapshots, summaries and weights out.

DIR/snapshots          what to resume from
DIR/best.safetensors   the weights with the best score, for `tapjax.load`
DIR/summaries          for TensorBoard
DIR/config.txt         what was trained, with the command
"""

import dataclasses
import pathlib
import pprint
import shlex
import sys

from absl import flags
import jax
import jax.numpy as jnp

from experiments.config import override_config
from experiments.config import read_config
from experiments.config import TrainConfig
from experiments.validation import make_evaluate
from tapjax import parallel
from tapjax import pretrained
from tapjax.data.pool import make_draw
from tapjax.files import write_atomically
from tapjax.models import registry
from tapjax.models.base import Params
from tapjax.models.base import TrackerFunctions
from tapjax.training.loop import Evaluation
from tapjax.training.loop import train
from tapjax.training.snapshots import Snapshots
from tapjax.training.step import make_train_state
from tapjax.training.step import make_update
from tapjax.training.step import TrainState
from tapjax.training.summaries import Summaries

_CONFIG = flags.DEFINE_string('config', None, 'A file with get_config().')
_SET = flags.DEFINE_multi_string('set', [], 'Changes: --set a.b=value.')


def run(workdir: str) -> None:
  """Trains what the flags say, going on from where `workdir` has come to."""
  if _CONFIG.value is None:
    raise ValueError('--task=train needs --config=FILE')
  config = override_config(read_config(_CONFIG.value), _SET.value)
  train_tracker(config, pathlib.Path(workdir))


def train_tracker(config: TrainConfig, folder: pathlib.Path) -> TrainState:
  """Trains a tracker in a folder, from its latest snapshot if it has one."""
  folder.mkdir(parents=True, exist_ok=True)
  preset = registry.get_preset(config.preset)
  functions = preset.architecture.make_functions(config.model)
  mesh = parallel.make_mesh()
  weight_key, data_key = jax.random.split(jax.random.key(config.seed))
  snapshots = Snapshots(folder / 'snapshots', config.loop.num_latest)
  state = _make_state(config, functions, weight_key)
  state = parallel.replicate(mesh, state)
  restored = snapshots.restore(state)
  state = state if restored is None else restored
  _describe_run(folder / 'config.txt', config)

  def make_tracker(params: Params) -> pretrained.Tracker:
    return pretrained.Tracker(config.preset, config.model, functions, params)

  def keep_best(step: int, params: Params, evaluation: Evaluation) -> None:
    metadata = {
        'command': _quote_command(),
        'steps': str(step),
        'hardware': jax.devices()[0].device_kind,
        **{name: f'{v:.2f}' for name, v in evaluation.scalars.items()},
    }
    make_tracker(params).save(folder / 'best.safetensors', metadata)

  first_step = int(state.num_updates)
  with Summaries(folder / 'summaries', first_step) as summaries:
    state = train(
        state,
        make_update(functions, config.step, mesh),
        make_draw(data_key, config.data, mesh),
        num_steps=config.step.optimizer.num_steps,
        max_bad_steps=config.step.optimizer.max_bad_steps,
        config=config.loop,
        snapshots=snapshots,
        write_scalars=summaries.write_scalars,
        evaluate=make_evaluate(
            make_tracker, config.validation, summaries.write_picture
        ),
        keep_best=keep_best,
    )
  snapshots.close()
  return state


def _make_state(
    config: TrainConfig, functions: TrackerFunctions, key: jax.Array
) -> TrainState:
  state = make_train_state(functions, config.step, key)
  if config.initial is None:
    return state
  settings = {
      field.name: getattr(config.model, field.name)
      for field in dataclasses.fields(config.model)
  }
  tracker = pretrained.load(
      config.preset, checkpoint=config.initial, **settings
  )
  return state._replace(params=jax.tree.map(jnp.asarray, tracker.params))


def _describe_run(path: pathlib.Path, config: TrainConfig) -> None:
  text = f'{_quote_command()}\n\n{pprint.pformat(config)}\n'
  with write_atomically(path) as file:
    file.write(text.encode())


def _quote_command() -> str:
  return shlex.join(['python', '-m', 'experiments.run', *sys.argv[1:]])
