"""TAP-Vid, re-detection and PCK metrics, in NumPy.

Undefined scores are NaN, never zero. Means over videos leave NaN out and report
the number of values.

Doersch et al., TAP-Vid (2022), define the scores of `compute_tapvid_metrics`:
the position accuracy of visible points, the occlusion accuracy, and the
Average Jaccard of both. Frames count after the query (`first`), or all but the
query's (`strided`); the query's own frame never does.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import Shaped
import numpy as np
from numpy.typing import ArrayLike

THRESHOLDS = (1, 2, 4, 8, 16)
QUERY_MODES = ('first', 'strided')
REDETECTION_DURATIONS = (1, 4, 16, 64, 256)
PCK_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)

# Size of a person in JHMDB, relative to the bounding box of the joints.
_BOX_SHARE = 0.6


class Redetections(NamedTuple):
  """Re-detection events: reappearances after the longest occlusion so far.

  Attributes:
    durations: number of occluded frames before each event.
    scores: Jaccard from the event to the end of the track, for each of
      `THRESHOLDS`.
  """

  durations: Int[np.ndarray, 'e']
  scores: Float[np.ndarray, 'e d']


class Mean(NamedTuple):
  """Mean with the numbers of its values and of missing values.

  Without any value, the mean is NaN.
  """

  value: float
  num_values: int
  num_missing: int


def compute_tapvid_metrics(
    query_points: ArrayLike,
    gt_occluded: ArrayLike,
    gt_tracks: ArrayLike,
    pred_occluded: ArrayLike,
    pred_tracks: ArrayLike,
    query_mode: str,
    get_trackwise_metrics: bool = False,  # noqa: FBT001, FBT002
) -> dict[str, Float[np.ndarray, 'b *n']]:
  """Returns the TAP-Vid metrics of each video, between 0 and 1.

  Args:
    query_points: `[b n 3]`, (t, y, x); only the frame index is used, rounded to
      the nearest integer, halves to even.
    gt_occluded: `[b n t]`, whether the true point is occluded.
    gt_tracks: `[b n t 2]`, true (x, y) in raster pixels of a 256x256 image; not
      used where occluded.
    pred_occluded: `[b n t]`, whether the predicted point is occluded.
    pred_tracks: `[b n t 2]`, predicted (x, y) in the same pixels.
    query_mode: 'first' counts the frames after the query, 'strided' all others.
    get_trackwise_metrics: whether to return `[b n]`, one value per track,
      instead of `[b]`.

  Returns:
    `occlusion_accuracy`; `pts_within_d` and `jaccard_d` for d of 1, 2, 4, 8 and
    16 pixels; their means `average_pts_within_thresh` and `average_jaccard`.
    Scores without any counted entry are NaN.

  Raises:
    ValueError: the query mode is unknown, shapes are inconsistent, or a query
      is outside of the video.
  """
  gt_hidden = _check_flags('gt_occluded', gt_occluded)
  pred_hidden = _check_flags('pred_occluded', pred_occluded)
  _check_shapes(query_points, gt_hidden, gt_tracks, pred_hidden, pred_tracks)
  counted = _list_counted_frames(query_points, gt_hidden.shape[-1], query_mode)
  axes = (2,) if get_trackwise_metrics else (1, 2)

  def count(mask: Bool[np.ndarray, 'b n t']) -> np.ndarray:
    return np.sum(mask & counted, axis=axes)

  gt_shown, pred_shown = ~gt_hidden, ~pred_hidden
  squared = _compute_squared_distances(gt_tracks, pred_tracks)
  metrics = {
      'occlusion_accuracy': _divide(
          count(gt_hidden == pred_hidden), count(np.ones_like(counted))
      )
  }
  num_shown = count(gt_shown)
  for threshold in THRESHOLDS:
    within = squared < threshold**2
    metrics[f'pts_within_{threshold}'] = _divide(
        count(within & gt_shown), num_shown
    )
    metrics[f'jaccard_{threshold}'] = _divide(
        count(within & gt_shown & pred_shown),
        num_shown + count(pred_shown & ~(within & gt_shown)),
    )
  for name, average in (
      ('jaccard', 'average_jaccard'),
      ('pts_within', 'average_pts_within_thresh'),
  ):
    values = [metrics[f'{name}_{threshold}'] for threshold in THRESHOLDS]
    metrics[average] = np.mean(np.stack(values), axis=0)
  return metrics


def compute_redetection_metrics(
    gt_occluded: Shaped[np.ndarray, 'b n t'],
    gt_tracks: Shaped[np.ndarray, 'b n t 2'],
    pred_occluded: Shaped[np.ndarray, 'b n t'],
    pred_tracks: Shaped[np.ndarray, 'b n t 2'],
) -> dict[str, float]:
  """Returns the re-detection Average Jaccard of TAPNext++ over a data set.

  The same as `average_redetections` of `find_redetections`.
  """
  return average_redetections(
      [find_redetections(gt_occluded, gt_tracks, pred_occluded, pred_tracks)]
  )


def find_redetections(
    gt_occluded: Shaped[np.ndarray, 'b n t'],
    gt_tracks: Shaped[np.ndarray, 'b n t 2'],
    pred_occluded: Shaped[np.ndarray, 'b n t'],
    pred_tracks: Shaped[np.ndarray, 'b n t 2'],
) -> Redetections:
  """Scores all re-detection events.

  A distance equal to the threshold counts as within, unlike in the Jaccard.
  """
  gt_hidden = _check_flags('gt_occluded', gt_occluded)
  return _score_redetections(
      gt_hidden,
      _check_flags('pred_occluded', pred_occluded),
      _compute_squared_distances(gt_tracks, pred_tracks),
  )


def average_redetections(parts: Iterable[Redetections]) -> dict[str, float]:
  """Returns the re-detection Average Jaccard of all events of a set.

  Returns:
    `AJ_RD_D<d>_dmin<k>`: the mean over events after at least k hidden frames,
    at d pixels; `AJ_RD_dmin<k>`, the mean of these over d, and `AJ_RD`, the
    mean over k. All are NaN without events.
  """
  events = list(parts)
  durations = np.concatenate([event.durations for event in events])
  scores = np.concatenate([event.scores for event in events])
  metrics = {}
  for least in REDETECTION_DURATIONS:
    chosen = scores[durations >= least]
    means = [average(column).value for column in chosen.T]
    for threshold, mean in zip(THRESHOLDS, means, strict=True):
      metrics[f'AJ_RD_D{threshold}_dmin{least}'] = mean
    metrics[f'AJ_RD_dmin{least}'] = average(means).value
  metrics['AJ_RD'] = average(
      metrics[f'AJ_RD_dmin{least}'] for least in REDETECTION_DURATIONS
  ).value
  return metrics


def compute_joint_errors(
    gt_joints: Float[np.ndarray, 'j t 2'],
    pred_joints: Float[np.ndarray, 'j t 2'],
    resolution: tuple[int, int],
) -> Float[np.ndarray, 'j t']:
  """Returns joint errors relative to the size of the person, for PCK.

  Positions are pixels of the original video, of `resolution` (height, width).
  A joint outside of the first frame is NaN on all frames. The size is
  0.6 times the diagonal of the box around the true joints, on every frame.
  """
  height, width = resolution
  first = gt_joints[:, 0]
  inside = (first >= 0) & (first < np.asarray([[width, height]]))
  valid = inside.all(axis=-1)
  errors = np.full(gt_joints.shape[:2], np.nan)
  if valid.any():
    extent = np.ptp(gt_joints[valid], axis=0)
    size = _BOX_SHARE * np.linalg.norm(extent, axis=-1)
    distance = np.linalg.norm(pred_joints[valid] - gt_joints[valid], axis=-1)
    with np.errstate(divide='ignore', invalid='ignore'):
      errors[valid] = distance / size[None]
  return errors


def compute_pck(
    errors: Iterable[Float[np.ndarray, 'j _']],
    *,
    published: bool = False,
) -> dict[str, float]:
  """Returns the percentage of correct keypoints of a set of videos.

  Args:
    errors: errors of each video, from `compute_joint_errors`.
    published: whether joints without any value count as 0, as in TAPIR's
      program; otherwise they are left out.

  Returns:
    `PCK@a` for a of 0.1 to 0.5: the percentage of errors up to a, for each
    joint over all videos, then the mean over joints.
  """
  joined = np.concatenate(list(errors), axis=1)
  present = ~np.isnan(joined)
  metrics = {}
  for threshold in PCK_THRESHOLDS:
    correct = np.sum((joined <= threshold) & present, axis=1)
    shares = 100 * _divide(correct, np.sum(present, axis=1))
    if published:
      shares = np.nan_to_num(shares, nan=0.0)
    metrics[f'PCK@{threshold}'] = average(shares).value
  return metrics


def average(values: Iterable[float]) -> Mean:
  """Returns the mean of the values that are not NaN, with their number."""
  array = np.asarray(list(values), np.float64)
  known = array[~np.isnan(array)]
  value = float(np.mean(known)) if known.size else float('nan')
  return Mean(value, known.size, array.size - known.size)


def average_videos(
    videos: Iterable[Mapping[str, float]],
) -> dict[str, Mean]:
  """Returns the mean of every metric over videos, with equal weights.

  A metric that a video lacks counts as missing.
  """
  rows = list(videos)
  names = dict.fromkeys(name for row in rows for name in row)
  return {
      name: average(row.get(name, float('nan')) for row in rows)
      for name in names
  }


def _list_counted_frames(
    query_points: ArrayLike, num_frames: int, query_mode: str
) -> Bool[np.ndarray, 'b n t']:
  """Returns the mask of counted frames of each track."""
  if query_mode not in QUERY_MODES:
    raise ValueError(
        f"query_mode must be 'first' or 'strided'; got {query_mode!r}"
    )
  query_frames = np.round(np.asarray(query_points)[..., :1])
  outside = ~((query_frames >= 0) & (query_frames < num_frames))
  if outside.any():
    worst = query_frames[outside][0]
    raise ValueError(
        'query_points must be (t, y, x) with t on one of the '
        f'{num_frames} frames; got a query at frame {worst:g}'
    )
  frames = np.arange(num_frames)[None, None]
  if query_mode == 'first':
    return frames > query_frames
  return frames != query_frames


def _score_redetections(
    gt_hidden: Bool[np.ndarray, 'b n t'],
    pred_hidden: Bool[np.ndarray, 'b n t'],
    squared: Float[np.ndarray, 'b n t'],
) -> Redetections:
  num_frames = gt_hidden.shape[-1]
  frames = np.arange(num_frames)[None, None]
  # Length of the occlusion that ends on each frame, zero where visible.
  last_shown = np.maximum.accumulate(np.where(gt_hidden, -1, frames), axis=-1)
  run = frames - last_shown
  before = np.concatenate([np.zeros_like(run[..., :1]), run[..., :-1]], axis=-1)
  duration = np.where(gt_hidden, 0, before)
  longest = np.maximum.accumulate(duration, axis=-1)
  longest = np.concatenate(
      [np.zeros_like(longest[..., :1]), longest[..., :-1]], axis=-1
  )
  eligible = duration > longest

  def sum_to_end(mask: np.ndarray) -> np.ndarray:
    return np.cumsum(mask[..., ::-1], axis=-1)[..., ::-1][eligible]

  shown, pred_shown = ~gt_hidden, ~pred_hidden
  scores = []
  for threshold in THRESHOLDS:
    within = (squared <= threshold**2) & shown
    scores.append(
        _divide(
            sum_to_end(within & pred_shown),
            sum_to_end(shown) + sum_to_end(pred_shown & ~within),
        )
    )
  return Redetections(duration[eligible], np.stack(scores, axis=-1))


def _compute_squared_distances(
    gt_tracks: ArrayLike, pred_tracks: ArrayLike
) -> Float[np.ndarray, '*n t']:
  # Positions of occluded points may be any value, infinities included.
  with np.errstate(invalid='ignore', over='ignore'):
    difference = np.asarray(pred_tracks) - np.asarray(gt_tracks)
    return np.sum(np.square(difference), axis=-1)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """Divides counts; 0 / 0 is NaN."""
  with np.errstate(divide='ignore', invalid='ignore'):
    return np.asarray(numerator, np.float64) / denominator


def _check_flags(name: str, flags: Any) -> Bool[np.ndarray, '...']:
  """Returns flags as booleans; numbers must be 0 or 1."""
  array = np.asarray(flags)
  if array.dtype != np.bool_ and not np.isin(array, (0, 1)).all():
    raise ValueError(
        f'{name} must be boolean; got {array.dtype} with other values than 0 '
        'and 1 - are these logits?'
    )
  return array.astype(bool)


def _check_shapes(
    query_points: ArrayLike,
    gt_occluded: np.ndarray,
    gt_tracks: ArrayLike,
    pred_occluded: np.ndarray,
    pred_tracks: ArrayLike,
) -> None:
  """Raises ValueError for inconsistent shapes."""
  shape = gt_occluded.shape
  if len(shape) != 3:
    raise ValueError(
        f'gt_occluded must be [b, n, t]; got {shape} - add a batch axis?'
    )
  expected = {
      'query_points': (query_points, (*shape[:2], 3)),
      'gt_tracks': (gt_tracks, (*shape, 2)),
      'pred_occluded': (pred_occluded, shape),
      'pred_tracks': (pred_tracks, (*shape, 2)),
  }
  for name, (array, wanted) in expected.items():
    if np.shape(array) != wanted:
      raise ValueError(
          f'{name} must be {wanted}, as gt_occluded is {shape}; got '
          f'{np.shape(array)}'
      )
