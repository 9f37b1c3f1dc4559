"""Lazy videos: frames are read or rendered on access.

Trackers that process a video in segments accept them instead of arrays, so that
memory does not grow with the video.
"""

from collections.abc import Callable
from concurrent import futures

from jaxtyping import Int
from jaxtyping import Shaped
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import Resolution

_NUM_THREADS = 4


class LazyFrames:
  """Frames of one size; `frames[rows]` reads an array of indices, or a slice.

  `numpy.asarray` reads all frames. Reading raises ValueError for a frame of
  another size or type.
  """

  def __init__(
      self,
      num_frames: int,
      resolution: Resolution,
      read: Callable[[int], UInt8[np.ndarray, 'h w 3']],
  ):
    self.shape = (num_frames, *resolution, 3)
    self.dtype = np.dtype(np.uint8)
    self._read = read

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(
      self, rows: Int[np.ndarray, 'k'] | slice
  ) -> UInt8[np.ndarray, 'k h w 3']:
    if isinstance(rows, slice):
      rows = np.arange(len(self))[rows]
    # Repeated rows are read once.
    wanted, places = np.unique(rows, return_inverse=True)
    with futures.ThreadPoolExecutor(_NUM_THREADS) as executor:
      frames = np.stack(list(executor.map(self._read, wanted.tolist())))
    if frames.shape[1:] != self.shape[1:] or frames.dtype != self.dtype:
      raise ValueError(
          f'frames must be {self.dtype} {self.shape[1:]}; got {frames.dtype} '
          f'{frames.shape[1:]}'
      )
    return frames if np.array_equal(wanted, rows) else frames[places]

  def __array__(
      self,
      dtype: np.dtype | None = None,
      copy: bool | None = None,  # noqa: FBT001 - NumPy's protocol.
  ) -> Shaped[np.ndarray, 't h w 3']:
    del copy  # The array is always new.
    frames = self[np.arange(len(self))]
    return frames if dtype is None else frames.astype(dtype, copy=False)
