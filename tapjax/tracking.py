"""Whole-video tracking, in bounded memory and with few compilations.

Frames are resized and encoded a few at a time, queries are tracked in chunks,
and both are padded to what was compiled before; none of this changes a result.
Where a track depends on the other queries they are tracked all together, unless
the caller asks for chunks, each of which is then a set of its own.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import padding
from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.inputs import check_frames
from tapjax.models.base import Chain
from tapjax.models.base import Extent
from tapjax.models.base import Params
from tapjax.models.base import TrackerFunctions
from tapjax.types import PyTree
from tapjax.types import Tracks

FRAME_CHUNK = 8
# Queries times frames that a chain refines at once, unless the caller says.
_ROWS_PER_CHUNK = 2048

# Called with what is being done, how much of it is done, and how much there is.
Report = Callable[[str, int, int], None]


class PreparedVideo(NamedTuple):
  """A video at the model resolution, and the resolution it came with.

  Frames that need no resizing are as they came, and else floats in [-1, 1].
  """

  frames: UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3']
  original: Resolution


def track_video(
    functions: TrackerFunctions,
    params: Params,
    video: PreparedVideo,
    query_points: Float[np.ndarray, 'n 3'],
    *,
    query_chunk: int | None = None,
    frame_chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    report: Report | None = None,
) -> Tracks:
  """Tracks query points through a whole video.

  Args:
    functions: the tracker.
    params: its parameters.
    video: as `prepare_video` returns it.
    query_points: (t, y, x) in pixels of the original frames.
    query_chunk: queries to track at once; None fits it to the video's length,
      or takes all where queries depend on each other. Like `frame_chunk` it
      bounds memory, and where they do not it changes no result.
    frame_chunk: frames to encode at once.
    devices: to share the work; None takes all local GPUs or TPU cores, or one
      CPU, since several would share its cores.
    report: called after every part of the work; without it there is a single
      call to the device.

  Returns:
    Tracks in pixels of the original frames, in the order of the queries.
  """
  num_frames = len(video.frames)
  if not len(query_points):
    return _make_no_tracks(functions, num_frames)
  points = np.asarray(
      rescale_query_points(query_points, video.original, functions.resolution),
      np.float32,
  )
  chain = functions.chain
  if chain is not None and num_frames > 2 * chain.window:
    tracks = _track_chain(
        functions,
        chain,
        params,
        video.frames,
        points,
        query_chunk or max(1, _ROWS_PER_CHUNK // chain.window),
        frame_chunk or FRAME_CHUNK,
        report,
    )
  else:
    mesh = _make_mesh(devices)
    params = parallel.replicate(mesh, params)
    sets = _list_sets(functions, len(points), query_chunk)
    tracks = _join_rows(
        padding.track_shared(
            functions,
            params,
            video.frames,
            points[rows],
            padding.choose_program(
                functions,
                num_frames,
                rows.stop - rows.start,
                mesh,
                frame_chunk=frame_chunk,
                query_chunk=query_chunk,
            ),
            mesh,
            _report_share(report, index, len(sets)),
        )
        for index, rows in enumerate(sets)
    )
  positions = rescale_positions(
      tracks.positions, functions.resolution, video.original
  )
  return tracks._replace(positions=np.array(positions))


def warm_up(
    functions: TrackerFunctions,
    params: Params,
    num_frames: int,
    num_queries: int,
    resolution: Resolution,
    *,
    query_chunk: int | None = None,
    frame_chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> int:
  """Compiles what `track_video` needs for videos of up to `num_frames`.

  Returns:
    Bytes of memory that tracking such a video takes, in frames of
    `resolution`, besides the caller's own frames.
  """
  mesh = _make_mesh(devices)
  chain = functions.chain
  # A chain takes a video piece by piece.
  piece = num_frames if chain is None else min(num_frames, 2 * chain.window)
  sizes = padding.choose_program(
      functions,
      piece,
      num_queries,
      mesh,
      frame_chunk=frame_chunk,
      query_chunk=query_chunk,
  )
  is_resized = tuple(resolution) != functions.resolution
  dtype = np.dtype(np.float32 if is_resized else np.uint8)
  program = padding.compile_program(
      functions,
      sizes,
      mesh,
      padding.list_dtypes(dtype, params),
      is_shared=True,
  )
  if is_resized:
    block = np.zeros((FRAME_CHUNK, *resolution, 3), np.uint8)
    _prepare_frames(block, functions.resolution)
  on_host = num_frames * 3 * math.prod(functions.resolution) * dtype.itemsize
  # Blocks are resized one by one, and joined at the end.
  on_host *= 2 if is_resized else 1
  memory = program.memory
  if jax.default_backend() == 'cpu':
    # Virtual devices share the memory of the host.
    memory *= mesh.size
  return on_host + memory


def prepare_video(
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    resolution: Resolution,
) -> PreparedVideo:
  """Resizes a video as it is read, so that it is never held at full size."""
  resized = []
  original = None
  for block in blocks:
    check_frames(block)
    if original not in (None, block.shape[1:3]):
      raise ValueError(
          'blocks must all have frames of one size; got '
          f'{block.shape[1:3]} after {original}'
      )
    original = block.shape[1:3]
    if original == tuple(resolution):
      resized.append(block)
      continue
    missing = FRAME_CHUNK - len(block)
    padded = np.pad(block, ((0, max(missing, 0)), (0, 0), (0, 0), (0, 0)))
    frames = parallel.fetch(_prepare_frames(padded, resolution))
    resized.append(frames[: len(block)])
  if original is None:
    raise ValueError('the video must have at least one frame; got none')
  return PreparedVideo(np.concatenate(resized), original)


def split_frames(
    frames: UInt8[np.ndarray, 't h w 3'],
) -> Iterator[UInt8[np.ndarray, '_ h w 3']]:
  """Cuts a video in memory into the blocks that `prepare_video` takes."""
  for start in range(0, len(frames), FRAME_CHUNK):
    yield frames[start : start + FRAME_CHUNK]


def encode_in_pieces(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'],
    frame_chunk: int = FRAME_CHUNK,
) -> PyTree:
  """Encodes a video a few frames at a time; the features are those of all."""
  num_frames = len(frames)
  pieces = _list_pieces(num_frames, frame_chunk, functions.temporal_context)
  features = jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, leaf.dtype),
      _describe_features(functions, params, num_frames),
  )
  for piece in pieces:
    window = frames[None, piece.start : piece.start + len(piece.keep)]
    features = _encode_piece(
        functions, params, features, window, piece.start, piece.keep
    )
  return features


def track_features(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[np.ndarray, 'n 3'],
) -> Tracks:
  """Tracks one query or more through a video that was encoded.

  As `track_video`, but queries and tracks are in pixels of the model. For
  videos of one length there is one program, whatever the number of queries, but
  where these depend on each other one for each round number.
  """
  num_frames = jax.tree.leaves(features)[0].shape[1]
  size = max(1, _ROWS_PER_CHUNK // num_frames)
  if not functions.queries_independent:
    size = padding.round_capacity(functions, len(query_points))
  parts = []
  for start in range(0, len(query_points), size):
    chunk = query_points[start : start + size]
    rows = np.minimum(np.arange(size), len(chunk) - 1)
    extent = Extent(
        np.asarray(num_frames, np.int32), np.asarray(len(chunk), np.int32)
    )
    tracks = parallel.fetch(
        _track_features(functions, params, features, chunk[rows], extent)
    )
    count = len(chunk)
    parts.append(jax.tree.map(lambda array, n=count: array[:n], tracks))
  return _join_rows(parts)


def _make_mesh(devices: Sequence[jax.Device] | None) -> Mesh:
  """Returns the devices that share a video."""
  if devices is None:
    devices = jax.local_devices()
    if jax.default_backend() == 'cpu':
      devices = devices[:1]
  return parallel.make_mesh(devices)


def _make_no_tracks(functions: TrackerFunctions, num_frames: int) -> Tracks:
  """Returns the tracks of no queries, with the fields that others have."""
  sizes = padding.choose_sizes(functions, num_frames, 1)
  tracks = padding.describe_progress(functions, sizes).tracks
  return jax.tree.map(
      lambda leaf: np.zeros((0, *leaf.shape[1:]), leaf.dtype), tracks
  )


def _list_sets(
    functions: TrackerFunctions, num_queries: int, query_chunk: int | None
) -> list[slice]:
  """Returns the rows of the queries that one call tracks.

  It takes all, but for sets of queries that depend on each other.
  """
  size = num_queries
  if not functions.queries_independent and query_chunk is not None:
    size = math.ceil(num_queries / math.ceil(num_queries / query_chunk))
  return [
      slice(start, min(start + size, num_queries))
      for start in range(0, num_queries, size)
  ]


def _report_share(
    report: Report | None, share: int, num_shares: int
) -> Report | None:
  """Returns what reports the parts of one share as parts of the whole."""
  if report is None or num_shares == 1:
    return report

  def report_whole(stage: str, done: int, total: int) -> None:
    report(stage, share * total + done, num_shares * total)

  return report_whole


def _join_rows(parts: Iterable[Tracks]) -> Tracks:
  return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _track_chain(
    functions: TrackerFunctions,
    chain: Chain,
    params: Params,
    frames: Float[np.ndarray, 't h w 3'] | UInt8[np.ndarray, 't h w 3'],
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

  capacity = padding.round_up(num_frames)
  progress = [
      _begin_chain(chain, chunk, np.asarray(num_frames, np.int32), capacity)
      for chunk in _chunk_queries(query_points, query_chunk)
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
    if report is not None:
      jax.block_until_ready(progress)
      report('track', done, len(pieces))
  tracks = _join_rows(
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


def _describe_features(
    functions: TrackerFunctions, params: Params, num_frames: int
) -> PyTree:
  """Returns the shapes of a video's features."""
  video = jax.ShapeDtypeStruct(
      (1, num_frames, *functions.resolution, 3), jnp.float32
  )
  return jax.eval_shape(functions.encode_video, params, video)


