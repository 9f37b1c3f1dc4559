"""Settings of PIPs++ networks, and those of the published one."""

import dataclasses
import math

from tapjax.geometry import Resolution
from tapjax.models.contract import Precision

STRIDE = 8
STAGE_STRIDES = (1, 2, 2, 2)
BLOCKS_PER_STAGE = 2
# Frames before a track's frame from which its refreshed vectors come.
LAGS = (2, 4)

_LOWEST = {
    'fused_channels': 1,
    'feature_channels': 1,
    'levels': 1,
    'radius': 0,
    'frequencies': 2,
    'num_iterations': 1,
    'window': 2,
}


@dataclasses.dataclass(frozen=True)
class PipsPlusPlusConfig:
  """Settings of a PIPs++ network.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    channels: of the four stages of the encoder; the first is also the stem's.
    fused_channels: between the stages and the features.
    feature_channels: of the features.
    levels: grids to correlate with, each half the size of the one before.
    radius: of a correlated patch, in cells of its grid.
    frequencies: sines and cosines for each coordinate of the motion.
    block_channels: of each residual block over time; the first is also that of
      the convolution before them.
    num_iterations: of refinement, in every window.
    window: frames that are refined together, at least 2. Longer videos are
      tracked in consecutive windows.
    late_step: factor of the changes in the last quarter of the iterations; the
      published demo takes 0.5 and its evaluation 1.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (512, 896)
  channels: tuple[int, ...] = (64, 96, 128, 128)
  fused_channels: int = 256
  feature_channels: int = 128
  levels: int = 4
  radius: int = 3
  frequencies: int = 32
  block_channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512, 1024, 1024)
  num_iterations: int = 16
  window: int = 128
  late_step: float = 1.0
  precision: Precision = 'highest'

  @property
  def smallest_side(self) -> int:
    """Pixels of a frame with one cell on the coarsest grid."""
    return STRIDE * 2 ** (self.levels - 1)


PIPS_PLUS_PLUS = PipsPlusPlusConfig()


def check_config(config: PipsPlusPlusConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  if len(config.channels) != len(STAGE_STRIDES):
    raise ValueError(
        'channels must have four entries, one for each stage; got '
        f'{config.channels}'
    )
  for name, low in _LOWEST.items():
    if getattr(config, name) < low:
      raise ValueError(
          f'{name} must be at least {low}; got {getattr(config, name)}'
      )
  widths = config.block_channels
  if not widths or min(widths) < 1 or sorted(widths) != list(widths):
    raise ValueError(
        'block_channels must have an entry and never shrink; got '
        f'{config.block_channels}'
    )
  if not math.isfinite(config.late_step):
    raise ValueError(f'late_step must be finite; got {config.late_step}')
  smallest = config.smallest_side
  if min(config.resolution) < smallest:
    raise ValueError(
        f'resolution must be at least {smallest} with {config.levels} levels; '
        f'got {config.resolution} - choose a larger one'
    )
