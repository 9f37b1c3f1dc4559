"""What can be evaluated: trackers with weights, and the classical one.

A subject tracks clips: videos at its resolution with their query points. Those
of a neural tracker are padded, so that few programs serve all, and go to all
local devices at once.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.evaluation import classical
from tapjax.geometry import Resolution
from tapjax.media.lazy import LazyFrames
from tapjax.models.contract import flatten_params
from tapjax.pretrained import Tracker
from tapjax.tracking import padding
from tapjax.tracking import whole_video
from tapjax.types import Tracks


class Clip(NamedTuple):
  """A video at the resolution of a subject, and where to begin, (t, y, x).

  Frames are levels, also lazy ones, or floats in [-1, 1].
  """

  frames: (
      UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'] | LazyFrames
  )
  query_points: Float[np.ndarray, 'n 3']

  def reverse(self) -> 'Clip':
    """Returns the clip played backwards."""
    points = self.query_points.copy()
    points[:, 0] = len(self.frames) - 1 - points[:, 0]
    return Clip(np.asarray(self.frames)[::-1], points)

  def read_levels(self) -> UInt8[np.ndarray, 't h w 3']:
    """Returns all frames as levels."""
    frames = np.asarray(self.frames)
    if frames.dtype == np.uint8:
      return frames
    return np.rint((frames + 1) * 127.5).astype(np.uint8)


class Subject(NamedTuple):
  """A way to track clips, and what it takes to do it again.

  Attributes:
    name: of the preset or method.
    resolution: (height, width) of the clips; None takes any.
    sees_only_past: whether frames before a query need a pass backwards.
    batch: clips to pass at once, of one padded length.
    description: settings and weights, for the record.
    track: clips of lengths up to the second argument, to tracks at the
      resolution of the clips.
  """

  name: str
  resolution: Resolution | None
  sees_only_past: bool
  batch: int
  description: dict[str, Any]
  track: Callable[[Sequence[Clip], int], list[Tracks]]


def make_subject(
    tracker: Tracker, devices: Sequence[jax.Device] | None = None
) -> Subject:
  """Returns a tracker as a subject, on all local devices by default."""
  functions = tracker.functions
  mesh = parallel.make_mesh(devices or jax.local_devices())
  params = parallel.replicate(mesh, tracker.params)
  chain = functions.chain

  def track(clips: Sequence[Clip], num_frames: int) -> list[Tracks]:
    shortest = min(len(clip.frames) for clip in clips)
    if shortest < functions.shortest_padded or (
        chain is not None and num_frames > 2 * chain.window
    ):
      return [track_alone(clip) for clip in clips]
    num_queries = padding.round_capacity(
        functions, max(len(clip.query_points) for clip in clips)
    )
    sizes = padding.choose_sizes(
        functions, num_frames, num_queries, query_chunk=_choose_chunk()
    )
    videos = [
        padding.pad_video(np.asarray(clip.frames), clip.query_points, sizes)
        for clip in clips
    ]
    return padding.track_padded(functions, params, videos, sizes, mesh)

  def track_alone(clip: Clip) -> Tracks:
    return whole_video.track_video(
        functions,
        tracker.params,
        whole_video.PreparedVideo(clip.frames, functions.resolution),
        clip.query_points.astype(np.float32),
        devices=mesh.devices.tolist(),
    )

  return Subject(
      name=tracker.name,
      resolution=functions.resolution,
      sees_only_past=functions.make_memory is not None,
      batch=mesh.size,
      description={
          'config': dataclasses.asdict(tracker.config),
          'weights_sha256': hash_params(tracker),
          'visibility': 'as the tracker says (finalize_tracks)',
      },
      track=track,
  )


def _choose_chunk() -> int:
  """Returns a number of queries that fits videos with any number of them.

  More at once are faster on an accelerator; fewer leave less of the last chunk
  empty.
  """
  return 8 if jax.default_backend() == 'cpu' else 32


def make_classical_subject(resolution: Resolution | None = None) -> Subject:
  """Returns Lucas-Kanade as a subject; raises ImportError without OpenCV."""
  classical.import_opencv()
  return Subject(
      name=classical.NAME,
      resolution=resolution,
      sees_only_past=False,
      batch=1,
      description={
          'visibility': f'forward-backward error up to {classical.MAX_ERROR} px'
      },
      track=lambda clips, _: [
          classical.track_lucas_kanade(
              clip.read_levels(), clip.query_points.astype(np.float32)
          )
          for clip in clips
      ],
  )


def track_clips(
    subject: Subject,
    clips: Sequence[Clip],
    num_frames: int,
    query_mode: str,
) -> list[Tracks]:
  """Tracks clips, in both directions of time where the protocol needs it.

  With strided queries, frames before a query count; a tracker that sees only
  the past takes these from the video played backwards.
  """
  forward = subject.track(clips, num_frames)
  if query_mode == 'first' or not subject.sees_only_past:
    return forward
  backward = subject.track([clip.reverse() for clip in clips], num_frames)

  def join(clip: Clip, ahead: Tracks, back: Tracks) -> Tracks:
    frames = np.arange(len(clip.frames))[None]
    is_before = frames < np.round(clip.query_points[:, :1])

    def choose(later: np.ndarray, earlier: np.ndarray) -> np.ndarray:
      before = is_before.reshape(*is_before.shape, *(1,) * (later.ndim - 2))
      return np.where(before, earlier[:, ::-1], later)

    return jax.tree.map(choose, ahead, back)

  return [join(*parts) for parts in zip(clips, forward, backward, strict=True)]


def hash_params(tracker: Tracker) -> str:
  """Returns a SHA-256 of all weights, whatever file they came from."""
  digest = hashlib.sha256()
  for name, array in sorted(flatten_params(tracker.params).items()):
    values = np.asarray(array)
    digest.update(f'{name} {values.dtype} {values.shape}'.encode())
    digest.update(np.ascontiguousarray(values).tobytes())
  return digest.hexdigest()
