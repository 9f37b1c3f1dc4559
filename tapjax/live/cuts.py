"""Scene cuts: where a video jumps from one picture to quite another.

Two frames are compared by how much of each color they show, in 8 x 8 x 8 bins:
the change is the share of pixels that would have to take on another color, from
0 to 1. It is no larger than the share of the picture that leaves or enters, so
that motion and moving cameras change little from one frame to the next. A cut
between scenes of much the same colors goes unnoticed, and a flash of light is
taken for one.
"""

from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

# Cuts mostly lie above 0.6, successive frames of one scene below 0.3.
THRESHOLD = 0.5
_BINS = 8
# About this many pixels of a frame are looked at.
_PIXELS = 1 << 16


class Colors(NamedTuple):
  """How large a share of a frame has each color."""

  shares: Float[np.ndarray, 'k']


def count_colors(frame: UInt8[np.ndarray, 'h w 3']) -> Colors:
  """Returns the colors of a frame, from evenly spaced pixels of it."""
  step = max(1, int(np.sqrt(frame.shape[0] * frame.shape[1] / _PIXELS)))
  bins = frame[::step, ::step].astype(np.int32) * _BINS // 256
  codes = (bins[..., 0] * _BINS + bins[..., 1]) * _BINS + bins[..., 2]
  counts = np.bincount(codes.ravel(), minlength=_BINS**3)
  return Colors(counts / codes.size)


def measure_change(before: Colors, after: Colors) -> float:
  """Returns the share of pixels, 0 to 1, that change their color."""
  return float(np.abs(before.shares - after.shares).sum() / 2)


def is_cut(before: Colors, after: Colors, threshold: float = THRESHOLD) -> bool:
  """Whether a new scene begins between two frames."""
  return measure_change(before, after) > threshold
