"""The network of `tapir_tiny`: that of TAPIR, with its stem and priors."""

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.models.contract import NumFrames
from tapjax.models.tapir.network import ExtraConvs
from tapjax.models.tapir.network import halve
from tapjax.models.tapir.network import MIXER_MULTIPLIER
from tapjax.models.tapir.network import STATE_CHANNELS
from tapjax.models.tapir_tiny.appearance import FeatureGrids
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.nn.cost_volume import CostVolumeHead
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.mixer import BlockMemory
from tapjax.nn.mixer import Mixer
from tapjax.nn.normalization import normalize_vectors
from tapjax.nn.resnet import ResNet


class TapirTiny(hk.Module):
  """The parameters of `tapir_tiny`, and its operations on a frame or a track.

  Parts have the names that they have in TAPIR.
  """

  def __init__(
      self, config: TapirTinyConfig, platform: str, name: str = 'tapir'
  ):
    super().__init__(name=name)
    self._config = config
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
        pooled_stride=config.logits_stride,
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

  def __call__(
      self,
      frame: Float[Array, 'h w 3'],
      inputs: Float[Array, 'n t c'],
  ) -> Float[Array, 'n t o']:
    """Runs every part: features, guess and refinement of a frame."""
    grids = self.encode_frame(frame)
    self.estimate_frame(grids.coarse, grids.coarse[0, :1])
    changes, _ = self.mix(inputs, None)
    return changes

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> FeatureGrids:
    """Returns the features of a frame that has the size of a level."""
    stem, _, fine, _, coarse = self._resnet(frame[None])
    coarse = normalize_vectors(self._extra_convs(coarse))
    pooled = [coarse]
    for _ in range(self._config.pooled_levels):
      pooled.append(halve(pooled[-1]))
    grids = FeatureGrids(
        normalize_vectors(fine),
        coarse,
        tuple(pooled[1:]),
        stem if self._config.stem_support_radius else None,
    )
    return jax.tree.map(lambda grid: grid[0], grids)

  def estimate_frame(
      self,
      grid: Float[Array, 'h8 w8 c8'],
      vectors: Float[Array, 'n c8'],
      prior: Float[Array, 'n h8 w8'] | None = None,
      templates: Float[Array, 'n c8'] | None = None,
  ) -> FrameEstimate:
    """Guesses the position of each query in one frame."""
    return self._cost_volume(grid, vectors, prior, templates)

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
