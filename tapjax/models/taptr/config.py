"""Settings of TAPTRv2 networks, and those of the published one."""

import dataclasses
from typing import Literal

from tapjax.geometry import Resolution
from tapjax.models.contract import Precision
from tapjax.nn.torchvision_resnet import ResNetConfig
from tapjax.settings import check_at_least

_AT_LEAST_ONE = (
    'backbone_channels',
    'channels',
    'hidden_channels',
    'num_heads',
    'num_samples',
    'num_groups',
    'decoder_layers',
)


@dataclasses.dataclass(frozen=True)
class TaptrConfig:
  """Settings of a TAPTRv2 network.

  Attributes:
    resolution: (height, width) at which the network sees the video; a square.
    ends: meaning of the network's coordinates 0 and 1: the centers of the first
      and the last pixel, as it was trained, or the outer edges of the frame, as
      the published evaluation takes them.
    backbone_blocks: of each stage of the residual network; each is a level.
    backbone_channels: of its stem.
    channels: of a token and of a point.
    hidden_channels: of the perceptron after each attention.
    num_heads: of each attention.
    num_samples: that each head takes of each level.
    num_groups: of channels that are normalised together.
    encoder_layers: of attention among the tokens of a frame.
    decoder_layers: of refinement of a window.
    window: frames that are tracked together; the next begins half of it later.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (512, 512)
  ends: Literal['centers', 'edges'] = 'centers'
  backbone_blocks: tuple[int, ...] = (3, 4, 6, 3)
  backbone_channels: int = 64
  channels: int = 256
  hidden_channels: int = 2048
  num_heads: int = 8
  num_samples: int = 4
  num_groups: int = 32
  encoder_layers: int = 2
  decoder_layers: int = 5
  window: int = 8
  precision: Precision = 'highest'

  @property
  def backbone(self) -> ResNetConfig:
    """Settings of the residual network."""
    return ResNetConfig(
        self.backbone_blocks, 'bottleneck', 'frozen', self.backbone_channels
    )

  @property
  def num_levels(self) -> int:
    """Levels of the pyramid."""
    return len(self.backbone_blocks)

  @property
  def sizes(self) -> tuple[Resolution, ...]:
    """Size in cells of each level, the finest first."""
    height, width = self.resolution
    strides = (4 * 2**i for i in range(self.num_levels))
    return tuple((-(-height // s), -(-width // s)) for s in strides)


TAPTRV2 = TaptrConfig()


def check_config(config: TaptrConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  height, width = config.resolution
  if height != width or height < 2:
    raise ValueError(
        'resolution must be a square for TAPTRv2, which was published for no '
        f'other; got {config.resolution} - use ({height}, {height})'
    )
  if not config.backbone_blocks or min(config.backbone_blocks) < 1:
    raise ValueError(
        'backbone_blocks must have an entry above 0 for each stage; got '
        f'{config.backbone_blocks}'
    )
  check_at_least(1, config, _AT_LEAST_ONE)
  if config.encoder_layers < 0:
    raise ValueError(
        f'encoder_layers must be at least 0; got {config.encoder_layers}'
    )
  for name, value in (
      ('num_heads', config.num_heads),
      ('num_groups', config.num_groups),
      ('4, for its sines', 4),
  ):
    if config.channels % value:
      raise ValueError(
          f'channels must be a multiple of {name}; got {config.channels}'
      )
  if config.window < 2 or config.window % 2:
    raise ValueError(f'window must be even and positive; got {config.window}')
