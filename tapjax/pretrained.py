"""From a preset's name and a weight file to a tracker that is ready to use."""

from collections.abc import Sequence
import importlib.resources
import os
import pathlib
from typing import Any

from tapjax import checkpoints
from tapjax import loading
from tapjax.models import registry
from tapjax.settings import replace_settings
from tapjax.tracker import Tracker
from tapjax.tracking import checks

Path = str | os.PathLike[str]


def load(
    name: str | None = None,
    *,
    checkpoint: Path | None = None,
    resolution: Sequence[int] | None = None,
    **settings: Any,
) -> Tracker:
  """Returns a tracker with its weights.

  Args:
    name: of a preset; see `list_models`. None takes it from the checkpoint, or
      the default without one, whose weights are in the package.
    checkpoint: a file of any published or own format. None takes the weights in
      the package or the cache, or downloads the published ones.
    resolution: (height, width) at which the network sees the video; None takes
      the preset's, at which its published scores were measured.
    **settings: replace fields of the preset's config.

  Raises:
    ValueError: the name, a setting or the file does not fit, or a download
      failed.
    FileNotFoundError: there is no such file.
  """
  if resolution is not None:
    settings['resolution'] = checks.check_resolution(resolution)
  if checkpoint is None:
    preset = registry.get_preset(registry.DEFAULT if name is None else name)
    # Impossible settings are refused before a long download, not after.
    preset.architecture.make_functions(
        replace_settings(preset.config, settings)
    )
    file = checkpoints.read_checkpoint(_find_weights(preset))
  else:
    if name is not None:
      registry.get_preset(name)
    file = checkpoints.read_checkpoint(checkpoint)
    preset = registry.get_preset(name or loading.identify_preset(file))
  config = loading.choose_config(preset, file, settings)
  functions = preset.architecture.make_functions(config)
  params = loading.read_params(preset, config, functions, file)
  if file.format != 'tapjax':
    loading.warn_of_inference(preset, file)
  return Tracker(preset.name, config, functions, params)


def _find_weights(preset: registry.Preset) -> pathlib.Path:
  """Returns where a preset's weights are, downloading them if need be."""
  if preset.weights is None:
    reason = 'no weights are published - train it first'
    if preset.page is not None:
      reason = (
          'its weights are not published as one file - choose one from '
          f'{preset.page}'
      )
    raise ValueError(f'checkpoint must be given for {preset.name}: {reason}')
  if isinstance(preset.weights, registry.EmbeddedFile):
    folder = importlib.resources.files('tapjax') / 'weights'
    return pathlib.Path(str(folder / preset.weights.name))
  return checkpoints.fetch(preset.weights)
