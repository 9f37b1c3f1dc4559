"""Weight files as configs and parameters: identification, settings, arrays."""

from collections.abc import Mapping
import json
import math
from typing import Any
import warnings

import jax
import numpy as np

from tapjax import checkpoints
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import flatten_params
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.models.contract import unflatten_params
from tapjax.models.weight_names import list_haiku_sources
from tapjax.models.weight_names import list_torch_sources
from tapjax.settings import freeze
from tapjax.settings import list_changes
from tapjax.settings import replace_settings


def identify_preset(file: checkpoints.Checkpoint) -> str:
  """Returns the one preset that a checkpoint fits, or raises ValueError.

  Own files name it. Published ones are known by their arrays and, where several
  presets have the same, by the name under which the file was published.
  """
  if file.format == 'tapjax':
    if (name := file.metadata.get('preset')) is None:
      raise ValueError(
          f'{file.path} must name its preset in its metadata, as files that '
          'tapjax wrote do; it names none'
      )
    return name
  fitting = _list_fitting_presets(file)
  if len(fitting) > 1:
    published = [
        name
        for name in fitting
        if (weights := registry.PRESETS[name].weights) is not None
        and weights.stem == file.path.stem
    ]
    fitting = published or fitting
  if len(fitting) == 1:
    return fitting[0]
  if fitting:
    raise ValueError(
        f'{file.path} fits several presets: {", ".join(fitting)}; their arrays '
        'do not distinguish them - name the one it was trained as'
    )
  raise ValueError(
      f'{file.path} fits none of the presets {", ".join(registry.PRESETS)} - '
      'name the preset to see what differs'
  )


def _list_fitting_presets(file: checkpoints.Checkpoint) -> list[str]:
  """Returns the presets whose published files have the arrays of this one."""

  def fits(preset: registry.Preset) -> bool:
    shapes = _get_shapes(preset, file)
    functions = preset.architecture.make_functions(preset.config)
    sources = _list_sources(preset, preset.config, file)
    wanted = {source.name for source in sources.values()}
    if not wanted <= shapes.keys() or not all(
        checkpoints.is_ignored(name, _list_ignored(preset, file))
        for name in shapes.keys() - wanted
    ):
      return False
    expected = flatten_params(describe_params(functions))
    return all(
        math.prod(shapes[source.name]) == math.prod(expected[name].shape)
        for name, source in sources.items()
    )

  return [preset.name for preset in registry.PRESETS.values() if fits(preset)]


def choose_config(
    preset: registry.Preset,
    file: checkpoints.Checkpoint,
    settings: Mapping[str, Any],
) -> Any:
  """Returns the preset's config, as the file and then the caller change it."""
  if file.format == 'tapjax':
    config = _read_own_config(preset, file)
  else:
    config = preset.architecture.infer_config(
        preset.config, _get_shapes(preset, file)
    )
  return replace_settings(config, settings)


def warn_of_inference(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> None:
  """Says so if a published file decides a setting against the preset."""
  inferred = preset.architecture.infer_config(
      preset.config, _get_shapes(preset, file)
  )
  if inferred != preset.config:
    warnings.warn(
        f'{file.path.name} differs from preset {preset.name}: using '
        f'{list_changes(preset.config, inferred)}, which its arrays were '
        'trained with',
        stacklevel=3,
    )


def _read_own_config(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> Any:
  """Returns the config that one of our own files carries."""
  named = identify_preset(file)
  if named != preset.name:
    raise ValueError(
        f'checkpoint must hold weights of {preset.name}; {file.path} holds '
        f'those of {named} - load it under that name'
    )
  try:
    stored = json.loads(file.metadata['config'])
  except (KeyError, ValueError, RecursionError):
    stored = None
  if not isinstance(stored, dict):
    raise ValueError(
        f'{file.path} must carry a config in its metadata; it has none that '
        'can be read - was it written by tapjax?'
    )
  upgraded = preset.architecture.upgrade_settings(stored)
  return replace_settings(
      preset.config,
      {name: freeze(value) for name, value in upgraded.items()},
  )


def read_params(
    preset: registry.Preset,
    config: Any,
    functions: TrackerFunctions,
    file: checkpoints.Checkpoint,
) -> Params:
  """Returns the arrays of a file as parameters; every one must fit."""
  expected = describe_params(functions)
  shapes = {
      name: array.shape for name, array in flatten_params(expected).items()
  }
  sources = _list_sources(preset, config, file)
  if not sources:
    raise ValueError(
        f'checkpoint must be a Haiku .npy file for {preset.name}, of which no '
        f'PyTorch weights exist; {file.path} is a PyTorch file'
    )
  try:
    arrays = checkpoints.convert_arrays(
        _select_arrays(preset, file),
        sources,
        shapes,
        ignored=_list_ignored(preset, file),
        origin=str(file.path),
    )
  except checkpoints.CheckpointMismatchError:
    _refuse_other_preset(preset, file)
    raise
  return jax.tree.map(jax.numpy.asarray, unflatten_params(arrays))


def _refuse_other_preset(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> None:
  """Raises ValueError if a file that does not fit a preset fits another one."""
  fitting = _list_fitting_presets(file)
  if fitting and preset.name not in fitting:
    raise ValueError(
        f'checkpoint must hold weights of {preset.name}; {file.path} is of '
        f'another model, {" or ".join(fitting)} - load it under that name'
    ) from None


def _list_sources(
    preset: registry.Preset, config: Any, file: checkpoints.Checkpoint
) -> dict[str, checkpoints.Source]:
  names = preset.architecture.list_weight_names(config)
  if file.format == 'haiku':
    return list_haiku_sources(names)
  if file.format == 'torch':
    return list_torch_sources(names)
  ours = list_haiku_sources(names)
  return {name: checkpoints.Source(name) for name in ours}


def _list_ignored(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> tuple[str, ...]:
  """Returns patterns of arrays that the file may have to spare."""
  return () if file.format == 'tapjax' else preset.architecture.ignored


def _select_arrays(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> Mapping[str, np.ndarray]:
  """Returns the arrays of a file that are weights of the preset's tracker."""
  if file.format == 'torch':
    return preset.architecture.select_arrays(file.arrays)
  return file.arrays


def _get_shapes(
    preset: registry.Preset, file: checkpoints.Checkpoint
) -> dict[str, tuple[int, ...]]:
  arrays = _select_arrays(preset, file)
  return {name: array.shape for name, array in arrays.items()}
