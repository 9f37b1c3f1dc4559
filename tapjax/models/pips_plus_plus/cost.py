"""Number of operations of PIPs++."""

import math

from tapjax.models.pips_plus_plus.config import LAGS
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.config import STAGE_STRIDES
from tapjax.models.pips_plus_plus.config import STRIDE
from tapjax.models.pips_plus_plus.network import TAPS
from tapjax.nn.resnet import count_convolution


def count_operations(
    config: PipsPlusPlusConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  pixels = math.prod(config.resolution) / 4
  inputs = config.channels[0]
  frame = count_convolution(pixels, 7, 3, inputs)
  for channels, stride in zip(config.channels, STAGE_STRIDES, strict=True):
    pixels /= stride**2
    if stride != 1:
      frame += count_convolution(pixels, 1, inputs, channels)
    frame += count_convolution(pixels, 3, inputs, channels)
    frame += 3 * count_convolution(pixels, 3, channels, channels)
    inputs = channels
  cells = math.prod(config.resolution) / STRIDE**2
  fused = config.fused_channels
  frame += count_convolution(cells, 3, sum(config.channels), fused)
  frame += count_convolution(cells, 1, fused, config.feature_channels)

  inputs = config.block_channels[0]
  weights = TAPS * count_inputs(config) * inputs
  for channels in config.block_channels:
    weights += TAPS * (inputs + channels) * channels
    inputs = channels
  weights += 2 * inputs
  side = 2 * config.radius + 2
  weights += (1 + len(LAGS)) * config.levels * side**2 * config.feature_channels
  return num_frames * (
      frame + num_queries * config.num_iterations * 2 * weights
  )


def count_inputs(config: PipsPlusPlusConfig) -> int:
  """Returns the channels that the update network takes."""
  patches = config.levels * (2 * config.radius + 1) ** 2
  return (1 + len(LAGS)) * patches + 4 * config.frequencies + 2
