"""Choices of a call of `track`."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

import jax

# Called with a stage, the work done of it, and all of its work.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Options:
  """Choices that bound memory, share work or report progress.

  Attributes:
    query_chunk: queries to track at once; None fits it to the segments. Queries
      that depend on each other are one set, or sets of at most this size.
    frame_chunk: frames to encode at once.
    window: frames of a segment; None takes the whole video, or the windows of
      the tracker itself. The only choice that can change a result.
    padded_frames: length to pad a whole video to; None takes that of a program
      that exists already.
    devices: that share the work; None takes all local GPUs or TPU cores, or one
      CPU, since several would share its cores.
    progress: called after every part of the work.
  """

  query_chunk: int | None = None
  frame_chunk: int | None = None
  window: int | None = None
  padded_frames: int | None = None
  devices: Sequence[jax.Device] | None = None
  progress: Progress | None = None

  def __post_init__(self) -> None:
    devices = self.devices
    if devices is None:
      return
    if (
        not isinstance(devices, Sequence)
        or not devices
        or not all(isinstance(device, jax.Device) for device in devices)
    ):
      raise ValueError(
          'devices must be a list of devices, at least one; got '
          f'{devices!r} - pass devices of jax.devices(), as in '
          'jax.devices()[:1]'
      )
