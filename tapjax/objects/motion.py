"""Detector of independently moving objects, for static or moving cameras.

Camera motion is a homography fitted to the optical flow between successive
calls. Textured pixels that pass the forward-backward check of the flow and
whose motion differs from the homography are seeds of objects; GrabCut extends a
seed to pixels of similar color. Frames where no homography explains most of the
picture have no detections, and objects that touch the border are ignored.

OpenCV is required; there are no weights.
"""

from typing import Any

from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Num
from jaxtyping import UInt8
import numpy as np

from tapjax.objects.detections import Detections
from tapjax.objects.detections import Frame
from tapjax.objects.detections import make_no_detections

# Longer side in pixels at which motion is estimated; other lengths in this file
# are pixels at this size.
_SIDE = 320
# Largest forward-backward error of the flow, in pixels.
_MAX_FORWARD_BACKWARD = 1.5
# Least local contrast of pixels with reliable flow.
_TEXTURE = 3.0
# Least inlier fraction of the camera's homography; least residual of objects,
# in pixels and in median residuals of the homography.
_LEAST_SHARE = 0.5
_LEAST_MOTION = 1.0
_NOISE = 4.0
# Areas of objects, as fractions of the picture.
_SMALLEST = 0.01
_LARGEST = 0.5
_LEAST_FOLLOWED = 40
_ROUNDS = 3


class MotionDetector:
  """Detects moving objects in successive frames a short time apart."""

  def __init__(self):
    self._cv2 = _import_opencv()
    self._flow = self._cv2.DISOpticalFlow_create(
        self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
    )
    self._before: UInt8[np.ndarray, 'a b'] | None = None

  def __call__(self, frame: Frame) -> Detections:
    """Returns the moving objects with masks; none for the first frame."""
    cv2 = self._cv2
    height, width = frame.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    before, self._before = self._before, gray
    # Optical flow needs at least 32 pixels.
    if before is None or before.shape != gray.shape or min(size) < 32:
      return make_no_detections()
    moving = self._find_moving(gray, before)
    masks = [self._extend(small, seed) for seed in self._list_seeds(moving)]
    full = [
        cv2.resize(
            mask.astype(np.uint8),
            (width, height),
            interpolation=cv2.INTER_NEAREST,
        ).astype(bool)
        for mask in masks
        if mask.mean() >= _SMALLEST / 2
    ]
    if not full:
      return make_no_detections()
    return Detections(
        np.stack([_find_box(mask) for mask in full]), masks=np.stack(full)
    )

  def _find_moving(
      self, gray: UInt8[np.ndarray, 'a b'], before: UInt8[np.ndarray, 'a b']
  ) -> Bool[np.ndarray, 'a b']:
    """Returns the pixels whose motion differs from the camera's."""
    cv2 = self._cv2
    height, width = gray.shape
    flow = self._flow.calc(gray, before, None)
    backward = self._flow.calc(before, gray, None)
    x, y = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    pixels = np.stack([x, y], axis=-1)
    targets = pixels + flow
    far = (float(_SIDE), float(_SIDE))
    returned = cv2.remap(
        backward,
        targets[..., 0],
        targets[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=far,
    )
    followed = np.linalg.norm(flow + returned, axis=-1) < _MAX_FORWARD_BACKWARD
    edges = cv2.Laplacian(cv2.GaussianBlur(gray, (3, 3), 0), cv2.CV_32F)
    contrast = cv2.boxFilter(edges**2, -1, (9, 9)) ** 0.5
    followed &= contrast > _TEXTURE
    sampled = np.zeros_like(followed)
    sampled[2::4, 2::4] = True
    sampled &= followed
    nothing = np.zeros(gray.shape, bool)
    if sampled.sum() < _LEAST_FOLLOWED:
      return nothing
    camera, fits = cv2.findHomography(
        pixels[sampled], targets[sampled], cv2.RANSAC, 1.0
    )
    if camera is None or fits.mean() < _LEAST_SHARE:
      return nothing
    expected = cv2.perspectiveTransform(
        pixels.reshape(1, -1, 2), camera
    ).reshape(pixels.shape)
    miss = np.linalg.norm(targets - expected, axis=-1)
    noise = float(np.median(miss[sampled][fits[:, 0] > 0]))
    return followed & (miss > max(_LEAST_MOTION, _NOISE * noise))

  def _list_seeds(
      self, moving: Bool[np.ndarray, 'a b']
  ) -> list[Bool[np.ndarray, 'a b']]:
    """Returns masks of connected moving regions of plausible size."""
    cv2 = self._cv2

    def disc(size: int) -> Any:
      return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))

    patches = moving.astype(np.uint8)
    for operation, kernel in (
        (cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)),
        (cv2.MORPH_CLOSE, disc(21)),
        (cv2.MORPH_OPEN, disc(9)),
    ):
      patches = cv2.morphologyEx(patches, operation, kernel)
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(patches)
    height, width = moving.shape
    seeds = []
    for number in range(1, count):
      left, top, across, down, area = statistics[number]
      touches = (
          left <= 1
          or top <= 1
          or left + across >= width - 1
          or top + down >= height - 1
      )
      if not touches and _SMALLEST <= area / moving.size <= _LARGEST:
        seeds.append(numbers == number)
    return seeds

  def _extend(
      self, image: UInt8[np.ndarray, 'a b 3'], seed: Bool[np.ndarray, 'a b']
  ) -> Bool[np.ndarray, 'a b']:
    """Extends a seed by GrabCut to nearby pixels of its colors."""
    cv2 = self._cv2
    left, top, right, bottom = _find_box(seed)
    longer = max(right - left, bottom - top)
    shorter = min(right - left, bottom - top)
    kernel = np.ones((3, 3), np.uint8)
    patch = seed.astype(np.uint8)
    around = cv2.dilate(patch, kernel, iterations=max(4, int(0.12 * longer)))
    core = cv2.erode(patch, kernel, iterations=max(1, int(0.12 * shorter)))
    marks = np.full(seed.shape, cv2.GC_PR_BGD, np.uint8)
    marks[around == 0] = cv2.GC_BGD
    inner = cv2.erode(patch, kernel, iterations=max(1, int(0.03 * shorter)))
    marks[inner > 0] = cv2.GC_PR_FGD
    marks[core > 0] = cv2.GC_FGD
    if not (marks == cv2.GC_BGD).any() or not core.any():
      return seed
    cv2.setRNGSeed(0)
    background, foreground = np.zeros((2, 1, 65))
    cv2.grabCut(
        image,
        marks,
        None,
        background,
        foreground,
        _ROUNDS,
        cv2.GC_INIT_WITH_MASK,
    )
    mask = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    count, numbers, statistics, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
      return seed
    largest = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
    return numbers == largest


def _find_box(
    mask: Bool[np.ndarray, 'h w'],
) -> Float[np.ndarray, '4']:
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  corners: Num[np.ndarray, '4'] = np.asarray(
      [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
  )
  return corners.astype(np.float32)


def _import_opencv() -> Any:
  """Imports `cv2`.

  Raises:
    ValueError: OpenCV is not installed.
  """
  try:
    import cv2
  except ImportError:
    raise ValueError(
        'finding moving objects needs OpenCV - install it with '
        "pip install 'tapjax[objects]', or say where the objects are"
    ) from None
  return cv2
