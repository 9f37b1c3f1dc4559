"""Recipes: the parts of a training run, for any tracker and data.

config ──make_recipe──► Recipe ──training.train_tracker──► weights, summaries

Each kind of config has a module that makes its recipe; `training.py` runs any
recipe.
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

from experiments.config import Draw
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
  """Folder and writers of a run, for outputs of its recipe.

  Attributes:
    folder: folder of the run.
    write_picture: function that writes a picture for TensorBoard.
    latest_step: step from which the run resumes, 0 for a new run.
  """

  folder: pathlib.Path
  write_picture: WritePicture
  latest_step: int


class Recipe(NamedTuple):
  """Arguments of the training loop.

  Attributes:
    state: initial state, on the devices.
    update: function from a state, which is donated, and a batch to the next
      state and its metrics; see `UpdateMetrics`.
    draw: pure function from a step to its batch.
    num_steps: number of updates of the whole training.
    max_bad_steps: number of consecutive non-finite updates at which training
      stops.
    loop: intervals of the loop.
    evaluate: function from a step and weights to their evaluation.
    data: description of the training data.
  """

  state: TrainState
  update: Callable[[TrainState, Any], tuple[TrainState, Any]]
  draw: Draw
  num_steps: int
  max_bad_steps: int
  loop: LoopConfig
  evaluate: Callable[[int, Params], Evaluation]
  data: str


def make_functions(config: RunConfig) -> TrackerFunctions:
  """Returns the pure functions of the trained tracker."""
  preset = registry.get_preset(config.preset)
  return preset.architecture.make_functions(config.model)


def make_tracker(config: RunConfig, params: Params) -> pretrained.Tracker:
  """Returns the trained tracker."""
  return pretrained.Tracker(
      config.preset, config.model, make_functions(config), params
  )


def check_resolutions(model: Resolution, data: Resolution) -> None:
  """Raises ValueError if resolutions of model and data differ."""
  if model != data:
    raise ValueError(
        'model.resolution and data.resolution must be the same; got '
        f'{model} and {data}'
    )


def load_initial(config: RunConfig) -> Params | None:
  """Loads the initial weights of the config; None for random ones."""
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
  """Returns `update(state, batch)` with a fixed key."""
  return lambda state, batch: update(state, batch, key)


def describe_scalars(scalars: Mapping[str, float]) -> dict[str, str]:
  """Formats scalars for the metadata of weights."""
  return {name: f'{value:.4g}' for name, value in scalars.items()}
