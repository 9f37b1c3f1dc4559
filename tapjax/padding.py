"""Videos of many lengths through few compiled programs.

A program is compiled for a length and a number of queries. Here videos are
padded to a few of both, and a program works on no more than the true frames and
queries: it encodes as many pieces and tracks as many chunks as there are, and
tells the arrows that look over time where the video ends. Padding changes no
result.
"""

from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.models.base import Params
from tapjax.models.base import TrackerFunctions
from tapjax.types import PyTree
from tapjax.types import Tracks

# Frames encoded at once for each on which features depend, to either side.
_FRAMES_PER_CONTEXT = 8
# Queries come in multiples of this; only true ones cost time.
QUERY_CAPACITY = 2048
MOST_LENGTHS = 4


class PaddedVideo(NamedTuple):
  """A video at the model's resolution, padded, and its queries there.

  Only the first `num_frames` frames and `num_queries` queries are true. Query
  points are (t, y, x).
  """

  frames: UInt8[Array | np.ndarray, '*d t h w 3']
  num_frames: Int[Array | np.ndarray, '*d']
  query_points: Float[Array | np.ndarray, '*d n 3']
  num_queries: Int[Array | np.ndarray, '*d']


def choose_lengths(
    lengths: Sequence[int], most: int = MOST_LENGTHS
) -> tuple[int, ...]:
  """Returns at most `most` lengths to pad to, with the least of padding.

  Every length fits into one of them; the longest is among them.
  """
  known = sorted(lengths)
  distinct = sorted(set(known))
  if len(distinct) <= most:
    return tuple(distinct)
  counts = [known.count(length) for length in distinct]
  total = np.concatenate([[0], np.cumsum(counts)])
  # The cheapest way to cover the first so many lengths with that many buckets.
  best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
  for _ in range(most):
    best = {
        stop: min(
            (
                cost + distinct[stop - 1] * int(total[stop] - total[start]),
                (*chosen, distinct[stop - 1]),
            )
            for start, (cost, chosen) in best.items()
            if start < stop
        )
        for stop in range(1, len(distinct) + 1)
        if any(start < stop for start in best)
    }
  return best[len(distinct)][1]


def pad_video(
    frames: UInt8[np.ndarray, 't h w 3'],
    query_points: Float[np.ndarray, 'n 3'],
    num_frames: int,
) -> PaddedVideo:
  """Pads frames to `num_frames`, and queries to the next round number."""
  padding = num_frames - len(frames)
  if padding < 0:
    raise ValueError(
        f'num_frames must be at least the {len(frames)} of the video; got '
        f'{num_frames}'
    )
  capacity = QUERY_CAPACITY * max(
      1, math.ceil(len(query_points) / QUERY_CAPACITY)
  )
  rows = capacity - len(query_points)
  return PaddedVideo(
      frames=np.pad(frames, ((0, padding), (0, 0), (0, 0), (0, 0))),
      num_frames=np.asarray(len(frames), np.int32),
      query_points=np.pad(query_points.astype(np.float32), ((0, rows), (0, 0))),
      num_queries=np.asarray(len(query_points), np.int32),
  )


def track_padded(
    functions: TrackerFunctions,
    params: Params,
    videos: Sequence[PaddedVideo],
    mesh: Mesh,
) -> list[Tracks]:
  """Tracks videos of one padded shape at once, one on each device.

  There may be fewer videos than devices. `params` are replicated over `mesh`.

  Returns:
    Tracks of the true frames and queries, at the model's resolution.
  """
  if functions.padded is None:
    raise ValueError('functions must take padded videos; padded is None')
  idle = mesh.size - len(videos)
  nothing = videos[0]._replace(num_queries=np.zeros((), np.int32))
  batch = jax.tree.map(
      lambda *arrays: np.stack(arrays), *videos, *[nothing] * idle
  )
  run = _compile(functions, mesh)
  tracks = jax.block_until_ready(run(params, parallel.shard(mesh, batch)))
  tracks = jax.tree.map(np.asarray, tracks)

  def cut(row: int, video: PaddedVideo) -> Tracks:
    return jax.tree.map(
        lambda array: array[row, : video.num_queries, : video.num_frames],
        tracks,
    )

  return [cut(row, video) for row, video in enumerate(videos)]