class _Piece(NamedTuple):
  """A window of the video, and for which of its frames it sees enough."""

  start: int
  keep: Bool[np.ndarray, 't']


def _list_pieces(num_frames: int, chunk: int, context: int) -> list[_Piece]:
  """Lists windows of equal length that together keep every frame.

  Windows overlap by the frames that features depend on. At its ends the video
  itself ends, and the last window begins early enough to be of full length.
  """
  chunk = min(chunk, num_frames)
  # The length, at most the chunk's, by which the last window overlaps least.
  chunk = min(range(chunk, chunk // 2, -1), key=lambda size: -num_frames % size)
  length = min(num_frames, chunk + 2 * context)
  pieces = []
  for start in range(0, max(1, num_frames - 2 * context), chunk):
    start = min(start, num_frames - length)
    frames = np.arange(start, start + length)
    first = 0 if start == 0 else start + context
    last = start + length
    last = num_frames if last == num_frames else last - context
    pieces.append(_Piece(start, (frames >= first) & (frames < last)))
  return pieces


def _chunk_queries(
    query_points: Float[np.ndarray, 'n 3'], chunk: int
) -> Float[np.ndarray, 'k m 3']:
  """Splits queries into chunks of a round size; the last query fills them."""
  size = min(padding.round_up(len(query_points)), chunk)
  num_chunks = math.ceil(len(query_points) / size)
  rows = np.minimum(np.arange(num_chunks * size), len(query_points) - 1)
  return query_points[rows].reshape(num_chunks, size, 3)


@functools.partial(jax.jit, static_argnums=1)
def _prepare_frames(
    frames: UInt8[Array, 't h w 3'], resolution: Resolution
) -> Float[Array, 't _ _ 3']:
  return resize_video(normalize_frames(frames), resolution)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _encode_piece(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    video: Float[Array, '1 t h w 3'] | UInt8[Array, '1 t h w 3'],
    start: Array,
    keep: Bool[Array, 't'],
) -> PyTree:
  """Writes the features of a window into those of the whole video."""
  if video.dtype == jnp.uint8:
    video = normalize_frames(video)
  encoded = functions.encode_video(params, video)
  return padding.write_window(features, encoded, start, keep)


@functools.partial(jax.jit, static_argnums=0)
def _track_features(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[Array, 'n 3'],
    extent: Extent,
) -> Tracks:
  return padding.track_chunk(functions, params, features, query_points, extent)
