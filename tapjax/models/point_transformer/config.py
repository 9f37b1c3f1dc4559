"""Settings of point transformers."""

import dataclasses
from typing import Literal

from tapjax.geometry import Resolution
from tapjax.models.contract import Precision
from tapjax.nn.torchvision_resnet import ResNetConfig

_LOWEST = {
    'backbone_channels': 1,
    'channels': 2,
    'num_blocks': 1,
    'num_heads': 1,
    'window': 2,
    'num_points': 1,
}


@dataclasses.dataclass(frozen=True)
class PointTransformerConfig:
  """Settings of a point transformer.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    backbone: 'basic' or 'bottleneck' blocks of the residual network.
    backbone_blocks: of each of its stages, each at half the size of the last.
    backbone_channels: of its stem.
    channels: of a token.
    num_blocks: of attention between tokens.
    num_heads: of each attention.
    window: frames that are tracked together, at least 2.
    num_points: that are tracked together.
    token_time: number that a token's sines are of. 'published' is the index of
      the token, frame by frame, modulo the number of frames, which is no time
      at all where there are as many points; 'frame' is the frame, for training
      anew.
    dropout: share of values that training leaves out.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions.
  """

  resolution: Resolution = (256, 256)
  backbone: Literal['basic', 'bottleneck'] = 'basic'
  backbone_blocks: tuple[int, ...] = (2, 2, 2, 2)
  backbone_channels: int = 64
  channels: int = 256
  num_blocks: int = 4
  num_heads: int = 8
  window: int = 8
  num_points: int = 8
  token_time: Literal['published', 'frame'] = 'published'
  dropout: float = 0.1
  precision: Precision = 'highest'

  @property
  def resnet(self) -> ResNetConfig:
    """Settings of the residual network."""
    return ResNetConfig(
        self.backbone_blocks, self.backbone, 'batch', self.backbone_channels
    )


RESNET18 = PointTransformerConfig()
RESNET34 = dataclasses.replace(RESNET18, backbone_blocks=(3, 4, 6, 3))
RESNET50 = dataclasses.replace(RESNET34, backbone='bottleneck')


def check_config(config: PointTransformerConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  for name, low in _LOWEST.items():
    if getattr(config, name) < low:
      raise ValueError(
          f'{name} must be at least {low}; got {getattr(config, name)}'
      )
  if not config.backbone_blocks or min(config.backbone_blocks) < 1:
    raise ValueError(
        'backbone_blocks must have an entry of at least 1 for each stage; got '
        f'{config.backbone_blocks}'
    )
  if config.channels % 2 or config.channels % config.num_heads:
    raise ValueError(
        'channels must be even and a multiple of num_heads; got '
        f'{config.channels} and {config.num_heads}'
    )
  if not 0 <= config.dropout < 1:
    raise ValueError(
        f'dropout must be at least 0 and less than 1; got {config.dropout}'
    )
