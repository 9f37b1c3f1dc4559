"""The network of TAPTRv2: tokens of frames, and a decoder of windows."""

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from tapjax.geometry import Resolution
from tapjax.models.taptr.config import TaptrConfig
from tapjax.models.taptr.layers import compute_logit
from tapjax.models.taptr.layers import DecoderLayer
from tapjax.models.taptr.layers import embed_boxes
from tapjax.models.taptr.layers import EncoderLayer
from tapjax.models.taptr.layers import make_mlp
from tapjax.models.taptr.layers import TEMPERATURE
from tapjax.models.taptr.layers import TrackWindow
from tapjax.nn.attention import XAVIER
from tapjax.nn.embeddings import embed_sines
from tapjax.nn.normalization import GroupNorm
from tapjax.nn.torchvision_resnet import TorchvisionResNet
from tapjax.ops.deformable import read_samples

_COLOR_MEAN = (0.485, 0.456, 0.406)
_COLOR_DEVIATION = (0.229, 0.224, 0.225)
# Logits of a class that nothing asks for, of visible and of occluded.
NUM_CLASSES = 3


class LayerOutputs(NamedTuple):
  """Outputs of decoder layers, for every point on every frame.

  Attributes:
    boxes: logits of x, y, width and height in normalized coordinates.
    moved: the same coordinates, not logits, as attention alone has moved them.
    classes: logits of three classes, of which 1 is visible and 2 occluded.
  """

  boxes: Float[Array, '*i t n 4']
  moved: Float[Array, '*i t n 4']
  classes: Float[Array, '*i t n 3']


