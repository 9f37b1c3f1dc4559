"""Settings of `tapir_tiny` in weight files."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tapjax.models.tapir.weights import count_patches
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.tapir_tiny.cost import count_patch_cells


def infer_config(
    config: TapirTinyConfig, shapes: Mapping[str, tuple[int, ...]]
) -> TapirTinyConfig:
  """Takes the number of pooled levels from a file, as for a causal TAPIR."""
  patches = count_patches(config, shapes)
  if patches is None:
    return config
  levels = patches - sum(count_patch_cells(config)) - 2
  return (
      config
      if levels < 0
      else dataclasses.replace(config, pooled_levels=levels)
  )


def upgrade_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
  """Returns settings of a file as they are called now.

  Earlier files name an initial resolution even where it is the resolution.
  """
  settings = dict(stored)
  if settings.get('initial_resolution') == settings.get('resolution'):
    settings.pop('initial_resolution', None)
  return settings
