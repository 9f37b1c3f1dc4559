"""Settings of multi-object tracking; the defaults are rules of thumb."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class ObjectSettings:
  """Settings of detection, sampling and the lifecycle of objects.

  Values in parentheses are those of LocoTrack-EfficientNet's pipeline, which
  fills holes between detections of one object.

  Attributes:
    detect_every: number of frames between calls of the detector.
    grid_size: rows and columns of the grid of query points over the box (8).
    max_points: maximum number of points per object.
    erosion: radius in pixels by which masks are eroded before sampling (2, once
      with a 5x5 ellipse).
    min_visible_share: least fraction of visible points of a visible object
      (0.4).
    min_points: least number of visible points of a visible object.
    outlier_deviations: a point is hidden after a step whose length differs from
      the median by more than the mean difference plus this many standard
      deviations; windows only; None for no outliers (1).
    tolerance: largest residual of inlier points, as a fraction of the object's
      size.
    padding: margin added on each side of a box, as a fraction of it (0).
    match: least affinity, 0 to 1, of a matched detection: the mean of IoU and
      the fraction of points inside.
    part_share: a detection with at least this fraction of its area inside of a
      larger object is a part or an occluder of it, not an object.
    revive_share: least fraction of a hidden object's points that are visible
      inside of a detection that revives it.
    reinitialize_share: points are resampled at a detection with a smaller
      fraction of visible points inside.
    reinitialize_growth: points are resampled at a detection larger by this
      factor than the box at the last sampling.
    correction: fraction of the way that a matched detection moves the sides of
      a box.
    shrinking: factor of `correction` for sides that move inward; below 1 for
      detectors that often find parts.
    joins_parts: whether the box of an object grows to hold its detected parts.
    min_detections: least number of detections of a reported object.
    patience: a not yet reported object is removed after more than this many
      calls of the detector without a match.
    max_hidden: number of frames after which a hidden object is removed, and
      maximum number of frames of backward tracking when it is found.
    fill: longest hole, in frames, that is filled by interpolated boxes; windows
      only.
    smoothing: standard deviation, in frames, of the smoothing of boxes; in
      streams, of their sides.
    window: number of frames that are tracked at once.
    overlap: number of frames shared with the previous window.
  """

  detect_every: int = 5
  grid_size: int = 8
  max_points: int = 64
  erosion: int = 2
  min_visible_share: float = 0.4
  min_points: int = 4
  outlier_deviations: float | None = 2.0
  tolerance: float = 0.25
  padding: float = 0.0
  match: float = 0.3
  part_share: float = 0.7
  revive_share: float = 0.25
  reinitialize_share: float = 0.5
  reinitialize_growth: float = 1.5
  correction: float = 1.0
  shrinking: float = 1.0
  joins_parts: bool = False
  min_detections: int = 1
  patience: int = 2
  max_hidden: int = 100
  fill: int = 0
  smoothing: float = 1.5
  window: int = 32
  overlap: int = 8

  def __post_init__(self):
    least = {
        'detect_every': 1,
        'grid_size': 1,
        'max_points': 1,
        'erosion': 0,
        'min_points': 1,
        'min_detections': 1,
        'patience': 0,
        'max_hidden': 0,
        'fill': 0,
        'window': 2,
        'overlap': 0,
        'padding': 0,
        'smoothing': 0,
        'tolerance': 0,
    }
    for name, bound in least.items():
      value = getattr(self, name)
      if not (value >= bound and math.isfinite(value)):
        raise ValueError(f'{name} must be at least {bound}; got {value}')
    for name in (
        'min_visible_share',
        'match',
        'part_share',
        'revive_share',
        'reinitialize_share',
        'correction',
        'shrinking',
    ):
      if not 0 <= getattr(self, name) <= 1:
        raise ValueError(
            f'{name} must be between 0 and 1; got {getattr(self, name)}'
        )
    if not self.reinitialize_growth > 1:
      raise ValueError(
          'reinitialize_growth must be more than 1; got '
          f'{self.reinitialize_growth}'
      )
