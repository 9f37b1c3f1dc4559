"""Scene cuts, detected by a change of the color histogram.

Colors are counted in 8 x 8 x 8 bins. The change between two frames is the total
variation distance of their histograms, 0 to 1: the share of pixels that would
have to take on another color. It is at most the share of the picture that
leaves or enters, so motion and moving cameras change little from one frame to
the next. A cut between scenes of similar colors is missed, and a flash of light
is a false alarm.
"""

from typing import NamedTuple

from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

# Most cuts lie above 0.6, successive frames of one scene below 0.3.
THRESHOLD = 0.5
_BINS = 8
# Approximate number of pixels that are counted per frame.
_PIXELS = 1 << 16


class Colors(NamedTuple):
  """Color histogram of a frame; entries sum to 1."""

  shares: Float[np.ndarray, 'k']


def count_colors(frame: UInt8[np.ndarray, 'h w 3']) -> Colors:
  """Returns the color histogram of evenly spaced pixels of a frame."""
  step = max(1, int(np.sqrt(frame.shape[0] * frame.shape[1] / _PIXELS)))
  bins = frame[::step, ::step].astype(np.int32) * _BINS // 256
  codes = (bins[..., 0] * _BINS + bins[..., 1]) * _BINS + bins[..., 2]
  counts = np.bincount(codes.ravel(), minlength=_BINS**3)
  return Colors(counts / codes.size)


def measure_change(before: Colors, after: Colors) -> float:
  """Returns the total variation distance of two histograms, 0 to 1."""
  return float(np.abs(before.shares - after.shares).sum() / 2)


def is_cut(before: Colors, after: Colors, threshold: float = THRESHOLD) -> bool:
  """Returns whether the change between two frames exceeds the threshold."""
  return measure_change(before, after) > threshold
