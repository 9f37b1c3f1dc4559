"""Number of operations of a point transformer."""

import math

from tapjax.models.point_transformer.config import PointTransformerConfig
from tapjax.models.point_transformer.network import HIDDEN
from tapjax.nn.resnet import count_convolution
from tapjax.nn.torchvision_resnet import count_resnet


def count_operations(
    config: PointTransformerConfig, num_frames: int, num_queries: int
) -> float:
  """Returns multiply-adds times two of tracking queries through a video.

  Queries are taken to be on the first frame.
  """
  height, width = config.resolution
  channels = config.channels
  stride = 2 ** (1 + len(config.backbone_blocks))
  cells = float(math.ceil(height / stride) * math.ceil(width / stride))
  frame = count_resnet(config.resnet, height, width)
  frame += count_convolution(
      cells, 1, config.resnet.output_channels[-1], channels
  )

  size = min(config.window, num_frames)
  tokens = size * config.num_points
  token = config.num_blocks * (4 + 2 * HIDDEN) * channels**2
  token += config.num_blocks * 2 * channels * tokens
  token += channels**2 // 2 + channels
  num_windows = max(1, -(-(num_frames - 1) // max(size - 1, 1)))
  num_sets = -(-num_queries // config.num_points)
  return num_frames * frame + 2.0 * num_sets * num_windows * tokens * token
