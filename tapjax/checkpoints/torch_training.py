"""Snapshots of a training program in PyTorch: more than weights.

`torch.save` of a dict with the weights, the state of an Adam optimizer, and
numbers of the run. Nothing that the file holds is executed.
"""

from collections.abc import Mapping
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tapjax.checkpoints.conversion import CheckpointMismatchError
from tapjax.checkpoints.conversion import is_ignored
from tapjax.checkpoints.torch_zip import read_torch_values

# Arrays of a module that are not learned.
BUFFERS = ('*.running_mean', '*.running_var', '*.num_batches_tracked')
_ENTRIES = ('epoch', 'model_state_dict', 'optimizer_state_dict', 'loss_history')
_MOMENTS = {'step', 'exp_avg', 'exp_avg_sq'}


class TorchTraining(NamedTuple):
  """A run as its program saved it after an epoch.

  Attributes:
    epoch: that has just finished, counted from 0.
    arrays: of the model, by their names.
    step: updates of the optimizer.
    means: of gradients, by the name of the parameter.
    squares: likewise, of squared gradients.
    settings: of the optimizer.
    train_losses: of each epoch.
    validation_losses: likewise.
  """

  epoch: int
  arrays: Mapping[str, np.ndarray]
  step: int
  means: Mapping[str, np.ndarray]
  squares: Mapping[str, np.ndarray]
  settings: Mapping[str, Any]
  train_losses: tuple[float, ...]
  validation_losses: tuple[float, ...]


def read_torch_training(path: str | os.PathLike[str]) -> TorchTraining:
  """Reads a `latest.pth` whose optimizer is Adam or AdamW.

  Raises FileNotFoundError if there is no such file, CheckpointMismatchError if
  the optimizer is not one of these with a state for each parameter, and
  ValueError if the file cannot be read or has other entries.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'there is no checkpoint {path}')
  values = read_torch_values(path, _ENTRIES)
  epoch, arrays = values['epoch'], values['model_state_dict']
  _check(
      type(epoch) is int and epoch >= 0,
      f'{path}: epoch must be a whole number from 0 on; got {epoch!r}',
  )
  _check(
      isinstance(arrays, dict)
      and all(isinstance(array, np.ndarray) for array in arrays.values()),
      f'{path}: model_state_dict must hold tensors by name',
  )
  # PyTorch numbers parameters in the order in which the model lists them.
  names = [name for name in arrays if not is_ignored(name, BUFFERS)]
  state, settings = _read_optimizer(
      values['optimizer_state_dict'], len(names), path
  )
  for moment in ('exp_avg', 'exp_avg_sq'):
    wrong = [
        name
        for name, own in zip(names, state, strict=True)
        if own[moment].shape != arrays[name].shape
    ]
    _check(
        not wrong,
        f'{path}: {moment} of each parameter must be of its shape; that of '
        f'{", ".join(wrong[:4])} is not',
    )
  steps = {float(own['step']) for own in state}
  _check(
      len(steps) == 1 and min(steps) >= 1 and min(steps).is_integer(),
      f'{path}: all parameters must have had as many updates; got {steps}',
  )
  train, validation = _read_history(values['loss_history'], epoch, path)
  return TorchTraining(
      epoch=epoch,
      arrays=arrays,
      step=int(min(steps)),
      means={n: own['exp_avg'] for n, own in zip(names, state, strict=True)},
      squares={
          n: own['exp_avg_sq'] for n, own in zip(names, state, strict=True)
      },
      settings=settings,
      train_losses=train,
      validation_losses=validation,
  )


def _read_optimizer(
    value: Any, number: int, path: pathlib.Path
) -> tuple[list[dict[str, np.ndarray]], dict[str, Any]]:
  """Returns the state of each parameter, and the settings that all share."""
  _check(
      isinstance(value, dict) and {'state', 'param_groups'} <= value.keys(),
      f'{path}: optimizer_state_dict must have state and param_groups',
  )
  groups, state = value['param_groups'], value['state']
  _check(
      isinstance(groups, list)
      and len(groups) == 1
      and isinstance(groups[0], dict)
      and groups[0].get('params') == list(range(number)),
      f'{path}: the optimizer must have one group of the {number} parameters',
  )
  _check(
      isinstance(state, dict) and state.keys() == set(range(number)),
      f'{path}: the optimizer must have a state for each of the {number} '
      'parameters',
  )
  for own in state.values():
    _check(
        isinstance(own, dict)
        and own.keys() == _MOMENTS
        and all(isinstance(array, np.ndarray) for array in own.values())
        and own['step'].shape == ()
        and all(np.isfinite(array).all() for array in own.values()),
        f'{path}: a state must have finite step, exp_avg and exp_avg_sq, as '
        'those of AdamW; others cannot be resumed',
    )
  settings = {k: v for k, v in groups[0].items() if k != 'params'}
  for name in ('amsgrad', 'maximize'):
    _check(
        not settings.get(name), f'{path}: {name} of the optimizer must be off'
    )
  return [state[i] for i in range(number)], settings


def _read_history(
    value: Any, epoch: int, path: pathlib.Path
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Returns the losses of each epoch, in training and validation."""
  parts = []
  for name in ('train', 'val'):
    losses = value.get(name) if isinstance(value, dict) else None
    _check(
        isinstance(losses, list)
        and len(losses) == epoch + 1
        and all(isinstance(loss, float) for loss in losses),
        f'{path}: loss_history must have {epoch + 1} numbers called {name}',
    )
    parts.append(tuple(losses or ()))
  return parts[0], parts[1]


def _check(condition: bool, message: str) -> None:  # noqa: FBT001
  if not condition:
    raise CheckpointMismatchError(message)
