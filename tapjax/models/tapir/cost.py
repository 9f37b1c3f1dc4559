"""Number of operations of TAPIR."""

import math

from tapjax.models.tapir.config import STRIDE
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.correlation import count_cells
from tapjax.models.tapir.network import CONV_EXPANSION
from tapjax.models.tapir.network import MIXER_MULTIPLIER
from tapjax.models.tapir.network import STATE_CHANNELS
from tapjax.nn.cost_volume import count_cost_volume
from tapjax.nn.mixer import TAPS
from tapjax.nn.resnet import count_convolution
from tapjax.nn.resnet import count_resnet


def count_operations(
    config: TapirConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  fine, coarse = config.feature_channels
  patches = 2 + config.pooled_levels
  products = fine + coarse * (1 + config.pooled_levels)
  cells = math.prod(config.first_resolution) / STRIDE**2
  point = count_cost_volume(cells, coarse)
  point += count_refinement(
      config, patches * count_cells(config.radius), products
  )
  return num_frames * (count_frame(config) + num_queries * point)


def count_frame(config: TapirConfig) -> float:
  """Returns multiply-adds times two of encoding a frame."""
  coarse = config.channels[-1]
  count = 0.0
  for height, width in config.encoded_resolutions:
    count += count_resnet(1.0 * height * width, config.channels, config.strides)
    count += (
        2
        * config.num_extra_convs
        * count_convolution(
            height * width / STRIDE**2, 3, coarse, coarse * CONV_EXPANSION
        )
    )
  return count


def count_refinement(
    config: TapirConfig, correlations: int, products: int
) -> float:
  """Returns multiply-adds times two of refining a point on one frame.

  Args:
    config: settings.
    correlations: numbers that the mixer reads of each track.
    products: channels that are multiplied at each cell around a point.
  """
  width = config.mixer_channels
  hidden = width * MIXER_MULTIPLIER
  state = STATE_CHANNELS + sum(config.feature_channels)
  iteration = 2.0 * (
      (state + correlations) * width
      + config.mixer_blocks * (2 * width * hidden + 2 * TAPS * hidden)
      + width * state
      + (2 * config.radius + 2) ** 2 * products
  )
  return len(config.levels) * config.num_iterations * iteration
