"""Videos whose features are too many to hold, a piece at a time.

A tracker with a `Chain` follows its points from block to block. Any other whose
queries do not see each other looks at windows of the video:

```
frames ──windows that hold queries──► query features ─┐
   └─────every window, in order─────► features ───────┴─► tracks of the window
```

Where a tracker sees the past alone, it hands over what it remembers, and tracks
are those of the whole video. Otherwise windows overlap, and each frame is taken
from the window whose ends are farther from it: tracks then differ a little from
those of the whole video.

Several devices share a window: each encodes a part of the frames, gets all
features, and tracks a part of each chunk of queries.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.media.lazy import LazyFrames
from tapjax.models.contract import Chain
from tapjax.models.contract import describe_params
from tapjax.models.contract import estimate_tracks
from tapjax.models.contract import Extent
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.tracking import padding
from tapjax.types import PyTree
from tapjax.types import Tracks

FRAME_CHUNK = 8
# Queries times frames that are refined at once, unless the caller says.
ROWS_PER_CHUNK = 2048
# A shorter window tells little of how points move.
SHORTEST_WINDOW = 8

# Called with what is being done, how much of it is done, and how much there is.
Report = Callable[[str, int, int], None]
Frames = (
    Float[np.ndarray, 't h w 3'] | UInt8[np.ndarray, 't h w 3'] | LazyFrames
)


class Windows(NamedTuple):
  """How a video is cut.

  Attributes:
    length: frames of a window.
    overlap: frames that a window shares with the next.
    query_chunk: queries that a device tracks at once.
    frame_chunk: frames that a device encodes at once.
  """

  length: int
  overlap: int
  query_chunk: int
  frame_chunk: int


class Window(NamedTuple):
  """A window begins with `start`; of its frames `[first, stop)` are taken."""

  start: int
  first: int
  stop: int


class WindowPrograms(NamedTuple):
  """What is compiled for windows.

  All but parameters, frames, their number and the extent is of every device,
  along the first axis.

  Attributes:
    encode: from parameters, frames `[t, h, w, 3]` and the number of those that
      are true to features.
    describe: from parameters, features and query points `[d, m, 3]` in the
      window to features of the queries.
    track: from parameters and an extent, features, features of the queries,
      their points and what is remembered to tracks `[d, m, t]` and what is
      remembered.
    memory: bytes on each device while the largest of them runs, with all that
      goes in and out.
  """

  encode: Callable[..., PyTree]
  describe: Callable[..., PyTree]
  track: Callable[..., tuple[Tracks, PyTree | None]]
  memory: int


def encode_in_pieces(
    functions: TrackerFunctions,
    params: Params,
    frames: Frames,
    frame_chunk: int = FRAME_CHUNK,
) -> PyTree:
  """Encodes a video a few frames at a time; the features are those of all."""
  count = np.asarray(len(frames), np.int32)
  return _encode(functions, frame_chunk, params, frames, count)


def chunk_queries(
    query_points: Float[np.ndarray, 'n 3'], chunk: int
) -> Float[np.ndarray, 'k m 3']:
  """Splits queries into chunks of one size; the last query fills them."""
  num_chunks = math.ceil(len(query_points) / chunk)
  rows = np.minimum(np.arange(num_chunks * chunk), len(query_points) - 1)
  return query_points[rows].reshape(num_chunks, chunk, 3)


def join_rows(parts: Iterable[Tracks]) -> Tracks:
  """Joins tracks of some queries and tracks of others."""
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def track_chain(
    functions: TrackerFunctions,
    chain: Chain,
    params: Params,
    frames: Frames,
    query_points: Float[np.ndarray, 'n 3'],
    query_chunk: int,
    frame_chunk: int,
    report: Report | None,
) -> Tracks:
  """Tracks chunks of queries through two windows of frames after two others.

  Only the features of these are held. Queries behind the first window need a
  second pass, back in time.
  """
  window, num_frames = chain.window, len(frames)
  num_blocks = math.ceil(num_frames / window)
  lowest, highest = (
      round(float(frame))
      for frame in (np.min(query_points[:, 0]), np.max(query_points[:, 0]))
  )
  pieces = list(range(min(lowest // window, num_blocks - 2), num_blocks - 1))
  if highest > 0:
    pieces += range(min(highest // window, num_blocks - 2), -1, -1)

  def encode(block: int) -> PyTree:
    rows = np.arange(block * window, (block + 1) * window)
    rows = np.minimum(rows, num_frames - 1)
    return encode_in_pieces(functions, params, frames[rows], frame_chunk)

  query_chunk = min(padding.round_up(len(query_points)), query_chunk)
  capacity = padding.round_up(num_frames)
  progress = [
      _begin_chain(chain, chunk, np.asarray(num_frames, np.int32), capacity)
      for chunk in chunk_queries(query_points, query_chunk)
  ]
  blocks: dict[int, PyTree] = {}
  if report is not None:
    report('track', 0, len(pieces))
  for done, first in enumerate(pieces, 1):
    # What is behind is let go before what is ahead is encoded.
    blocks = {i: blocks[i] for i in (first, first + 1) if i in blocks}
    for block in (first, first + 1):
      if block not in blocks:
        blocks[block] = encode(block)
    features = _join_blocks(blocks[first], blocks[first + 1])
    origin = np.asarray(first * window, np.int32)
    progress = [
        _advance_chain(functions, params, features, origin, chunk)
        for chunk in progress
    ]
    # Or else features would be waiting for those that are ahead of them.
    jax.block_until_ready(progress)
    if report is not None:
      report('track', done, len(pieces))
  tracks = join_rows(
      parallel.fetch(_finish_chain(chain, part)) for part in progress
  )
  return jax.tree.map(
      lambda array: array[: len(query_points), :num_frames], tracks
  )


@functools.partial(jax.jit, static_argnums=(0, 3))
def _begin_chain(
    chain: Chain,
    query_points: Float[Array, 'n 3'],
    num_frames: Array,
    capacity: int,
) -> PyTree:
  return chain.begin(query_points, num_frames, capacity)


@jax.jit
def _join_blocks(*blocks: PyTree) -> PyTree:
  return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *blocks)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def _advance_chain(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    origin: Array,
    progress: PyTree,
) -> PyTree:
  """Brings a chunk of queries as far as some features allow."""
  chain = functions.chain
  assert chain is not None, 'only trackers with a chain come here'
  return chain.advance(params, features, origin, progress)


@functools.partial(jax.jit, static_argnums=0)
def _finish_chain(chain: Chain, progress: PyTree) -> Tracks:
  return chain.finish(progress)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(
    functions: TrackerFunctions,
    frame_chunk: int,
    params: Params,
    frames: Array,
    num_frames: Array,
) -> PyTree:
  return padding.encode_frames(
      functions, params, frames, num_frames, frame_chunk
  )


def list_windows(num_frames: int, length: int, overlap: int) -> list[Window]:
  """Cuts a video so that every frame is taken once.

  Where windows overlap, the last one begins early enough to be of full length,
  and each frame is taken from the window in which it is farther from an end.
  """
  starts = list(range(0, max(1, num_frames - overlap), length - overlap))
  if overlap:
    starts[-1] = max(0, min(starts[-1], num_frames - length))
  cuts = [
      (later + earlier + length) // 2
      for earlier, later in itertools.pairwise(starts)
  ]
  return [
      Window(*window)
      for window in zip(starts, [0, *cuts], [*cuts, num_frames], strict=True)
  ]


def get_shortest_window(functions: TrackerFunctions) -> int:
  """Returns the fewest frames that a window may have."""
  return max(
      functions.shortest_padded,
      4 * functions.temporal_context + SHORTEST_WINDOW,
  )


def check_window(functions: TrackerFunctions, length: int) -> None:
  """Raises ValueError if a tracker cannot see such windows alone."""
  check_windowed(functions)
  shortest = get_shortest_window(functions)
  if length < shortest:
    raise ValueError(f'window must be at least {shortest}; got {length}')


def check_windowed(functions: TrackerFunctions) -> None:
  """Raises ValueError for a tracker that cannot see windows alone."""
  if functions.chain is not None:
    raise ValueError(
        'window must be None for a tracker that goes through a video piece by '
        'piece anyway - leave it out'
    )
  if not functions.queries_independent:
    raise ValueError(
        'window must be None for a tracker whose points see each other '
        'throughout the video - cut the video yourself, or choose another model'
    )


def choose_windows(
    functions: TrackerFunctions,
    length: int,
    num_queries: int,
    *,
    num_devices: int = 1,
    query_chunk: int | None = None,
    frame_chunk: int | None = None,
) -> Windows:
  """Returns windows of some length, and of a tracker what it needs besides."""
  check_window(functions, length)
  overlap = 0
  if not is_exact(functions):
    overlap = max(length // 2, 2 * functions.temporal_context)
  most = max(1, ROWS_PER_CHUNK // length)
  share = math.ceil(num_queries / num_devices)
  chunk = min(padding.round_up(share), query_chunk or most)
  return Windows(length, overlap, chunk, frame_chunk or FRAME_CHUNK)


def is_exact(functions: TrackerFunctions) -> bool:
  """Returns whether tracks through windows are those of the whole video."""
  return functions.make_memory is not None


def fit_windows(
    functions: TrackerFunctions,
    params: Params,
    num_frames: int,
    num_queries: int,
    dtype: np.dtype,
    budget: int,
    mesh: Mesh,
    *,
    query_chunk: int | None = None,
    frame_chunk: int | None = None,
) -> Windows:
  """Returns the longest windows that some bytes of memory suffice for.

  Raises:
    ValueError: none do.
  """
  frame = jax.ShapeDtypeStruct((1, *functions.resolution, 3), dtype)
  features = padding.describe_features(functions, 1, FRAME_CHUNK)
  per_frame = count_bytes((frame, features))
  shortest = get_shortest_window(functions)
  length = padding.round_up(max(budget // per_frame, 1)) // 2
  length = min(length, padding.round_up(num_frames))
  length = max(length, padding.round_up(shortest))
  while True:
    windows = choose_windows(
        functions,
        length,
        num_queries,
        num_devices=mesh.size,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
    )
    needed = estimate_memory(
        functions, params, windows, num_frames, num_queries, dtype, mesh
    )
    if needed <= budget:
      return windows
    length //= 2
    if length < shortest:
      raise ValueError(
          f'max_memory must be at least {needed / 1e6:.0f} MB for '
          f'{num_queries} points through {num_frames} frames; got '
          f'{budget / 1e6:.0f} MB - track fewer points at a time, or choose a '
          'smaller resolution'
      )


def estimate_memory(
    functions: TrackerFunctions,
    params: Params,
    windows: Windows,
    num_frames: int,
    num_queries: int,
    dtype: np.dtype,
    mesh: Mesh,
) -> int:
  """Returns the bytes of windows, besides the parameters and the video."""
  programs = compile_windows(
      functions, windows, padding.list_dtypes(dtype, params), mesh
  )
  chunks = math.ceil(num_queries / (windows.query_chunk * mesh.size))
  kept = count_bytes(_describe_queries(functions, windows))
  kept += count_bytes(_describe_memory(functions, windows))
  # Virtual devices share the memory of the host.
  shares = mesh.size if jax.default_backend() == 'cpu' else 1
  tracks = padding.describe_tracks(functions, windows.length, 1)
  tracks_bytes = count_bytes(tracks) * num_queries * num_frames
  # They are rescaled at the end.
  of_devices = shares * (programs.memory + kept * chunks)
  return of_devices + 2 * tracks_bytes // windows.length


def track_windows(
    functions: TrackerFunctions,
    params: Params,
    frames: Frames,
    query_points: Float[np.ndarray, 'n 3'],
    windows: Windows,
    mesh: Mesh,
    report: Report | None = None,
) -> Tracks:
  """Tracks queries through one window of a video after the other.

  Args:
    functions: a tracker whose queries do not see each other, without a chain.
    params: its parameters.
    frames: at the resolution of the model; those of floats in [-1, 1].
    query_points: (t, y, x) there.
    windows: as `choose_windows` returns them for as many devices.
    mesh: the devices.
    report: called after every window.
  """
  programs = compile_windows(
      functions, windows, padding.list_dtypes(frames.dtype, params), mesh
  )
  params = parallel.replicate(mesh, params)
  parts = list_windows(len(frames), windows.length, windows.overlap)
  chunks = chunk_queries(query_points, windows.query_chunk * mesh.size)
  chunks = chunks.reshape(-1, mesh.size, windows.query_chunk, 3)
  queries = _describe_in_windows(
      functions, programs, params, frames, chunks, windows, report
  )
  memories: list[PyTree] = [None] * len(chunks)
  if functions.make_memory is not None:
    memory = jax.tree.map(
        lambda leaf: np.stack([leaf] * mesh.size),
        functions.make_memory(windows.query_chunk),
    )
    memories = [parallel.shard(mesh, memory) for _ in chunks]
  tracks = jax.tree.map(
      lambda leaf: np.zeros(
          (len(query_points), len(frames), *leaf.shape[2:]), leaf.dtype
      ),
      padding.describe_tracks(functions, windows.length, 1),
  )
  for done, part in enumerate(parts):
    if report is not None:
      report('track', done, len(parts))
    window, count = _cut_window(frames, part.start, windows.length)
    features = programs.encode((params, window, count))
    kept = slice(part.first - part.start, part.stop - part.start)
    for i, points in enumerate(chunks):
      size = mesh.size * windows.query_chunk
      rows = slice(i * size, (i + 1) * size)
      extent = Extent(count, np.asarray(windows.query_chunk, np.int32))
      new, memories[i] = programs.track(
          (params, extent),
          features,
          queries[i],
          points - np.asarray([part.start, 0, 0], np.float32),
          memories[i],
      )
      for whole, some in _pair(tracks, parallel.fetch(new)):
        taken = whole[rows, part.first : part.stop]
        some = some.reshape(size, *some.shape[2:])
        taken[...] = some[: len(taken), kept]
  if report is not None:
    report('track', len(parts), len(parts))
  return tracks


@functools.cache
def compile_windows(
    functions: TrackerFunctions,
    windows: Windows,
    dtypes: tuple[np.dtype, ...],
    mesh: Mesh,
) -> WindowPrograms:
  """Compiles what windows need, for types as `padding.list_dtypes` says."""
  params = describe_params(functions, dtypes[1:])
  frames = jax.ShapeDtypeStruct(
      (windows.length, *functions.resolution, 3), dtypes[0]
  )
  count = jax.ShapeDtypeStruct((), jnp.int32)
  points = jax.ShapeDtypeStruct((windows.query_chunk, 3), jnp.float32)
  features = padding.describe_features(
      functions, windows.length, windows.frame_chunk
  )

  def encode_window(whole: tuple[Params, Array, Array]) -> PyTree:
    params, frames, num_frames = whole
    features = padding.encode_frames(
        functions,
        params,
        frames,
        num_frames,
        windows.frame_chunk,
        parallel.get_share(mesh),
    )
    if mesh.size > 1:
      features = parallel.total(features)
    return _add_axis(features)

  def describe_chunk(params: Params, features: PyTree, points: Array) -> PyTree:
    return _add_axis(
        functions.describe_queries(params, _drop_axis(features), points)
    )

  def track_chunk(
      whole: tuple[Params, Extent],
      features: PyTree,
      queries: PyTree,
      points: Array,
      memory: PyTree | None,
  ) -> tuple[Tracks, PyTree | None]:
    params, extent = whole
    features, queries, memory = _drop_axis((features, queries, memory))
    estimate = estimate_tracks(
        functions, params, features, queries, points, memory, extent
    )
    # Of a batch of one, which is the share of the device.
    tracks = functions.finalize_tracks(estimate.states)
    return tracks, _add_axis(estimate.memory)

  replicate = functools.partial(parallel.describe_replicated, mesh)
  cut = functools.partial(parallel.describe_shards, mesh)
  programs = [
      padding.compile_measured(
          parallel.make_shards(encode_window, mesh),
          replicate((params, frames, count)),
      ),
      padding.compile_measured(
          parallel.map_shards(describe_chunk, mesh),
          replicate(params),
          *cut((features, points)),
      ),
      padding.compile_measured(
          parallel.map_shards(track_chunk, mesh, donate=(4,)),
          replicate((params, jax.eval_shape(Extent, count, count))),
          *cut(
              (
                  features,
                  _describe_queries(functions, windows),
                  points,
                  _describe_memory(functions, windows),
              )
          ),
      ),
  ]
  (encode, _), (describe, _), (track, _) = programs
  return WindowPrograms(
      encode, describe, track, max(memory for _, memory in programs)
  )


def _add_axis(tree: PyTree) -> PyTree:
  """Makes results those of one of several devices."""
  return jax.tree.map(lambda leaf: leaf[None], tree)


def _drop_axis(tree: PyTree) -> PyTree:
  """Undoes `_add_axis`."""
  return jax.tree.map(lambda leaf: leaf[0], tree)


def _describe_queries(functions: TrackerFunctions, windows: Windows) -> PyTree:
  """Returns the shapes of the features of a chunk of queries."""
  return jax.eval_shape(
      functions.describe_queries,
      describe_params(functions),
      padding.describe_features(functions, windows.length, windows.frame_chunk),
      jax.ShapeDtypeStruct((1, windows.query_chunk, 3), jnp.float32),
  )


def _describe_memory(
    functions: TrackerFunctions, windows: Windows
) -> PyTree | None:
  """Returns the shapes of what is remembered of a chunk of queries."""
  if functions.make_memory is None:
    return None
  return jax.eval_shape(
      functools.partial(functions.make_memory, windows.query_chunk)
  )


def _describe_in_windows(
    functions: TrackerFunctions,
    programs: WindowPrograms,
    params: Params,
    frames: Frames,
    chunks: Float[np.ndarray, 'k d m 3'],
    windows: Windows,
    report: Report | None,
) -> list[PyTree]:
  """Returns the features of each chunk of queries, wherever those are."""
  # A query between two frames needs both, and what these depend on.
  overlap = 2 * functions.temporal_context + 2
  parts = list_windows(len(frames), windows.length, overlap)
  numbers = np.searchsorted(
      [part.first for part in parts], chunks[..., 0], side='right'
  )
  numbers = np.maximum(numbers - 1, 0)
  queries = [
      jax.tree.map(
          lambda leaf: np.zeros((chunks.shape[1], *leaf.shape), leaf.dtype),
          _describe_queries(functions, windows),
      )
      for _ in chunks
  ]
  needed = np.unique(numbers).tolist()
  for done, number in enumerate(needed):
    if report is not None:
      report('encode', done, len(needed))
    start = parts[number].start
    window, count = _cut_window(frames, start, windows.length)
    features = programs.encode((params, window, count))
    for i in np.flatnonzero((numbers == number).any(axis=(1, 2))):
      rows = numbers[i] == number
      points = chunks[i] - np.asarray([start, 0, 0], np.float32)
      # Queries of other windows are described at any of this one's.
      points[~rows] = points[rows][0]
      new = parallel.fetch(programs.describe(params, features, points))
      for whole, some in _pair(queries[i], new):
        whole[:, 0][rows] = some[:, 0][rows]
  if report is not None:
    report('encode', len(needed), len(needed))
  return queries


def _pair(one: PyTree, other: PyTree) -> Iterator[tuple[Any, Any]]:
  """Returns the arrays of two trees of the same structure."""
  return zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)


def _cut_window(
    frames: Frames, start: int, length: int
) -> tuple[np.ndarray, Int[np.ndarray, '']]:
  """Returns frames padded to the length, and how many of them are true."""
  window = np.asarray(frames[start : start + length])
  missing = length - len(window)
  if missing:
    window = np.pad(window, ((0, missing), (0, 0), (0, 0), (0, 0)))
  return window, np.asarray(length - missing, np.int32)


def count_bytes(tree: PyTree) -> int:
  """Returns the bytes of arrays, or of what has their shapes."""
  return sum(
      math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
      for leaf in jax.tree.leaves(tree)
  )
