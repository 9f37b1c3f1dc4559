"""Settings of `tapir_tiny`."""

import dataclasses
from typing import Literal

from tapjax.geometry import Resolution
from tapjax.models.tapir import config as tapir


@dataclasses.dataclass(frozen=True)
class TapirTinyConfig(tapir.TapirConfig):
  """Settings of a causal TAPIR with appearance templates and a motion prior.

  Positions are as exact as cells are small, so videos are enlarged, as far as
  the tracker stays eight times as fast as TAPIR.

  Attributes:
    initial_resolution: where tracks are initialized; by default `resolution`
      alone decides the size at which the tracker sees a video.
    support_radius: of the patch around a query whose cells are all correlated
      with the fine grid, in cells of it; 0 correlates the query alone.
    stem_support_radius: of another patch, in cells of the backbone's stem,
      which are half as large; 0 has none. Its cells are compared by their
      contrast to the mean of the patch, as Lucas and Kanade do.
    logits_stride: of the layer that reads logits off the cost volume of a
      frame. With 3 it sees every cell once, and takes two thirds of the time.
    position_weight: of the positions of a track, in frames from the middle,
      among the inputs of the refinement network, which shows it jumps.
    template_weight: of the appearance on earlier frames, beside that at the
      query. With more, templates drift away from the query.
    template_rate: share of a new appearance in the running mean of them, if it
      surely shows the point.
    lone_template_weight: of the template without the query, such as for a point
      that has turned: a cell of the first guess counts by the template or by
      both together, whichever it resembles more.
    motion_weight: penalty of a cell far from the predicted position, in logits
      of the heatmap.
    motion_reach: cells of the coarse grid after which it loses half of that.
    frames_at_once: frames that the cores of a CPU encode at the same time; more
      than one are faster where channels are few, and take longer to compile.
  """

  resolution: Resolution = (328, 328)
  initial_resolution: Resolution | None = None
  channels: tuple[int, ...] = (16, 32, 64, 64)
  strides: tuple[int, ...] = (2, 1, 2, 1)
  pooled_levels: int = 1
  # A second iteration changes nothing.
  num_iterations: int = 1
  mixer_blocks: int = 4
  mixer_channels: int = 128
  temporal: Literal['both', 'past'] = 'past'
  # Where its Average Jaccard on procedural videos is highest.
  visibility_threshold: float = 0.3
  support_radius: int = 2
  stem_support_radius: int = 2
  logits_stride: int = 3
  position_weight: float = 8.0
  template_weight: float = 0.4
  template_rate: float = 0.5
  lone_template_weight: float = 0.9
  motion_weight: float = 5.0
  motion_reach: float = 5.0
  # With more, compiling and memory grow without a gain on few cores.
  frames_at_once: int = 4


TAPIR_TINY = TapirTinyConfig()

_AT_LEAST_ONE = (
    'num_iterations',
    'mixer_blocks',
    'mixer_channels',
    'frames_at_once',
    'logits_stride',
)
_AT_LEAST_ZERO = (
    'num_extra_convs',
    'pooled_levels',
    'radius',
    'support_radius',
    'stem_support_radius',
)
_FINITE = (
    'temperature',
    'position_weight',
    'template_weight',
    'lone_template_weight',
    'motion_weight',
)


def check_config(config: TapirTinyConfig) -> None:
  """Raises ValueError for settings that no network can have."""
  tapir.check_fields(config, _AT_LEAST_ONE, _AT_LEAST_ZERO, _FINITE)
  if not 0 <= config.template_rate <= 1:
    raise ValueError(
        f'template_rate must be between 0 and 1; got {config.template_rate}'
    )
  if config.temporal != 'past':
    raise ValueError(
        "temporal must be 'past' where the guess on a frame depends on earlier "
        f'ones; got {config.temporal!r}'
    )
  if not config.motion_reach > 0:
    raise ValueError(
        f'motion_reach must be positive; got {config.motion_reach}'
    )
  tapir.check_sizes(config)
