"""Methods under evaluation: neural trackers and the classical baseline.

Each method tracks clips: videos at its resolution with query points. A neural
tracker pads clips to a few lengths, to limit compilation, and distributes the
queries of each clip over all local devices.
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

from tapjax.evaluation import classical
from tapjax.geometry import Resolution
from tapjax.media.lazy import LazyFrames
from tapjax.models.contract import flatten_params
from tapjax.models.contract import TrackerFunctions
from tapjax.tracker import Tracker
from tapjax.tracking.options import Options
from tapjax.tracking.prepare import PreparedVideo
from tapjax.tracking.track import track
from tapjax.types import Tracks


class Clip(NamedTuple):
  """Video at the resolution of a method, with query points (t, y, x).

  Frames are uint8 levels, possibly lazy, or floats in [-1, 1].
  """

  frames: (
      UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'] | LazyFrames
  )
  query_points: Float[np.ndarray, 'n 3']

  def reverse(self) -> 'Clip':
    """Returns the clip reversed in time."""
    points = self.query_points.copy()
    points[:, 0] = len(self.frames) - 1 - points[:, 0]
    return Clip(np.asarray(self.frames)[::-1], points)

  def read_levels(self) -> UInt8[np.ndarray, 't h w 3']:
    """Returns all frames as uint8 levels."""
    frames = np.asarray(self.frames)
    if frames.dtype == np.uint8:
      return frames
    return np.rint((frames + 1) * 127.5).astype(np.uint8)


class Method(NamedTuple):
  """Method under evaluation, with its reproducible description.

  Attributes:
    name: name of the preset or method.
    resolution: (height, width) of the clips; None for any resolution.
    sees_only_past: whether frames before a query need a backward pass.
    description: settings and weights, recorded with the results.
    track: function from a clip and a padded length to tracks in pixels of the
      clip.
  """

  name: str
  resolution: Resolution | None
  sees_only_past: bool
  description: dict[str, Any]
  track: Callable[[Clip, int], Tracks]


def make_method(
    tracker: Tracker, devices: Sequence[jax.Device] | None = None
) -> Method:
  """Returns a tracker as a method, on all local devices by default."""
  functions = tracker.functions
  devices = tuple(devices or jax.local_devices())

  def track_clip(clip: Clip, num_frames: int) -> Tracks:
    is_padded = len(clip.frames) >= functions.shortest_padded
    return track(
        functions,
        tracker.params,
        tracker.programs,
        PreparedVideo(clip.frames, functions.resolution),
        clip.query_points.astype(np.float32),
        Options(
            query_chunk=_choose_chunk(functions),
            padded_frames=num_frames if is_padded else None,
            devices=devices,
        ),
    )

  return Method(
      name=tracker.name,
      resolution=functions.resolution,
      sees_only_past=functions.streams,
      description={
          'config': dataclasses.asdict(tracker.config),
          'weights_sha256': hash_params(tracker),
          'visibility': 'as the tracker says (finalize_tracks)',
      },
      track=track_clip,
  )


def _choose_chunk(functions: TrackerFunctions) -> int | None:
  """Returns the query chunk for videos with any number of queries.

  Larger chunks are faster on accelerators; smaller ones waste less padding in
  the last chunk. Queries that depend on each other are tracked together (None).
  """
  if not functions.queries_independent:
    return None
  return 8 if jax.default_backend() == 'cpu' else 32


def make_classical_method(resolution: Resolution | None = None) -> Method:
  """Returns Lucas-Kanade as a method.

  Raises:
    ImportError: OpenCV is not installed.
  """
  classical.import_opencv()
  return Method(
      name=classical.NAME,
      resolution=resolution,
      sees_only_past=False,
      description={
          'visibility': f'forward-backward error up to {classical.MAX_ERROR} px'
      },
      track=lambda clip, _: classical.track_lucas_kanade(
          clip.read_levels(), clip.query_points.astype(np.float32)
      ),
  )


def track_clip(
    method: Method, clip: Clip, num_frames: int, query_mode: str
) -> Tracks:
  """Tracks a clip, forward and, if the protocol requires it, backward.

  With strided queries, frames before a query count; a causal tracker takes
  these from a pass over the reversed clip.
  """
  forward = method.track(clip, num_frames)
  if query_mode == 'first' or not method.sees_only_past:
    return forward
  backward = method.track(clip.reverse(), num_frames)
  frames = np.arange(len(clip.frames))[None]
  is_before = frames < np.round(clip.query_points[:, :1])

  def choose(later: np.ndarray, earlier: np.ndarray) -> np.ndarray:
    before = is_before.reshape(*is_before.shape, *(1,) * (later.ndim - 2))
    return np.where(before, earlier[:, ::-1], later)

  return jax.tree.map(choose, forward, backward)


def hash_params(tracker: Tracker) -> str:
  """Returns a SHA-256 of all parameters, independent of the file format."""
  digest = hashlib.sha256()
  for name, array in sorted(flatten_params(tracker.params).items()):
    values = np.asarray(array)
    digest.update(f'{name} {values.dtype} {values.shape}'.encode())
    digest.update(np.ascontiguousarray(values).tobytes())
  return digest.hexdigest()