@functools.cache
def _compile(functions: TrackerFunctions, mesh: Mesh):
  """Returns the program, the same for the same tracker and devices."""

  def run(params: Params, videos: PaddedVideo) -> Tracks:
    video = jax.tree.map(lambda array: array[0], videos)
    tracks = _track(functions, params, video)
    return jax.tree.map(lambda array: array[None], tracks)

  return parallel.map_shards(run, mesh)


def _track(
    functions: TrackerFunctions, params: Params, video: PaddedVideo
) -> Tracks:
  """Tracks the true queries of one video, a few at a time."""
  assert functions.padded is not None
  refine = functions.padded.refine_tracks
  features = _encode(functions, params, video)

  def track_chunk(points: Float[Array, 'n 3']) -> Tracks:
    points = points[None]
    queries = functions.describe_queries(params, features, points)
    state = functions.initialize_tracks(params, features, queries, points)
    states = refine(params, features, queries, state, video.num_frames)
    tracks = functions.finalize_tracks(states)
    return jax.tree.map(lambda array: array[0], tracks)

  # More at once are faster on an accelerator; fewer leave less of the last
  # chunk empty.
  chunk = 8 if jax.default_backend() == 'cpu' else 32
  shape = jax.eval_shape(track_chunk, video.query_points[:chunk])
  tracks = jax.tree.map(
      lambda leaf: jnp.zeros(
          (len(video.query_points), *leaf.shape[1:]), leaf.dtype
      ),
      shape,
  )

  def add_chunk(index: Array, tracks: Tracks) -> Tracks:
    start = index * chunk
    points = jax.lax.dynamic_slice_in_dim(video.query_points, start, chunk)
    # Padding repeats the first query, so that all numbers are finite.
    is_query = start + jnp.arange(chunk) < video.num_queries
    points = jnp.where(is_query[:, None], points, video.query_points[:1])
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
            whole, part, start, axis=0
        ),
        tracks,
        track_chunk(points),
    )

  num_chunks = -(-video.num_queries // chunk)
  return jax.lax.fori_loop(0, num_chunks, add_chunk, tracks)


def _choose_frame_chunk(capacity: int, context: int) -> int:
  """Returns the frames to add per window, which divide the longest video.

  What windows share is encoded twice, so they are long where there is context.
  """
  most = 2 if jax.default_backend() == 'cpu' else 8
  most = max(most, _FRAMES_PER_CONTEXT * context)
  inner = max(1, capacity - 2 * context)
  return math.ceil(inner / math.ceil(inner / most))


def _encode(
    functions: TrackerFunctions, params: Params, video: PaddedVideo
) -> PyTree:
  """Encodes the true frames; features of padding are zeros.

  Windows overlap by the frames that features depend on, as in `tracking`.
  """
  assert functions.padded is not None
  encode = functions.padded.encode_video
  context = functions.temporal_context
  capacity = len(video.frames)
  chunk = _choose_frame_chunk(capacity, context)
  length = min(capacity, chunk + 2 * context)

  def encode_window(start: Array) -> PyTree:
    window = jax.lax.dynamic_slice_in_dim(video.frames, start, length)
    rest = video.num_frames - start
    return encode(params, normalize_frames(window)[None], rest)

  shape = jax.eval_shape(encode_window, video.num_frames)
  features = jax.tree.map(
      lambda leaf: jnp.zeros((1, capacity, *leaf.shape[2:]), leaf.dtype),
      shape,
  )

  def add_window(index: Array, features: PyTree) -> PyTree:
    last_start = jnp.maximum(video.num_frames - length, 0)
    start = jnp.minimum(index * chunk, last_start)
    frames = start + jnp.arange(length)
    is_last = start + length >= video.num_frames
    first = jnp.where(start == 0, 0, start + context)
    end = jnp.where(is_last, video.num_frames, start + length - context)
    keep = (frames >= first) & (frames < end)

    def write(whole: Array, part: Array) -> Array:
      old = jax.lax.dynamic_slice_in_dim(whole, start, length, axis=1)
      mask = keep.reshape(1, -1, *(1,) * (part.ndim - 2))
      merged = jnp.where(mask, part, old)
      return jax.lax.dynamic_update_slice_in_dim(whole, merged, start, axis=1)

    return jax.tree.map(write, features, encode_window(start))

  num_windows = -(-jnp.maximum(1, video.num_frames - 2 * context) // chunk)
  num_windows = jnp.where(video.num_queries > 0, num_windows, 0)
  return jax.lax.fori_loop(0, num_windows, add_window, features)
