"""One small tracker of every architecture, with random parameters."""

import dataclasses
import functools

import numpy as np

from tapjax.models import registry
from tapjax.tracker import Tracker
from tests.support import golden

_SMALL_TAPIR = {
    'resolution': (64, 64),
    'initial_resolution': (64, 64),
    'channels': (8, 16, 16, 24),
    'num_iterations': 2,
    'mixer_blocks': 2,
    'mixer_channels': 32,
}
SETTINGS = {
    'tapir': _SMALL_TAPIR,
    'tapir_tiny': {
        **_SMALL_TAPIR,
        'resolution': (80, 128),
        'strides': (1, 2, 2, 1),
        'num_extra_convs': 1,
        'support_radius': 1,
        'stem_support_radius': 1,
        'template_weight': 1.0,
        'motion_weight': 2.0,
        'motion_reach': 4.0,
        'visibility_threshold': 0.5,
        'frames_at_once': 1,
    },
    'locotrack_efficientnet_b0_934': {
        'resolution': (80, 64),
        'initial_resolution': (64, 64),
        'encoder_layers': ((5, 4, 16), (2, 2, 16)),
        'num_iterations': 2,
        'transformer_layers': 1,
        'transformer_channels': 32,
        'transformer_heads': 2,
    },
    'tapnet': {'resolution': (64, 64), 'channels': (16, 16, 24)},
    # A window so short that videos are tracked in pieces.
    'pips_plus_plus': {
        'resolution': (64, 72),
        'channels': (8, 8, 16, 16),
        'fused_channels': 16,
        'feature_channels': 16,
        'levels': 2,
        'frequencies': 4,
        'block_channels': (16, 24),
        'num_iterations': 2,
        'window': 4,
    },
    'taptrv2': {
        'resolution': (64, 64),
        'backbone_blocks': (1, 1),
        'backbone_channels': 8,
        'channels': 16,
        'hidden_channels': 32,
        'num_heads': 2,
        'num_samples': 2,
        'num_groups': 4,
        'encoder_layers': 1,
        'decoder_layers': 2,
        'window': 4,
    },
    'point_transformer_resnet18': {
        'resolution': (64, 72),
        'backbone_blocks': (1, 1),
        'backbone_channels': 8,
        'channels': 16,
        'num_blocks': 2,
        'num_heads': 2,
        'window': 4,
        'num_points': 3,
    },
}


def make_config(name):
  config = registry.get_preset(name).config
  return dataclasses.replace(config, **SETTINGS[name])


@functools.cache
def make_tracker(name):
  config = make_config(name)
  functions = registry.get_preset(name).architecture.make_functions(config)
  params = golden.make_random_params(functions)
  return Tracker(name, config, functions, params)


def make_video(num_frames=11, height=48, width=72):
  """Smooth noise that moves, so that nothing is the same twice."""
  generator = np.random.default_rng(0)
  canvas = generator.uniform(0, 255, (height + 40, width + 40, 3))
  for axis in (0, 1):
    canvas = sum(np.roll(canvas, i, axis) for i in range(4)) / 4
  canvas = (canvas - canvas.min()) / np.ptp(canvas) * 255
  return np.stack(
      [canvas[i : i + height, 2 * i : 2 * i + width] for i in range(num_frames)]
  ).astype(np.uint8)


def assert_same(ours, theirs, pixels=2e-3, logits=2e-4):
  np.testing.assert_allclose(ours.positions, theirs.positions, atol=pixels)
  np.testing.assert_array_equal(ours.visible, theirs.visible)
  assert (ours.occlusion_logits is None) == (theirs.occlusion_logits is None)
  if ours.occlusion_logits is not None:
    np.testing.assert_allclose(
        ours.occlusion_logits, theirs.occlusion_logits, atol=logits
    )
