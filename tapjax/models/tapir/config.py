"""Settings of TAPIR networks, and those of the published ones."""

import dataclasses
import math
from typing import Literal

from tapjax.geometry import Resolution
from tapjax.models.contract import Precision
from tapjax.models.multires import list_levels
from tapjax.settings import check_at_least

STRIDE = 8


@dataclasses.dataclass(frozen=True)
class TapirConfig:
  """Settings of a TAPIR network.

  Attributes:
    resolution: (height, width) at which the network sees the video.
    initial_resolution: where tracks are initialized; the outputs of the
      refinement are also counted in its pixels. None is `resolution`.
    refinement_resolutions: where tracks are refined, one after the other, each
      a multiple of 8; None derives them from `resolution`, in steps of at most
      about two. Each has features of its own size; the published program takes
      those of the video's size where the entry before it has that size.
    channels: of the four groups of the backbone.
    strides: of the four groups of the backbone, after a stem of stride 2.
    num_extra_convs: layers between the backbone and the features.
    temperature: of the softmax over a frame.
    pooled_levels: coarser grids to correlate with, each half the size.
    radius: of a correlated patch, in cells of its grid.
    num_iterations: of refinement, at each resolution.
    mixer_blocks: of the refinement network.
    mixer_channels: of the refinement network.
    temporal: whether the refinement of a frame sees frames on both sides or
      only the past ones.
    visibility_threshold: a point counts as visible where the probability that
      it is visible and its position right is larger.
    precision: of matrix products on GPUs and TPUs; by default they round to
      fewer digits there, which moves positions by tenths of pixels.
  """

  resolution: Resolution = (256, 256)
  initial_resolution: Resolution | None = (256, 256)
  refinement_resolutions: tuple[Resolution, ...] | None = None
  channels: tuple[int, ...] = (64, 128, 256, 256)
  strides: tuple[int, ...] = (1, 2, 2, 1)
  num_extra_convs: int = 0
  temperature: float = 20.0
  pooled_levels: int = 0
  radius: int = 3
  num_iterations: int = 4
  mixer_blocks: int = 12
  mixer_channels: int = 512
  temporal: Literal['both', 'past'] = 'both'
  visibility_threshold: float = 0.5
  precision: Precision = 'highest'

  @property
  def feature_channels(self) -> tuple[int, int]:
    """Channels of the fine and of the coarse grid."""
    return self.channels[1], self.channels[-1]

  @property
  def first_resolution(self) -> Resolution:
    """Resolution at which tracks are initialized."""
    return self.initial_resolution or self.resolution

  @property
  def levels(self) -> tuple[Resolution, ...]:
    """Resolutions of the refinement, in order."""
    return list_levels(
        self.first_resolution,
        self.resolution,
        self.refinement_resolutions,
        STRIDE,
    )

  @property
  def encoded_resolutions(self) -> tuple[Resolution, ...]:
    """Distinct resolutions at which features are computed."""
    return tuple(dict.fromkeys((self.first_resolution, *self.levels)))


TAPIR = TapirConfig()
CAUSAL_TAPIR = dataclasses.replace(TAPIR, pooled_levels=1, temporal='past')
BOOTSTAPIR = dataclasses.replace(
    TAPIR, pooled_levels=1, num_extra_convs=5, temperature=10.0
)
CAUSAL_BOOTSTAPIR = dataclasses.replace(BOOTSTAPIR, temporal='past')

_AT_LEAST_ONE = ('num_iterations', 'mixer_blocks', 'mixer_channels')
_AT_LEAST_ZERO = ('num_extra_convs', 'pooled_levels', 'radius')


def check_config(config: TapirConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  check_fields(config, _AT_LEAST_ONE, _AT_LEAST_ZERO, ('temperature',))
  check_sizes(config)


def check_fields(
    config: TapirConfig,
    at_least_one: tuple[str, ...],
    at_least_zero: tuple[str, ...],
    finite: tuple[str, ...],
) -> None:
  """Raises ValueError for numbers out of range."""
  if len(config.channels) != 4 or len(config.strides) != 4:
    raise ValueError(
        'channels and strides must have four entries, one for each group; got '
        f'{config.channels} and {config.strides}'
    )
  check_at_least(1, config, at_least_one)
  check_at_least(0, config, at_least_zero)
  for name in finite:
    if not math.isfinite(getattr(config, name)):
      raise ValueError(f'{name} must be finite; got {getattr(config, name)}')


def check_sizes(config: TapirConfig) -> None:
  """Raises ValueError for resolutions that the network cannot encode."""
  if not config.levels:
    raise ValueError('refinement_resolutions must have an entry; got none')
  smallest = STRIDE * 2**config.pooled_levels
  for height, width in config.encoded_resolutions:
    if height % STRIDE or width % STRIDE or min(height, width) < smallest:
      raise ValueError(
          'initial_resolution and refinement_resolutions must be multiples of '
          f'{STRIDE}, of at least {smallest} with {config.pooled_levels} '
          f'pooled levels; got {(height, width)} (where not given, they follow '
          f'from resolution {config.resolution}) - choose a larger one'
      )
