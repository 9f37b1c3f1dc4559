"""Inputs of LocoTrack's refinement network."""

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
import numpy as np

from tapjax.geometry import rescale_positions
from tapjax.geometry import Resolution
from tapjax.models.contract import NumFrames
from tapjax.models.locotrack.config import LocoTrackConfig
from tapjax.models.locotrack.correlations import FeatureGrids
from tapjax.models.locotrack.correlations import get_centers
from tapjax.models.locotrack.correlations import QueryPatches
from tapjax.models.multires import Refinement

# Position, occlusion and uncertainty, as the refinement network changes them.
STATE_CHANNELS = 4

_FREQUENCIES = 10
# Of steps forward and back in x and y: themselves, their sines and cosines.
_MOTION_INPUTS = 4 * (1 + 2 * _FREQUENCIES)


def stop_gradients(now: Refinement) -> Refinement:
  """Returns a state through which iterations do not learn from later ones."""
  return now._replace(
      positions=jax.lax.stop_gradient(now.positions),
      occlusion_logits=jax.lax.stop_gradient(now.occlusion_logits),
      uncertainty_logits=jax.lax.stop_gradient(now.uncertainty_logits),
  )


def change_features(
    now: Refinement, changes: Float[Array, 'n t o']
) -> Float[Array, 'n t c'] | None:
  """Adds the output of the network to features; None without features."""
  features = now.features
  if features is not None:
    features += changes[..., STATE_CHANNELS:]
  return features


def repeat_over_time(
    patches: QueryPatches, config: LocoTrackConfig, num_frames: int
) -> Float[Array, 'n t c'] | None:
  """Returns the features of a track before the refinement, on every frame.

  They are those of the query; None for a network that does not read them.
  """
  if not config.reads_features:
    return None
  fine, middle, coarse = get_centers(patches)
  features = jnp.concatenate([middle, coarse, fine], axis=-1)
  return jnp.repeat(features[:, None], num_frames, axis=1)


def join_inputs(
    now: Refinement,
    embedded: Float[Array, 'n t e'],
    config: LocoTrackConfig,
    resolution: Resolution,
    num_frames: NumFrames | None = None,
) -> Float[Array, 'n t c']:
  """Joins the inputs of the network: logits, correlations, motion, features.

  Args:
    now: state before the iteration.
    embedded: encoded correlations.
    config: settings, among them the order of the inputs.
    resolution: of the level.
    num_frames: number of frames that are not padding.
  """
  initial = config.initial_resolution
  logits = jnp.stack([now.occlusion_logits, now.uncertainty_logits], axis=-1)
  motion = encode_motion(
      rescale_positions(now.positions, initial, resolution),
      initial,
      num_frames,
  )
  if config.inputs == 'motion_last':
    inputs = [logits, embedded, motion]
  elif config.inputs == 'motion_first':
    inputs = [motion, logits, embedded]
  else:
    assert now.features is not None, 'the network reads features'
    inputs = [motion, logits, embedded, now.features]
  return jnp.concatenate(inputs, axis=-1)


def encode_motion(
    positions: Float[Array, 'n t 2'],
    initial: Resolution,
    num_frames: NumFrames | None = None,
) -> Float[Array, 'n t m']:
  """Returns waves of each step to the next frame and from the last one.

  Positions are pixels of the level; steps count in sides of the initial
  resolution. Frames from `num_frames` on are padding; no step leads there.
  """
  # PARITY: not in sides of the level, and without pi (test_locotrack_parity).
  sides = np.asarray([initial[1], initial[0]], np.float32)
  steps = (positions[:, :-1] - positions[:, 1:]) / sides[None, None]
  if num_frames is not None:
    is_step = jnp.arange(1, positions.shape[1]) < num_frames
    steps = jnp.where(is_step[None, :, None], steps, 0)
  forward = jnp.pad(steps, ((0, 0), (0, 1), (0, 0)))
  backward = jnp.pad(-steps, ((0, 0), (1, 0), (0, 0)))
  motion = jnp.concatenate([forward, backward], axis=-1)
  scales = 2.0 ** np.arange(_FREQUENCIES, dtype=np.float32)
  phases = motion[..., None, :] * scales[None, None, :, None]
  phases = phases.reshape(*motion.shape[:2], -1)
  waves = jnp.sin(jnp.concatenate([phases, phases + np.pi / 2], axis=-1))
  return jnp.concatenate([motion, waves], axis=-1)


def count_inputs(config: LocoTrackConfig) -> int:
  """Returns the number of inputs of the network, for a point on a frame."""
  embedded = 2 * len(FeatureGrids._fields) * config.encoder_layers[-1][-1]
  features = config.track_channels if config.reads_features else 0
  return _MOTION_INPUTS + 2 + embedded + features
