"""The network of LocoTrack: features, cost volumes and the refinement."""

from collections.abc import Callable

import haiku as hk
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float

from tapjax.geometry import resize_video
from tapjax.models.contract import NumFrames
from tapjax.models.locotrack.config import LocoTrackConfig
from tapjax.models.locotrack.config import PROJECTED_CHANNELS
from tapjax.models.locotrack.config import RESNET_CHANNELS
from tapjax.models.locotrack.config import RESNET_STRIDES
from tapjax.models.locotrack.correlations import correlate_frame
from tapjax.models.locotrack.correlations import CorrelationEncoder
from tapjax.models.locotrack.correlations import FeatureGrids
from tapjax.models.locotrack.correlations import flatten_patches
from tapjax.models.locotrack.correlations import get_centers
from tapjax.models.locotrack.correlations import KernelForms
from tapjax.models.locotrack.correlations import QueryPatches
from tapjax.models.locotrack.refinement import join_inputs
from tapjax.models.locotrack.refinement import repeat_over_time
from tapjax.models.locotrack.refinement import STATE_CHANNELS
from tapjax.models.multires import Refinement
from tapjax.nn.cost_volume import FrameEstimate
from tapjax.nn.efficientnet import EfficientNet
from tapjax.nn.efficientnet import TRUNKS
from tapjax.nn.normalization import normalize_vectors
from tapjax.nn.resnet import ResNet
from tapjax.nn.temporal_transformer import TemporalTransformer
from tapjax.ops.heatmap import find_largest
from tapjax.ops.heatmap import soft_argmax
from tapjax.ops.loops import add_all
from tapjax.ops.sampling import read_neighborhoods

# Side of the convolution of cost volumes.
HEATMAP_KERNEL = 3

_PEAK_RADIUS = 5.0
# Side of the frame that initializes a network.
_SMALL_SIDE = 32


class Projection(hk.Module):
  """An EfficientNet with wider outputs, by a 1x1 convolution of each."""

  def __init__(self, name: str, axis: str | None):
    super().__init__(name=name)
    self._trunk = EfficientNet(TRUNKS['b0'], name='trunk', axis=axis)
    self._projections = [
        hk.Conv2D(width, 1, name=f'project_{i}')
        for i, width in enumerate(PROJECTED_CHANNELS)
    ]

  def __call__(
      self, images: Float[Array, 'b h w 3'], *, is_training: bool = False
  ) -> list[Float[Array, 'b _ _ _']]:
    taps = self._trunk(images, is_training=is_training)
    return [
        project(tap)
        for project, tap in zip(self._projections, taps, strict=True)
    ]


class HeatmapConv(hk.Module):
  """A 3x3 convolution of two cost volumes to one heatmap.

  As a sum of shifted products; at such widths a CPU takes several times as long
  for a convolution.
  """

  def __call__(
      self, costs: tuple[Float[Array, 'n h w'], Float[Array, 'n h w']]
  ) -> Float[Array, 'n h w']:
    shape = (HEATMAP_KERNEL, HEATMAP_KERNEL, len(costs), 1)
    fan_in = HEATMAP_KERNEL**2 * len(costs)
    kernel = hk.get_parameter(
        'w', shape, init=hk.initializers.TruncatedNormal(fan_in**-0.5)
    )
    bias = hk.get_parameter('b', (1,), init=jnp.zeros)
    height, width = costs[0].shape[1:]
    padded = [jnp.pad(cost, ((0, 0), (1, 1), (1, 1))) for cost in costs]
    heatmap = add_all(
        cost[:, row : row + height, column : column + width]
        * kernel[row, column, i][:, None, None]
        for i, cost in enumerate(padded)
        for row in range(HEATMAP_KERNEL)
        for column in range(HEATMAP_KERNEL)
    )
    return heatmap + bias[:, None, None]


