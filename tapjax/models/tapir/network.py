"""The network of TAPIR: features, cost volumes and the temporal mixer."""

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.models.contract import NumFrames
from tapjax.models.multires import Refinement
from tapjax.models.tapir.config import STRIDE
from tapjax.models.tapir.config import TapirConfig
from tapjax.models.tapir.correlation import correlate_tracks
from tapjax.models.tapir.correlation import FeatureGrids
from tapjax.models.tapir.correlation import join_inputs
from tapjax.nn.activations import gelu
from tapjax.nn.convolution import Conv2D
from tapjax.nn.cost_volume import CostVolumeHead
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.mixer import BlockMemory
from tapjax.nn.mixer import Mixer
from tapjax.nn.normalization import LayerNorm
from tapjax.nn.normalization import normalize_vectors
from tapjax.nn.resnet import ResNet

MIXER_MULTIPLIER = 4
# Position, occlusion and uncertainty, at the start of what the mixer reads and
# changes.
STATE_CHANNELS = 4
CONV_EXPANSION = 4


class ExtraConvs(hk.Module):
  """Norm and two convolutions, several times."""

  def __init__(self, num_layers: int, channels: int, platform: str, name: str):
    super().__init__(name=name)
    self._layers = [
        (
            LayerNorm(f'layer_norm_{i}', with_offset=True),
            Conv2D(
                channels * CONV_EXPANSION,
                3,
                platform=platform,
                name=f'expand_{i}',
            ),
            Conv2D(channels, 3, platform=platform, name=f'reduce_{i}'),
        )
        for i in range(num_layers)
    ]

  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    for norm, expand, reduce in self._layers:
      # PARITY: the skip carries the normalised tensor (test_tapir_parity).
      x = norm(x)
      x += reduce(gelu(expand(x)))
    return x


class Tapir(hk.Module):
  """The parameters of TAPIR, and its operations on a frame or a track."""

  def __init__(self, config: TapirConfig, platform: str, name: str = 'tapir'):
    super().__init__(name=name)
    self._config = config
    self._platform = platform
    fine_channels, coarse_channels = config.feature_channels
    self._resnet = ResNet(
        config.channels,
        config.strides,
        blocks_per_group=2,
        stem_channels=config.channels[0],
        platform=platform,
        name='resnet',
    )
    self._extra_convs = ExtraConvs(
        config.num_extra_convs, coarse_channels, platform, name='extra_convs'
    )
    self._cost_volume = CostVolumeHead(
        num_logits=2,
        temperature=config.temperature,
        rectify_pooled=True,
        platform=platform,
        name='cost_volume',
    )
    self._mixer = Mixer(
        num_blocks=config.mixer_blocks,
        channels=config.mixer_channels,
        multiplier=MIXER_MULTIPLIER,
        output_channels=STATE_CHANNELS + fine_channels + coarse_channels,
        temporal=config.temporal,
        name='mixer',
    )

  def __call__(self, frame: Float[Array, 'h w 3']) -> Float[Array, '1 1 o']:
    """Tracks the center of a frame through the frame, for one iteration."""
    grids = self.encode_frame(frame)
    fine, coarse = (
        grid[grid.shape[0] // 2, grid.shape[1] // 2][None]
        for grid in (grids.fine, grids.coarse)
    )
    height, width = grids.coarse.shape[:2]
    estimate = self.estimate_frame(grids.coarse, coarse)
    occlusion, uncertainty = jnp.moveaxis(estimate.logits, -1, 0)[:, :, None]
    features = jnp.concatenate([fine, coarse], axis=-1)[:, None]
    now = Refinement(
        estimate.positions[:, None],
        occlusion,
        uncertainty,
        features,
    )
    correlations = correlate_tracks(
        jax.tree.map(lambda grid: grid[None], grids),
        now.positions,
        features,
        (height, width),
        self._config.radius,
        self._platform,
    )
    changes, _ = self.mix(
        join_inputs(jnp.zeros_like(now.positions), now, correlations), None
    )
    return changes

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> FeatureGrids:
    """Returns the features of a frame that has the size of a level."""
    _, _, fine, _, coarse = self._resnet(frame[None])
    coarse = normalize_vectors(self._extra_convs(coarse))
    pooled = [coarse]
    for _ in range(self._config.pooled_levels):
      pooled.append(halve(pooled[-1]))
    grids = FeatureGrids(normalize_vectors(fine), coarse, tuple(pooled[1:]))
    return jax.tree.map(lambda grid: grid[0], grids)

  def estimate_frame(
      self, grid: Float[Array, 'h8 w8 c8'], vectors: Float[Array, 'n c8']
  ) -> FrameEstimate:
    """Guesses the position of each query in one frame."""
    return self._cost_volume(grid, vectors)

  def mix(
      self,
      inputs: Float[Array, 'n t c'],
      memory: BlockMemory | None,
      num_frames: NumFrames | None = None,
  ) -> tuple[Float[Array, 'n t o'], BlockMemory | None]:
    """Returns the changes of the state of each track."""
    is_frame = None
    if num_frames is not None:
      is_frame = jnp.arange(inputs.shape[1]) < num_frames
    return self._mixer(inputs, memory, is_frame)


def halve(grid: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ c']:
  """Averages 2x2 cells; an odd last row or column is dropped."""
  # PARITY: positions are scaled by the size of the result
  # (test_pooled_grids_of_odd_size).
  return hk.avg_pool(grid, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')


def make_small_frame(config: TapirConfig) -> Float[Array, 'h w 3']:
  """Returns a black frame with one cell or more on the coarsest grid."""
  side = STRIDE * 2 ** max(2, config.pooled_levels)
  return jnp.zeros((side, side, 3), jnp.float32)
