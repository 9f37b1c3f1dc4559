"""What PIPs++ measures of tracks that begin on the first frame, in NumPy.

Zheng et al., "PointOdyssey", arXiv 2307.15055. Distances are those in a frame
of 256x256 unless a score says otherwise. Visibility does not count: a hidden
point whose position is known is as good as a visible one.

Means over a video divide by the number of points plus 1e-6, as published, so
that nothing to measure is 0 rather than NaN, but for the median.
"""

from typing import NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Shaped
import numpy as np

from tapjax.geometry import Resolution

THRESHOLDS = (1, 2, 4, 8, 16)
# Where a track is lost, in pixels of a 256x256 frame.
SURVIVAL_THRESHOLD = 16.0
_SIDE = 256.0
_EPSILON = 1e-6


class PipsMetrics(NamedTuple):
  """Scores of the tracks of one video.

  Attributes:
    within_1: percent of valid points behind the first frame that are closer to
      the truth than 1 pixel; the others likewise.
    within_2: the same for 2 pixels.
    within_4: the same for 4 pixels.
    within_8: the same for 8 pixels.
    within_16: the same for 16 pixels.
    d_avg: the mean of these five.
    survival: percent of all frames of all tracks, valid or not, before a valid
      point is farther than 16 pixels from the truth.
    median_l2: of each track the median distance over valid frames, and the mean
      of these; NaN if a track has none.
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
  """Distances that training reports, in pixels of the network.

  Attributes:
    l1: mean of |dx| + |dy| over valid points.
    l1_visible: the same over visible ones.
    l2: mean distance over the valid points of each clip, and the mean of these.
    l2_visible: mean distance over visible points of all clips.
    l2_hidden: the same over valid ones that are hidden.
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
  """Returns the scores of tracks, pooled over all clips that are given.

  Args:
    positions: predicted (x, y) in pixels of `resolution`.
    target_points: true ones.
    valid: where the truth is known.
    resolution: (height, width) of the frames in which positions are.
    drop_unstarted: leaves tracks that are not valid on the first frame out of
      the median, as training does.
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
  """Returns mean distances in the pixels in which positions are."""
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
  """Returns where no point so far was lost."""
  lost = (distances > SURVIVAL_THRESHOLD) & valid
  return ~np.logical_or.accumulate(lost, axis=-1)


def compute_track_medians(
    distances: Float[np.ndarray, '*b n t'], valid: Bool[np.ndarray, '*b n t']
) -> Float[np.ndarray, '*b n']:
  """Returns each track's median distance; NaN where nothing is valid."""
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
  """Returns the mean where the mask is set; NaN elsewhere does not matter."""
  total = np.sum(np.where(mask, values, 0))
  return float(total / (_EPSILON + np.sum(mask)))
