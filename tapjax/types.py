"""Values shared by all trackers: track states, tracks and examples.

Axis letters are the same everywhere: `b` batch, `t` frames, `n` queries, `h w`
pixels or cells, `c` channels, `i` refinement iteration.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
import numpy as np

# A tree of arrays that belongs to one tracker, such as its features.
PyTree = Any


class TrackState(NamedTuple):
  """Estimates of all queries on all frames, at one stage of refinement.

  Positions are (x, y) pixels of the *model* resolution, not the caller's video;
  `track` rescales. Logits are unbounded: positive occlusion means hidden,
  positive uncertainty means "probably more than 6 px wrong". Logits of a head
  that a tracker lacks are None.

  `target_log_probs` are log-probabilities of target positions under the heatmap
  of the first guess; None without targets. Among the states of all iterations
  they have a first axis of one.
  """

  positions: Float[Array, '*i b n t 2']
  occlusion_logits: Float[Array, '*i b n t'] | None
  uncertainty_logits: Float[Array, '*i b n t'] | None
  target_log_probs: Float[Array, '*g b n t'] | None = None


class Tracks(NamedTuple):
  """Positions and visibility of all queries on all frames of a video.

  Positions are (x, y) pixels of the caller's frames in raster coordinates:
  (0, 0) is the outer corner of the upper-left pixel and (w, h) the outer corner
  of the lower-right one. Rows are in the order of the queries. `track`
  returns NumPy arrays without a batch axis; a tracker's `finalize_tracks`
  returns JAX arrays with one, at the model resolution.
  """

  positions: Float[Array | np.ndarray, '*b n t 2']
  visible: Bool[Array | np.ndarray, '*b n t']
  occlusion_logits: Float[Array | np.ndarray, '*b n t'] | None
  uncertainty_logits: Float[Array | np.ndarray, '*b n t'] | None

  @property
  def confidence(self) -> Float[Array | np.ndarray, '*b n t']:
    """Probability, in [0, 1], of a visible point with a correct position.

    The probability that the point is not occluded times the probability that
    the position is right. A factor without a head of the tracker is left out;
    without any head the confidence is 1 where `visible` and 0 elsewhere.
    """
    logits = [self.occlusion_logits, self.uncertainty_logits]
    known = [array for array in logits if array is not None]
    if not known:
      return self.visible.astype(np.float32)
    numbers = jnp if isinstance(known[0], jax.Array) else np
    # The logarithm of a sigmoid, computed without overflow.
    return numbers.exp(-sum(numbers.logaddexp(0, array) for array in known))

  def apply_threshold(self, threshold: float) -> 'Tracks':
    """Returns the tracks, visible where `confidence` exceeds a threshold.

    Raises ValueError for a threshold outside of [0, 1).
    """
    if not 0 <= threshold < 1:
      raise ValueError(
          f'threshold must be at least 0 and less than 1; got {threshold}'
      )
    return self._replace(visible=self.confidence > threshold)


class Example(NamedTuple):
  """A video with ground-truth tracks, for training or evaluation.

  The video is in [-1, 1]. Query points are (t, y, x), targets (x, y), both in
  raster pixels of the video. Every query is visible on its own frame. Targets
  of occluded points, including points outside of the frame, must not be used.
  """

  video: Float[Array, '*b t h w 3']
  query_points: Float[Array, '*b n 3']
  target_points: Float[Array, '*b n t 2']
  occluded: Bool[Array, '*b n t']