class Taptr(hk.Module):
  """The parameters of TAPTRv2, and its operations on a frame or a window."""

  def __init__(self, config: TaptrConfig, platform: str, name: str = 'taptr'):
    super().__init__(name=name)
    self._config = config
    channels = config.channels
    layers = range(config.decoder_layers)
    self._backbone = TorchvisionResNet(config.backbone, name='backbone')
    self._projections = [
        hk.Conv2D(channels, 1, w_init=XAVIER, name=f'projection_{i}')
        for i in range(config.num_levels)
    ]
    self._projection_norms = [
        GroupNorm(config.num_groups, name=f'projection_norm_{i}')
        for i in range(config.num_levels)
    ]
    self._encoder = [
        EncoderLayer(config, platform, name=f'encoder_{i}')
        for i in range(config.encoder_layers)
    ]
    self._describer = hk.Linear(channels, name='describer')
    self._embedder = make_mlp(channels, channels, name='embedder')
    self._updater = make_mlp(channels, channels, name='updater')
    self._fuser = make_mlp(channels, channels, channels, name='fuser')
    self._decoder = [
        DecoderLayer(config, platform, name=f'decoder_{i}') for i in layers
    ]
    self._boxes = [
        make_mlp(channels, channels, 4, name=f'boxes_{i}') for i in layers
    ]
    self._classes = [
        hk.Linear(NUM_CLASSES, name=f'classes_{i}') for i in layers
    ]
    self._window_updater = make_mlp(channels, channels, name='window_updater')

  def __call__(self, frame: Float[Array, 'h w 3']) -> Float[Array, '1 1 c']:
    """Tracks the center of a frame through a window of the frame alone."""
    config = self._config
    tokens = self.encode_frame(frame)
    center = jnp.full((1, 1, config.num_levels, 1, 2), 0.5, frame.dtype)
    first_token = jnp.zeros((1,), jnp.int32)
    samples = read_samples(tokens, config.sizes, center, first_token)
    vectors = self.describe(samples.values.reshape(1, -1))[None]
    is_there = jnp.ones((1, 1), bool)
    window = TrackWindow(
        vectors,
        jnp.zeros((1, 1, 4), frame.dtype),
        first_token,
        tracked=is_there,
        updating=is_there,
    )
    _, after = self.decode_window(window, tokens)
    return self.update_vectors(vectors, vectors, after)

  def encode_frame(self, frame: Float[Array, 'h w 3']) -> Float[Array, 's c']:
    """Returns the tokens of a frame."""
    config = self._config
    deviation = np.asarray(_COLOR_DEVIATION, np.float32)[None, None]
    mean = np.asarray(_COLOR_MEAN, np.float32)[None, None]
    colors = ((frame + 1) / 2 - mean) / deviation
    levels = [
        norm(projection(x))
        for x, projection, norm in zip(
            self._backbone(colors[None]),
            self._projections,
            self._projection_norms,
            strict=True,
        )
    ]
    embeddings = hk.get_parameter(
        'level_embeddings',
        (config.num_levels, config.channels),
        init=hk.initializers.RandomNormal(),
    )
    x = jnp.concatenate(
        [level.reshape(-1, config.channels) for level in levels]
    )
    position = jnp.concatenate(
        [
            embed_cells(size, config.channels) + embedding[None]
            for size, embedding in zip(config.sizes, embeddings, strict=True)
        ]
    )
    centers = jnp.concatenate([_list_centers(size) for size in config.sizes])
    for layer in self._encoder:
      x = layer(x, position, centers)
    return x

  def describe(self, samples: Float[Array, 'n l_c']) -> Float[Array, 'n c']:
    """Returns vectors of points from samples of all levels."""
    return self._describer(samples)

  def decode_window(
      self, window: TrackWindow, tokens: Float[Array, 's c']
  ) -> tuple[LayerOutputs, Float[Array, 't n c']]:
    """Returns the outputs of all layers, and the last one's vectors."""
    channels = self._config.channels
    updating = window.updating[..., None]
    boxes = jax.nn.sigmoid(window.boxes)
    x = window.vectors
    outputs = []
    for i, layer in enumerate(self._decoder):
      if i:
        x += self._updater(jnp.concatenate([x, window.vectors], axis=-1))
      position = self._embedder(embed_boxes(boxes, channels))
      x, moved = layer(x, position, boxes, window, tokens)
      step = jnp.flip((moved - boxes)[..., :2], axis=-1)
      step = embed_sines(step, channels // 2, TEMPERATURE)
      fused = self._fuser(jnp.concatenate([x, step], axis=-1))
      logits = compute_logit(moved) + updating * self._boxes[i](fused)
      outputs.append(LayerOutputs(logits, moved, self._classes[i](fused)))
      boxes = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *outputs), fused

  def update_vectors(
      self,
      first: Float[Array, 't n c'],
      before: Float[Array, 't n c'],
      after: Float[Array, 't n c'],
  ) -> Float[Array, 't n c']:
    """Returns changes of the vectors with which the next window begins."""
    return self._window_updater(
        jnp.concatenate([first, before, after], axis=-1)
    )


def embed_cells(size: Resolution, channels: int) -> Float[Array, '_ c']:
  """Returns sines of the row and of the column of every cell of a level."""
  # PARITY: cells are counted from 1, and the last is almost a full turn
  # (test_taptr_parity).
  rows, columns = ((jnp.arange(side) + 1) / (side + 1e-6) for side in size)
  y, x = jnp.meshgrid(rows, columns, indexing='ij')
  values = jnp.stack([y, x], axis=-1).reshape(-1, 2)
  return embed_sines(values, channels // 2, TEMPERATURE)


def _list_centers(size: Resolution) -> Float[Array, '_ 2']:
  """Returns the normalized (x, y) of the cells of a level."""
  rows, columns = ((jnp.arange(side) + 0.5) / side for side in size)
  y, x = jnp.meshgrid(rows, columns, indexing='ij')
  return jnp.stack([x, y], axis=-1).reshape(-1, 2)


def make_black_frame(config: TaptrConfig) -> Float[Array, 'h w 3']:
  """Returns a black frame of the resolution, for which tokens are counted."""
  return jnp.zeros((*config.resolution, 3), jnp.float32)
