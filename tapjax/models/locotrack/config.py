"""Settings of LocoTrack networks, and those of the published ones."""

import dataclasses
import itertools
import math
import operator
from typing import Literal, NamedTuple

from tapjax.geometry import Resolution
from tapjax.models.contract import Precision
from tapjax.models.multires import list_levels
from tapjax.nn.efficientnet import list_blocks
from tapjax.nn.efficientnet import Trunk
from tapjax.nn.efficientnet import TRUNKS
from tapjax.nn.temporal_transformer import Gelu
from tapjax.settings import check_at_least

RESNET_CHANNELS = (64, 128, 256, 256)
RESNET_STRIDES = (1, 2, 2, 1)
PROJECTED_CHANNELS = (64, 128, 256)
GROUP_SIZE = 16

_MULTIPLE = 8
_SMALLEST = 4 * _MULTIPLE


class Level(NamedTuple):
  """A resolution of the refinement, and that of the frames it reads."""

  resolution: Resolution
  frames: Resolution


@dataclasses.dataclass(frozen=True)
class LocoTrackConfig:
  """Settings of a LocoTrack network.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    initial_resolution: the refinement counts in its pixels; by default tracks
      are also initialized there.
    refinement_resolutions: each a multiple of 8; None derives them from
      `resolution`, in steps of at most about two.
    refined_levels: with 'last', tracks are initialized on the first of these
      resolutions and refined on the last; with 'every', they are initialized at
      `initial_resolution`, refined on one after the other, and the last
      iterations averaged.
    encoder: of frames; the EfficientNet 'b0_projected' has more channels.
    temperature: of the softmax over a frame.
    radius: of the squares that are correlated, in cells of each grid.
    encoder_layers: (size, stride, channels) of each convolution that encodes a
      correlation.
    num_iterations: of refinement.
    transformer_layers: of the refinement network.
    transformer_channels: of the refinement network.
    transformer_heads: of the refinement network, half of them per direction.
    inputs: order of the inputs of the refinement network: logits and
      correlation, then motion; or motion first; or motion first and the
      features of the track last.
    gelu: the exact one, or its tanh approximation as in the JAX program.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (256, 256)
  initial_resolution: Resolution = (256, 256)
  refinement_resolutions: tuple[Resolution, ...] | None = None
  refined_levels: Literal['last', 'every'] = 'last'
  encoder: Literal[
      'resnet', 'b0', 'b0_projected', 'b0_deep', 'b2', 'b5', 'b256'
  ] = 'resnet'
  temperature: float = 20.0
  radius: int = 3
  encoder_layers: tuple[tuple[int, int, int], ...] = ((5, 4, 64), (2, 2, 128))
  num_iterations: int = 4
  transformer_layers: int = 3
  transformer_channels: int = 256
  transformer_heads: int = 4
  inputs: Literal[
      'motion_last', 'motion_first', 'motion_first_features_last'
  ] = 'motion_last'
  gelu: Gelu = 'exact'
  precision: Precision = 'highest'

  @property
  def first_resolution(self) -> Resolution:
    """Resolution at which tracks are initialized."""
    if self.refined_levels == 'every':
      return self.initial_resolution
    return self.listed_resolutions[0]

  @property
  def levels(self) -> tuple[Level, ...]:
    """Levels of the refinement, in order."""
    listed = self.listed_resolutions
    if self.refined_levels == 'every':
      return tuple(Level(resolution, resolution) for resolution in listed)
    frames = listed[0]
    for before, resolution in itertools.pairwise(listed):
      # PARITY: after a level of the video's own size, the PyTorch program takes
      # the video as it is for the next one
      # (test_a_level_after_one_of_the_size_of_the_video).
      if resolution != before:
        frames = before if before == self.resolution else resolution
    return (Level(listed[-1], frames),)

  @property
  def encoded_resolutions(self) -> tuple[Resolution, ...]:
    """Distinct resolutions at which features are computed."""
    refined = (level.frames for level in self.levels)
    return tuple(dict.fromkeys((self.first_resolution, *refined)))

  @property
  def listed_resolutions(self) -> tuple[Resolution, ...]:
    """Resolutions that are given, or follow from that of the video."""
    return list_levels(
        self.initial_resolution,
        self.resolution,
        self.refinement_resolutions,
        _MULTIPLE,
    )

  @property
  def trunk(self) -> Trunk:
    """EfficientNet that encodes frames."""
    assert self.encoder != 'resnet', 'a residual network has no trunk'
    return TRUNKS['b0' if self.encoder == 'b0_projected' else self.encoder]

  @property
  def grid_channels(self) -> tuple[int, int, int]:
    """Channels of the fine, the middle and the coarse grid."""
    if self.encoder == 'resnet':
      return RESNET_CHANNELS[0], RESNET_CHANNELS[1], RESNET_CHANNELS[3]
    if self.encoder == 'b0_projected':
      return PROJECTED_CHANNELS
    blocks = list(list_blocks(self.trunk))
    fine, middle, coarse = (blocks[tap].channels for tap in self.trunk.taps)
    return fine, middle, coarse

  @property
  def grid_strides(self) -> tuple[int, int, int]:
    """Pixels per cell of the fine, the middle and the coarse grid."""
    if self.encoder == 'resnet':
      return 2, 4, 8
    strides = list(
        itertools.accumulate(
            (block.stride for block in list_blocks(self.trunk)),
            operator.mul,
            initial=2,
        )
    )[1:]
    fine, middle, coarse = (strides[tap] for tap in self.trunk.taps)
    return fine, middle, coarse

  @property
  def reads_features(self) -> bool:
    """Whether the refinement network reads the features of a track."""
    return self.inputs == 'motion_first_features_last'

  @property
  def track_channels(self) -> int:
    """Features of a track that the refinement network changes.

    Most networks change them and never read them.
    """
    fine, middle, coarse = self.grid_channels
    return middle + coarse + (fine if self.reads_features else 0)


SMALL = LocoTrackConfig()
BASE = dataclasses.replace(
    SMALL,
    encoder_layers=((3, 2, 64), (3, 2, 128), (2, 2, 128)),
    transformer_channels=384,
    transformer_heads=6,
)
EFFICIENTNET_B0 = dataclasses.replace(
    SMALL, encoder='b0', inputs='motion_first'
)
EFFICIENTNET_B2 = dataclasses.replace(EFFICIENTNET_B0, encoder='b2')
EFFICIENTNET_B5 = dataclasses.replace(
    EFFICIENTNET_B0,
    encoder='b5',
    resolution=(384, 512),
    initial_resolution=(384, 512),
)
EFFICIENTNET_B0_934 = dataclasses.replace(
    EFFICIENTNET_B0, inputs='motion_first_features_last'
)
EFFICIENTNET_B0_TINY = dataclasses.replace(
    EFFICIENTNET_B0_934,
    encoder_layers=((5, 4, 32), (2, 2, 64)),
    transformer_channels=128,
    transformer_heads=2,
)
EFFICIENTNET_B0_PROJ = dataclasses.replace(SMALL, encoder='b0_projected')
EFFICIENTNET_B0_DEEP = dataclasses.replace(EFFICIENTNET_B0, encoder='b0_deep')
EFFICIENTNET_256 = dataclasses.replace(EFFICIENTNET_B0, encoder='b256')

_AT_LEAST_ONE = (
    'num_iterations',
    'transformer_layers',
    'transformer_channels',
    'radius',
)


def check_config(config: LocoTrackConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  check_at_least(1, config, _AT_LEAST_ONE)
  heads = config.transformer_heads
  if heads < 2 or heads % 2 or config.transformer_channels % heads:
    raise ValueError(
        'transformer_heads must be even and divide transformer_channels; got '
        f'{heads} and {config.transformer_channels}'
    )
  if not config.encoder_layers or any(
      min(size, stride, channels) < 1 or channels % GROUP_SIZE
      for size, stride, channels in config.encoder_layers
  ):
    raise ValueError(
        'encoder_layers must be (size, stride, channels), the channels '
        f'multiples of {GROUP_SIZE}; got {config.encoder_layers}'
    )
  if not math.isfinite(config.temperature):
    raise ValueError(f'temperature must be finite; got {config.temperature}')
  _check_sizes(config)


def _check_sizes(config: LocoTrackConfig) -> None:
  """Raises ValueError for resolutions that the network cannot encode."""
  if not config.listed_resolutions:
    raise ValueError('refinement_resolutions must have an entry; got none')
  for resolution in (config.initial_resolution, *config.listed_resolutions):
    if any(side % _MULTIPLE or side < _SMALLEST for side in resolution):
      raise ValueError(
          'initial_resolution and refinement_resolutions must be multiples of '
          f'{_MULTIPLE}, of at least {_SMALLEST}; got {resolution} (where not '
          f'given, they follow from resolution {config.resolution}) - choose '
          'a larger one'
      )