class LocoTrack(hk.Module):
  """The parameters of LocoTrack, and its operations on a frame or a track."""

  def __init__(
      self,
      config: LocoTrackConfig,
      platform: str,
      name: str = 'locotrack',
      *,
      axis: str | None = None,
  ):
    """Makes the module.

    Args:
      config: settings of the network.
      platform: see `TrackerFunctions`.
      name: of the module.
      axis: of the mapped function whose shards norms see together in training.
    """
    super().__init__(name=name)
    self._config = config
    self._encoder = _make_encoder(config, platform, axis)
    self._heatmap = HeatmapConv(name='heatmap')
    self._logits = hk.Linear(2, name='logits')
    self._correlation_encoders = [
        CorrelationEncoder(
            2 * config.radius + 1,
            config.encoder_layers,
            platform,
            name=f'encode_{grid}',
        )
        for grid in FeatureGrids._fields
    ]
    outputs = STATE_CHANNELS + config.track_channels
    self._transformer = TemporalTransformer(
        config.transformer_layers,
        config.transformer_channels,
        config.transformer_heads,
        config.gelu,
        output_channels=outputs,
        used_outputs=outputs if config.reads_features else STATE_CHANNELS,
        name='transformer',
    )

  def __call__(self, frame: Float[Array, 'h w 3']) -> Float[Array, '1 1 o']:
    """Tracks the center of a frame through the frame, for one iteration."""
    config = self._config
    grids = self.encode_frame(frame)
    patches = QueryPatches(
        *(_read_center(grid, config.radius) for grid in grids)
    )
    vectors = get_centers(patches)
    height, width, _ = grids.middle.shape
    estimate = self.estimate_frame(
        grids.middle, grids.coarse, vectors.middle, vectors.coarse
    )
    occlusion, uncertainty = jnp.moveaxis(estimate.logits, -1, 0)[:, :, None]
    now = Refinement(
        estimate.positions[:, None],
        occlusion,
        uncertainty,
        repeat_over_time(patches, config, num_frames=1),
    )
    correlations = correlate_frame(
        grids,
        estimate.positions,
        flatten_patches(patches),
        (height, width),
        config.radius,
    )
    embedded = self.embed(self.prepare_kernels(), *correlations)
    return self.mix(
        join_inputs(now, embedded[:, None], config, config.initial_resolution)
    )

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> FeatureGrids:
    """Returns the features of a frame that has the size of a level."""
    outputs = self._encoder(frame[None])
    if self._config.encoder == 'resnet':
      outputs = [outputs[1], outputs[2], outputs[4]]
    return FeatureGrids(*(normalize_vectors(grid)[0] for grid in outputs))

  def encode_in_training(
      self, frames: Float[Array, 'bt h w 3']
  ) -> FeatureGrids:
    """Returns the features of frames, with batch norms over all of them."""
    outputs = self._encoder(frames, is_training=True)
    return FeatureGrids(*(normalize_vectors(grid) for grid in outputs))

  def estimate_frame(
      self,
      middle: Float[Array, 'h4 w4 c4'],
      coarse: Float[Array, 'h8 w8 c8'],
      middle_vectors: Float[Array, 'n c4'],
      coarse_vectors: Float[Array, 'n c8'],
  ) -> FrameEstimate:
    """Guesses the position of each query in a frame, in cells of `middle`."""
    cost = compute_costs(middle, middle_vectors)
    coarse_cost = compute_costs(coarse, coarse_vectors)
    coarse_cost = resize_video(coarse_cost[..., None], cost.shape[1:])[..., 0]
    costs = (coarse_cost, cost)
    heatmap = self._heatmap(costs) * self._config.temperature
    positions = soft_argmax(heatmap, _PEAK_RADIUS)
    summary = jnp.stack(
        [
            reduce(cost)
            for reduce in (_find_mean, find_largest, _find_smallest)
            for cost in costs
        ],
        axis=-1,
    )
    return FrameEstimate(positions, self._logits(summary))

  def prepare_kernels(self) -> tuple[KernelForms, ...]:
    """Returns the first kernels of the encoders, once for many frames."""
    return tuple(
        encoder.prepare_kernel() for encoder in self._correlation_encoders
    )

  def embed(
      self,
      kernels: tuple[KernelForms, ...],
      fine: Float[Array, 'n q p p'],
      middle: Float[Array, 'n q p p'],
      coarse: Float[Array, 'n q p p'],
  ) -> Float[Array, 'n e']:
    """Encodes the correlations of points with one frame."""
    embedded = [
        encode(correlation, kernel)
        for encode, correlation, kernel in zip(
            self._correlation_encoders,
            (fine, middle, coarse),
            kernels,
            strict=True,
        )
    ]
    return jnp.concatenate([embedded[1], embedded[2], embedded[0]], axis=-1)

  def mix(
      self, inputs: Float[Array, 'n t c'], num_frames: NumFrames | None = None
  ) -> Float[Array, 'n t o']:
    """Returns the changes of the state of each track."""
    return self._transformer(inputs, num_frames)


def make_small_frame() -> Float[Array, 'h w 3']:
  """Returns a black frame with one cell or more on the coarsest grid."""
  return jnp.zeros((_SMALL_SIDE, _SMALL_SIDE, 3), jnp.float32)


def compute_costs(
    grid: Float[Array, 'h w c'], vectors: Float[Array, 'n c']
) -> Float[Array, 'n h w']:
  """Returns the products of each vector with every cell of a grid."""
  height, width, channels = grid.shape
  cost = vectors @ grid.reshape(-1, channels).T
  return cost.reshape(-1, height, width)


def _make_encoder(
    config: LocoTrackConfig, platform: str, axis: str | None
) -> Callable[..., list[Array]]:
  if config.encoder == 'resnet':
    return ResNet(
        RESNET_CHANNELS,
        RESNET_STRIDES,
        blocks_per_group=2,
        stem_channels=RESNET_CHANNELS[0],
        platform=platform,
        name='resnet',
    )
  if config.encoder == 'b0_projected':
    return Projection(name='projection', axis=axis)
  return EfficientNet(config.trunk, name='efficientnet', axis=axis)


def _read_center(
    grid: Float[Array, 'h w c'], radius: int
) -> Float[Array, '1 p p c']:
  """Returns the features in the square around the center of a grid."""
  height, width, _ = grid.shape
  center = jnp.asarray([[height / 2, width / 2]], jnp.float32)
  return read_neighborhoods(grid, center, radius)


def _find_mean(costs: Float[Array, 'n h w']) -> Float[Array, 'n']:
  return jnp.mean(costs, axis=(1, 2))


def _find_smallest(costs: Float[Array, 'n h w']) -> Float[Array, 'n']:
  return -find_largest(-costs)
