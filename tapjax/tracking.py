"""Whole-video tracking: the five arrows of a tracker, in bounded memory.

Frames are resized and encoded a few at a time, queries are tracked in equal
padded chunks under one compiled loop. Neither changes a result. Where a track
depends on the other queries they are tracked all together, unless the caller
asks for chunks, each of which is then a set of its own.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax.geometry import normalize_frames
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.inputs import check_frames
from tapjax.models.base import Chain
from tapjax.models.base import Params
from tapjax.models.base import TrackerFunctions
from tapjax.types import PyTree
from tapjax.types import Tracks

FRAME_CHUNK = 8
# Queries times frames that are refined at once, unless the caller says.
_ROWS_PER_CHUNK = 2048

# Called with what is being done, how much of it is done, and how much there is.
Report = Callable[[str, int, int], None]


class PreparedVideo(NamedTuple):
  """A video at the model resolution, and the resolution it came with."""

  frames: Float[np.ndarray, 't h w 3']
  original: Resolution


def track_video(
    functions: TrackerFunctions,
    params: Params,
    video: PreparedVideo,
    query_points: Float[np.ndarray, 'n 3'],
    *,
    query_chunk: int | None = None,
    frame_chunk: int = FRAME_CHUNK,
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
    report: called after every chunk; without it all chunks of queries run in a
      single call to the device.

  Returns:
    Tracks in pixels of the original frames, in the order of the queries.
  """
  num_frames = len(video.frames)
  if not len(query_points):
    return _make_no_tracks(functions, params, num_frames)
  points = rescale_query_points(
      query_points, video.original, functions.resolution
  )

  def finish(tracks: Tracks) -> Tracks:
    positions = rescale_positions(
        tracks.positions, functions.resolution, video.original
    )
    return tracks._replace(positions=np.array(positions))

  chain = functions.chain
  if chain is not None and num_frames > 2 * chain.window:
    chunk = query_chunk or max(1, _ROWS_PER_CHUNK // chain.window)
    parts = _track_chain(
        functions,
        chain,
        params,
        video.frames,
        _chunk_queries(points, chunk),
        frame_chunk,
        report,
    )
    return finish(_join_chunks([parts], len(points)))
  features = encode_in_pieces(
      functions, params, video.frames, frame_chunk, report
  )
  return finish(
      track_features(
          functions,
          params,
          features,
          points,
          num_frames,
          query_chunk=query_chunk,
          report=report,
      )
  )


def track_features(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[Array | np.ndarray, 'n 3'],
    num_frames: int,
    *,
    query_chunk: int | None = None,
    report: Report | None = None,
) -> Tracks:
  """Tracks one query or more through a video that was encoded.

  As `track_video`, but queries and tracks are in pixels of the model.
  """
  points = jnp.asarray(query_points)
  if functions.queries_independent:
    chunk = query_chunk or count_queries_at_once(num_frames)
    calls = [_chunk_queries(points, chunk)]
    if report is not None:
      calls = [chunk[None] for chunk in calls[0]]
  else:
    # Padding would be tracked with the rest.
    sets = math.ceil(len(points) / (query_chunk or len(points)))
    calls = [chunk[None] for chunk in jnp.array_split(points, sets)]
  if report is not None:
    report('track', 0, len(points))
  parts = []
  done = 0
  for call in calls:
    parts.append(_fetch(_track_chunks(functions, params, features, call)))
    if report is not None:
      done += call.shape[0] * call.shape[1]
      report('track', min(done, len(points)), len(points))
  return _join_chunks(parts, len(points))


def count_queries_at_once(num_frames: int) -> int:
  """Returns how many queries are refined at once, unless the caller says."""
  return max(1, _ROWS_PER_CHUNK // num_frames)


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
    missing = FRAME_CHUNK - len(block)
    padded = np.pad(block, ((0, max(missing, 0)), (0, 0), (0, 0), (0, 0)))
    frames = _fetch(_prepare_frames(padded, resolution))
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
    frames: Float[np.ndarray, 't h w 3'],
    frame_chunk: int = FRAME_CHUNK,
    report: Report | None = None,
) -> PyTree:
  """Encodes a video a few frames at a time; the features are those of all."""
  num_frames = len(frames)
  pieces = _list_pieces(num_frames, frame_chunk, functions.temporal_context)
  features = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      _describe_features(functions, params, num_frames),
  )
  if report is not None:
    report('encode', 0, num_frames)
  for piece in pieces:
    window = frames[None, piece.start : piece.start + len(piece.keep)]
    features = _encode_piece(
        functions, params, features, window, piece.start, piece.keep
    )
    if report is not None:
      jax.block_until_ready(features)
      report('encode', piece.start + len(piece.keep), num_frames)
  return features


def _make_no_tracks(
    functions: TrackerFunctions, params: Params, num_frames: int
) -> Tracks:
  """Returns the tracks of no queries, with the fields that others have."""
  features = _describe_features(functions, params, num_frames)
  chunks = jax.ShapeDtypeStruct((1, 1, 3), jnp.float32)
  tracks = _track_chunks.eval_shape(functions, params, features, chunks)
  return jax.tree.map(
      lambda leaf: np.zeros((0, *leaf.shape[2:]), leaf.dtype), tracks
  )


