"""Settings of multi-object tracking; the defaults are rules of thumb."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class ObjectSettings:
  """How objects are detected, sampled, kept, lost and found again.

  Where it says so, a default is that of LocoTrack-EfficientNet's pipeline,
  which fills holes between detections of one object.

  Attributes:
    detect_every: frames from one call of the detector to the next.
    grid_size: query points are those of a grid of this many rows and columns
      over the box that lie on the object (its pipeline: 8).
    max_points: at most this many points per object.
    erosion: pixels by which a mask is eroded before points are taken from it
      (its pipeline: 2, once with a 5x5 ellipse).
    min_visible_share: with a smaller share of an object's points visible, the
      object is hidden (its pipeline: 0.4).
    min_points: with fewer visible points, it is hidden as well.
    outlier_deviations: a point is taken for hidden after a step that differs
      from its usual one by the mean difference and this many standard
      deviations; needs windows; None leaves it out (its pipeline: 1).
    tolerance: points that miss the common motion of an object by more than this
      share of its size are left out.
    padding: share of the box that is added on each side of it (its pipeline:
      0).
    match: affinity, 0 to 1, from which on a detection and an object are taken
      for the same: half overlap of boxes, half share of points inside.
    part_share: a detection that lies this much inside of a larger object is a
      part of it, or what hides it, and no object of its own.
    revive_share: share of a hidden object's points that must be visible inside
      of a detection to find it again there.
    reinitialize_share: at a detection with a smaller share of points visible
      inside of it, the points are sampled anew.
    reinitialize_growth: so they are if a detection is larger than the box of
      the last samples by this factor.
    correction: how far a detection moves the box of the object that it matches:
      1 is all the way.
    shrinking: share of that for sides that move inward; below 1 for detectors
      that often see parts.
    joins_parts: whether objects grow to hold what is detected as a part of
      them.
    min_detections: objects with fewer detections are not reported.
    patience: an object that has not yet been reported is dropped after this
      many calls of the detector that did not see it.
    max_hidden: frames after which a hidden object is forgotten, and the most
      that are looked back when it is found.
    fill: boxes are interpolated through holes of up to this many frames, as if
      the object were seen; needs windows.
    smoothing: standard deviation, in frames, over which boxes are averaged;
      frame by frame, over which sides are.
    window: frames that are tracked at once.
    overlap: frames before them that are seen as well.
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
