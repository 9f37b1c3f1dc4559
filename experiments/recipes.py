"""What a training run is made of, whatever is trained and on what data.

config ──make_recipe──► Recipe ──training.train_tracker──► weights, summaries

Each kind of config has a module that makes its recipe; `training.py` does what
all of them share.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import UInt8
import numpy as np

from experiments.config import PUBLISHED
from experiments.config import RunConfig
from tapjax import pretrained
from tapjax.geometry import Resolution
from tapjax.models import registry
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.training.loop import Evaluation
from tapjax.training.loop import LoopConfig
from tapjax.training.step import TrainState

# Takes a step, a name and a picture.
WritePicture = Callable[[int, str, UInt8[np.ndarray, 'h w 3']], None]


class Workplace(NamedTuple):
  """Where a recipe may leave what the loop does not.

  Attributes:
    folder: of the run.
    write_picture: for TensorBoard.
    latest_step: from which the run goes on, 0 for a new one.
  """

  folder: pathlib.Path
  write_picture: WritePicture
  latest_step: int


class Recipe(NamedTuple):
  """Everything that the training loop takes.

  Attributes:
    state: before the first update, on the devices.
    update: from a state, which is given up, and a batch to the next state and
      its metrics; see `UpdateMetrics`.
    draw: from a step to its batch, which depends on nothing else.
    num_steps: updates of the whole training.
    max_bad_steps: in a row that are not finite, after which it stops.
    loop: how often what happens.
    evaluate: judges weights after a step.
    data: what was found to learn from, in words.
  """

  state: TrainState
  update: Callable[[TrainState, Any], tuple[TrainState, Any]]
  draw: Callable[[int], Any]
  num_steps: int
  max_bad_steps: int
  loop: LoopConfig
  evaluate: Callable[[int, Params], Evaluation]
  data: str


def make_functions(config: RunConfig) -> TrackerFunctions:
  """Returns what is trained as pure functions."""
  preset = registry.get_preset(config.preset)
  return preset.architecture.make_functions(config.model)


def make_tracker(config: RunConfig, params: Params) -> pretrained.Tracker:
  """Returns the tracker that has come of a training so far."""
  return pretrained.Tracker(
      config.preset, config.model, make_functions(config), params
  )


def check_resolutions(model: Resolution, data: Resolution) -> None:
  """Raises ValueError unless videos are of the size that the model takes."""
  if model != data:
    raise ValueError(
        'model.resolution and data.resolution must be the same; got '
        f'{model} and {data}'
    )


def load_initial(config: RunConfig) -> Params | None:
  """Returns the weights that the config begins with; None for random ones."""
  if config.initial is None:
    return None
  settings = {
      field.name: getattr(config.model, field.name)
      for field in dataclasses.fields(config.model)
  }
  checkpoint = None if config.initial == PUBLISHED else config.initial
  tracker = pretrained.load(config.preset, checkpoint=checkpoint, **settings)
  return jax.tree.map(jnp.asarray, tracker.params)


def bind_key(
    update: Callable[..., tuple[TrainState, Any]], key: jax.Array
) -> Callable[[TrainState, Any], tuple[TrainState, Any]]:
  """Returns `update(state, batch)` with the key of what is random in it."""
  return lambda state, batch: update(state, batch, key)


def describe_scalars(scalars: Mapping[str, float]) -> dict[str, str]:
  """Returns numbers as they stand in the metadata of weights."""
  return {name: f'{value:.4g}' for name, value in scalars.items()}
