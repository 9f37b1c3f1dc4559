"""Number of operations of `tapir_tiny`."""

import math

from tapjax.models.tapir.config import STRIDE
from tapjax.models.tapir.correlation import count_cells
from tapjax.models.tapir.cost import count_frame
from tapjax.models.tapir.cost import count_refinement
from tapjax.models.tapir.network import STATE_CHANNELS
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.nn.cost_volume import count_cost_volume


def count_patch_cells(config: TapirTinyConfig) -> tuple[int, int]:
  """Returns compared cells around a query: of the fine grid and the stem."""
  fine, stem = (
      count_cells(radius) if radius else 0
      for radius in (config.support_radius, config.stem_support_radius)
  )
  return fine, stem


def count_correlations(config: TapirTinyConfig) -> int:
  """Returns the number of correlations that the refinement sees of a track."""
  patches = 2 + config.pooled_levels + sum(count_patch_cells(config))
  return patches * count_cells(config.radius)


def count_inputs(config: TapirTinyConfig) -> int:
  """Returns the channels that the mixer reads."""
  features = sum(config.feature_channels)
  return STATE_CHANNELS + features + count_correlations(config)


def count_operations(
    config: TapirTinyConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  fine, coarse = config.feature_channels
  fine_cells, stem_cells = count_patch_cells(config)
  products = (
      fine * (1 + fine_cells)
      + config.channels[0] * stem_cells
      + coarse * (1 + config.pooled_levels)
  )
  cells = math.prod(config.first_resolution) / STRIDE**2
  point = count_cost_volume(cells, coarse, config.logits_stride)
  point += count_refinement(config, count_correlations(config), products)
  return num_frames * (count_frame(config) + num_queries * point)
