"""A small tracker that streams, with frames and points for its sessions."""

import functools

import jax
import numpy as np

import tapjax
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions
from tests.support import golden

CONFIG = TapirTinyConfig(
    resolution=(32, 40),
    channels=(4, 6, 8, 8),
    strides=(1, 2, 2, 1),
    num_iterations=2,
    mixer_blocks=1,
    mixer_channels=8,
    template_weight=1.0,
    motion_weight=2.0,
    frames_at_once=1,
)
# One compiled program for a frame alone, another for a video.
ROUNDING = 2e-3


@functools.cache
def make_tracker():
  functions = TapirTinyFunctions(CONFIG)
  return tapjax.Tracker(
      'tapir_tiny', CONFIG, functions, golden.make_random_params(functions)
  )


def make_frames(num_frames, seed=0):
  generator = np.random.default_rng(seed)
  return generator.integers(0, 256, (num_frames, 32, 40, 3), dtype=np.uint8)


def make_points(num, seed=1):
  return np.random.default_rng(seed).uniform(2, 30, (num, 2))


def follow(session, frames):
  tracker = make_tracker()
  parts = []
  for frame in frames:
    session, tracks = tracker.step(session, frame)
    parts.append(tracks)
  joined = jax.tree.map(lambda *a: np.concatenate(a, axis=1), *parts)
  return session, joined


def assert_close(ours, theirs):
  for mine, other in zip(ours, theirs, strict=True):
    if mine.dtype == bool:
      continue  # As the logits, except for those next to the threshold.
    np.testing.assert_allclose(mine, other, atol=ROUNDING)
