"""Metrics of PIPs++ for tracks that begin on the first frame, in NumPy.

Zheng et al., "PointOdyssey", arXiv 2307.15055. Distances are in pixels of a
256x256 frame unless stated otherwise. Visibility is not used: an occluded point
with a known position counts as a visible one.

Means over a video divide by the number of points plus 1e-6, as published, so
that empty means are 0 rather than NaN, except for the median.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Shaped
import numpy as np

from tapjax.geometry import Resolution

THRESHOLDS = (1, 2, 4, 8, 16)
# Distance at which a track is lost, in pixels of a 256x256 frame.
SURVIVAL_THRESHOLD = 16.0
_SIDE = 256.0
_EPSILON = 1e-6


class PipsMetrics(NamedTuple):
  """Scores of the tracks of one video.

  Attributes:
    within_1: percentage of valid points after the first frame with an error
      below 1 pixel.
    within_2: the same for 2 pixels.
    within_4: the same for 4 pixels.
    within_8: the same for 8 pixels.
    within_16: the same for 16 pixels.
    d_avg: mean of these five.
    survival: percentage of all frames of all tracks, valid or not, before the
      first valid point with an error above 16 pixels.
    median_l2: mean over tracks of the median distance over valid frames; NaN if
      a track has no valid frame.
  """

  within_1: float
  within_2: float
  within_4: float
  within_8: float
  within_16: float
  d_avg: float
  survival: float
  median_l2: float


class PipsErrors(NamedTuple):
  """Errors reported during training, in pixels of the network.

  Attributes:
    l1: mean of |dx| + |dy| over valid points.
    l1_visible: the same over visible points.
    l2: mean over clips of the mean distance over valid points.
    l2_visible: mean distance over visible points of all clips.
    l2_hidden: mean distance over valid occluded points of all clips.
  """

  l1: float
  l1_visible: float
  l2: float
  l2_visible: float
  l2_hidden: float


def compute_pips_metrics(
    positions: Float[np.ndarray, '*b n t 2'],
    target_points: Float[np.ndarray, '*b n t 2'],
    valid: Shaped[np.ndarray, '*b n t'],
    resolution: Resolution,
    *,
    drop_unstarted: bool = False,
) -> PipsMetrics:
  """Returns the scores of tracks, pooled over all given clips.

  Args:
    positions: predicted (x, y) in pixels of `resolution`.
    target_points: true (x, y) in pixels of `resolution`.
    valid: whether the true position is known.
    resolution: (height, width) of the frames of the positions.
    drop_unstarted: whether to leave tracks that are not valid on the first
      frame out of the median, as in training.
  """
  valid = np.asarray(valid, bool)
  scale = np.asarray([_SIDE / resolution[1], _SIDE / resolution[0]])
  distances = _measure((positions - target_points) * scale)
  within = [
      100 * _average(distances[..., 1:] < threshold, valid[..., 1:])
      for threshold in THRESHOLDS
  ]
  alive = find_survivors(distances, valid)
  medians = compute_track_medians(distances, valid)
  if drop_unstarted:
    medians = medians[valid[..., 0]]
  median = float(np.mean(medians)) if medians.size else float('nan')
  return PipsMetrics._make(
      [*within, float(np.mean(within)), 100 * float(np.mean(alive)), median]
  )


def compute_pips_errors(
    positions: Float[np.ndarray, 'b n t 2'],
    target_points: Float[np.ndarray, 'b n t 2'],
    visible: Shaped[np.ndarray, 'b n t'],
    valid: Shaped[np.ndarray, 'b n t'],
) -> PipsErrors:
  """Returns mean errors in the pixels of the positions."""
  valid = np.asarray(valid, bool)
  shown = valid & np.asarray(visible, bool)
  steps = np.sum(np.abs(positions - target_points), axis=-1)
  distances = _measure(positions - target_points)
  return PipsErrors(
      l1=_average(steps, valid),
      l1_visible=_average(steps, shown),
      l2=float(
          np.mean(
              [_average(*clip) for clip in zip(distances, valid, strict=True)]
          )
      ),
      l2_visible=_average(distances, shown),
      l2_hidden=_average(distances, valid & ~shown),
  )


def find_survivors(
    distances: Float[np.ndarray, '*b n t'], valid: Bool[np.ndarray, '*b n t']
) -> Bool[np.ndarray, '*b n t']:
  """Returns whether a track has not been lost up to each frame."""
  lost = (distances > SURVIVAL_THRESHOLD) & valid
  return ~np.logical_or.accumulate(lost, axis=-1)


def compute_track_medians(
    distances: Float[np.ndarray, '*b n t'], valid: Bool[np.ndarray, '*b n t']
) -> Float[np.ndarray, '*b n']:
  """Returns median distances of tracks; NaN without valid frames."""
  rows = distances.reshape(-1, distances.shape[-1])
  medians = [
      np.median(row[mask]) if mask.any() else np.nan
      for row, mask in zip(rows, valid.reshape(rows.shape), strict=True)
  ]
  return np.asarray(medians, float).reshape(distances.shape[:-1])


def _measure(
    differences: Float[np.ndarray, '*b n t 2'],
) -> Float[np.ndarray, '*b n t']:
  return np.sqrt(np.sum(np.square(differences), axis=-1))


def _average(
    values: Shaped[np.ndarray, '*b t'], mask: Bool[np.ndarray, '*b t']
) -> float:
  """Returns the mean over the mask; NaN outside of the mask is ignored."""
  total = np.sum(np.where(mask, values, 0))
  return float(total / (_EPSILON + np.sum(mask)))