def _track_chain(
    functions: TrackerFunctions,
    chain: Chain,
    params: Params,
    frames: Float[np.ndarray, 't h w 3'],
    chunks: Float[Array, 'k n 3'],
    frame_chunk: int,
    report: Report | None,
) -> Tracks:
  """Tracks chunks of queries through two windows of frames after two others.

  Only the features of these are held. Queries behind the first window need a
  second pass, back in time.
  """
  window = chain.window
  num_blocks = math.ceil(len(frames) / window)
  lowest, highest = (
      round(float(frame))
      for frame in (jnp.min(chunks[..., 0]), jnp.max(chunks[..., 0]))
  )
  pieces = list(range(min(lowest // window, num_blocks - 2), num_blocks - 1))
  if highest > 0:
    pieces += range(min(highest // window, num_blocks - 2), -1, -1)

  def encode(block: int) -> PyTree:
    rows = np.arange(block * window, (block + 1) * window)
    rows = np.minimum(rows, len(frames) - 1)
    return encode_in_pieces(functions, params, frames[rows], frame_chunk)

  progress = _begin_chain(chain, chunks, len(frames))
  blocks: dict[int, PyTree] = {}
  if report is not None:
    report('track', 0, len(pieces))
  for done, first in enumerate(pieces, 1):
    # What is behind is let go before what is ahead is encoded.
    blocks = {i: blocks[i] for i in (first, first + 1) if i in blocks}
    for block in (first, first + 1):
      if block not in blocks:
        blocks[block] = encode(block)
    progress = _advance_chain(
        functions,
        params,
        (blocks[first], blocks[first + 1]),
        first * window,
        progress,
    )
    if report is not None:
      jax.block_until_ready(progress)
      report('track', done, len(pieces))
  return _fetch(jax.vmap(chain.finish)(progress))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _begin_chain(
    chain: Chain, chunks: Float[Array, 'k n 3'], num_frames: int
) -> PyTree:
  return jax.vmap(lambda points: chain.begin(points, num_frames))(chunks)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def _advance_chain(
    functions: TrackerFunctions,
    params: Params,
    blocks: tuple[PyTree, PyTree],
    origin: Array,
    progress: PyTree,
) -> PyTree:
  """Brings chunk after chunk of queries as far as two blocks allow."""
  features = jax.tree.map(
      lambda *parts: jnp.concatenate(parts, axis=1), *blocks
  )
  chain = functions.chain
  assert chain is not None, 'only trackers with a chain come here'
  advance = functools.partial(chain.advance, params, features, origin)
  return jax.lax.map(advance, progress)


def _join_chunks(parts: list[Tracks], num_queries: int) -> Tracks:
  """Returns chunks `[k, n, ...]` of tracks as rows, without the padding."""

  def join(*arrays: np.ndarray) -> np.ndarray:
    rows = [array.reshape(-1, *array.shape[2:]) for array in arrays]
    return np.concatenate(rows)[:num_queries]

  return jax.tree.map(join, *parts)


def _fetch(tree: PyTree) -> PyTree:
  """Returns arrays of a device as NumPy's."""
  # Waiting raises what went wrong; NumPy aborts on arrays that failed.
  return jax.tree.map(np.asarray, jax.block_until_ready(tree))


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
    query_points: Float[Array, 'n 3'], chunk: int
) -> Float[Array, 'k m 3']:
  """Splits queries into equal chunks; the last one repeats the last query."""
  num_chunks = math.ceil(len(query_points) / chunk)
  size = math.ceil(len(query_points) / num_chunks)
  rows = jnp.minimum(jnp.arange(num_chunks * size), len(query_points) - 1)
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
    video: Float[Array, '1 t h w 3'],
    start: Array,
    keep: Bool[Array, 't'],
) -> PyTree:
  """Writes the features of a window into those of the whole video."""

  def write(whole: Array, part: Array) -> Array:
    old = jax.lax.dynamic_slice_in_dim(whole, start, part.shape[1], axis=1)
    mask = keep.reshape(1, -1, *(1,) * (part.ndim - 2))
    merged = jnp.where(mask, part, old)
    return jax.lax.dynamic_update_slice_in_dim(whole, merged, start, axis=1)

  return jax.tree.map(write, features, functions.encode_video(params, video))


@functools.partial(jax.jit, static_argnums=0)
def _track_chunks(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    chunks: Float[Array, 'k n 3'],
) -> Tracks:
  """Tracks chunk after chunk of queries, given at the model resolution."""

  def track_chunk(query_points: Float[Array, 'n 3']) -> Tracks:
    points = query_points[None]
    queries = functions.describe_queries(params, features, points)
    state = functions.initialize_tracks(params, features, queries, points)
    states, _ = functions.refine_tracks(params, features, queries, state)
    tracks = functions.finalize_tracks(states)
    return jax.tree.map(lambda array: array[0], tracks)

  return jax.lax.map(track_chunk, chunks)
