"""Number of operations of LocoTrack."""

import math

from tapjax.models.locotrack.config import LocoTrackConfig
from tapjax.models.locotrack.config import PROJECTED_CHANNELS
from tapjax.models.locotrack.config import RESNET_CHANNELS
from tapjax.models.locotrack.config import RESNET_STRIDES
from tapjax.models.locotrack.network import HEATMAP_KERNEL
from tapjax.models.locotrack.refinement import count_inputs
from tapjax.models.locotrack.refinement import STATE_CHANNELS
from tapjax.nn.efficientnet import count_trunk
from tapjax.nn.efficientnet import list_blocks
from tapjax.nn.resnet import count_convolution
from tapjax.nn.resnet import count_resnet


def count_operations(
    config: LocoTrackConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video."""
  frame = count_frame(config)
  return num_frames * (frame + num_queries * count_point(config, num_frames))


def count_frame(config: LocoTrackConfig) -> float:
  """Returns multiply-adds times two of encoding a frame."""
  return sum(
      _count_encoder(config, float(math.prod(resolution)))
      for resolution in config.encoded_resolutions
  )


def _count_encoder(config: LocoTrackConfig, pixels: float) -> float:
  if config.encoder == 'resnet':
    return count_resnet(pixels, RESNET_CHANNELS, RESNET_STRIDES)
  count = count_trunk(config.trunk, pixels)
  if config.encoder == 'b0_projected':
    blocks = list(list_blocks(config.trunk))
    for tap, width, stride in zip(
        config.trunk.taps, PROJECTED_CHANNELS, config.grid_strides, strict=True
    ):
      count += count_convolution(
          pixels / stride**2, 1, blocks[tap].channels, width
      )
  return count


def count_point(config: LocoTrackConfig, num_frames: int) -> float:
  """Returns multiply-adds times two of tracking a point through one frame."""
  channels = config.grid_channels
  _, middle, coarse = config.grid_strides
  pixels = math.prod(config.first_resolution)
  cells = pixels / middle**2
  first = 2 * (
      cells * channels[1]
      + pixels / coarse**2 * channels[2]
      + cells * HEATMAP_KERNEL**2 * 2
  )

  side = 2 * config.radius + 1
  correlation = 2 * (side + 1) ** 2 * side**2 * sum(channels)
  encoder = 0.0
  inputs = side**2
  for size, stride, outputs in config.encoder_layers:
    side = math.ceil(side / stride)
    encoder += count_convolution(1.0 * side**2, size, inputs, outputs)
    inputs = outputs
  iteration = correlation + 6 * encoder + _count_transformer(config, num_frames)
  return first + len(config.levels) * config.num_iterations * iteration


def _count_transformer(config: LocoTrackConfig, num_frames: int) -> int:
  width = config.transformer_channels
  outputs = STATE_CHANNELS
  if config.reads_features:
    outputs += config.track_channels
  return (
      2
      * width
      * (
          count_inputs(config)
          + config.transformer_layers * (12 * width + 2 * num_frames)
          + outputs
      )
  )
