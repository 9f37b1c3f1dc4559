"""Whole-video tracking, in bounded memory and with few compilations.

Frames are resized and encoded a few at a time, queries are tracked in chunks,
and both are padded to what was compiled before; none of this changes a result.
Where a track depends on the other queries they are tracked all together, unless
the caller asks for chunks, each of which is then a set of its own.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import itertools
import math
import tempfile
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.geometry import rescale_positions
from tapjax.geometry import rescale_query_points
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.media.lazy import LazyFrames
from tapjax.models.contract import Extent
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.tracking import long_videos
from tapjax.tracking import padding
from tapjax.tracking.checks import check_frames
from tapjax.types import PyTree
from tapjax.types import Tracks

FRAME_CHUNK = long_videos.FRAME_CHUNK
Report = long_videos.Report
# What running a program takes besides its arrays, as measured on CPUs.
_RUNTIME = 24 * 2**20


class PreparedVideo(NamedTuple):
  """A video at the model resolution, and the resolution it came with.

  Frames that need no resizing are as they came, and else floats in [-1, 1].
  Those of `LazyFrames` are held all at once but by a tracker with a chain.
  """

  frames: (
      UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'] | LazyFrames
  )
  original: Resolution


def track_video(
    functions: TrackerFunctions,
    params: Params,
    video: PreparedVideo,
    query_points: Float[np.ndarray, 'n 3'],
    *,
    query_chunk: int | None = None,
    frame_chunk: int | None = None,
    window: int | None = None,
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
    window: frames to hold the features of; see `tapjax.tracking.long_videos`.
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
  mesh = _make_mesh(devices)
  if window is not None:
    windows = long_videos.choose_windows(
        functions,
        window,
        len(points),
        num_devices=mesh.size,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
    )
    tracks = long_videos.track_windows(
        functions, params, video.frames, points, windows, mesh, report
    )
  elif chain is not None and num_frames > 2 * chain.window:
    tracks = long_videos.track_chain(
        functions,
        chain,
        params,
        video.frames,
        points,
        query_chunk or max(1, long_videos.ROWS_PER_CHUNK // chain.window),
        frame_chunk or long_videos.FRAME_CHUNK,
        report,
    )
  else:
    params = parallel.replicate(mesh, params)
    sets = _list_sets(functions, len(points), query_chunk)
    tracks = long_videos.join_rows(
        padding.track_shared(
            functions,
            params,
            np.asarray(video.frames),
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
    on_disk: bool = False,
) -> int:
  """Compiles what `track_video` needs for videos of up to `num_frames`.

  Returns:
    Bytes of memory that tracking such a video takes, in frames of
    `resolution`, besides the parameters and the caller's own frames; resized
    ones count unless they are on disk.
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
  dtype = _get_dtype(functions, resolution)
  is_resized = dtype != np.uint8
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
  on_host *= 0 if on_disk else 2 if is_resized else 1
  memory = program.memory - long_videos.count_bytes(params) + _RUNTIME
  if jax.default_backend() == 'cpu':
    # Virtual devices share the memory of the host.
    memory *= mesh.size
  return on_host + memory


def fit_window(
    functions: TrackerFunctions,
    params: Params,
    num_frames: int,
    num_queries: int,
    resolution: Resolution,
    max_memory: int,
    *,
    query_chunk: int | None = None,
    frame_chunk: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> int | None:
  """Returns how many frames to hold at once, None if all of them may be.

  Args:
    functions: the tracker.
    params: its parameters.
    num_frames: of the video.
    num_queries: to track.
    resolution: of the caller's frames.
    max_memory: bytes that tracking may take, besides frames, which are the
      caller's own or on disk.
    query_chunk: as for `track_video`.
    frame_chunk: as for `track_video`.
    devices: as for `track_video`.

  Raises:
    ValueError: no window suffices, or the tracker has none.
  """
  features = padding.describe_features(functions, 1, 1)
  has_windows = functions.chain is None and functions.queries_independent
  if not has_windows or max_memory > num_frames * long_videos.count_bytes(
      features
  ):
    needed = warm_up(
        functions,
        params,
        num_frames,
        num_queries,
        resolution,
        query_chunk=query_chunk,
        frame_chunk=frame_chunk,
        devices=devices,
        on_disk=True,
    )
    if needed <= max_memory:
      return None
    if not has_windows:
      raise ValueError(
          f'max_memory must be at least {needed / 1e6:.0f} MB for this video '
          f'and model; got {max_memory / 1e6:.0f} MB - cut the video, or '
          'choose a smaller resolution'
      )
  return long_videos.fit_windows(
      functions,
      params,
      num_frames,
      num_queries,
      _get_dtype(functions, resolution),
      max_memory,
      _make_mesh(devices),
      query_chunk=query_chunk,
      frame_chunk=frame_chunk,
  ).length


def prepare_video(
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    resolution: Resolution,
    *,
    on_disk: bool = False,
) -> PreparedVideo:
  """Resizes a video as it is read, so that it is never held at full size.

  On disk, frames are in a temporary file that goes when the video does.
  """
  sizes: set[Resolution] = set()
  resized: Iterator[np.ndarray] = _resize_blocks(blocks, resolution, sizes)
  first = next(resized, None)
  if first is None:
    raise ValueError('the video must have at least one frame; got none')
  resized = itertools.chain([first], resized)
  frames = _store(resized) if on_disk else np.concatenate(list(resized))
  return PreparedVideo(frames, sizes.pop())


def _resize_blocks(
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    resolution: Resolution,
    sizes: set[Resolution],
) -> Iterator[UInt8[np.ndarray, '_ h w 3'] | Float[np.ndarray, '_ h w 3']]:
  """Resizes blocks one by one, and notes of what size they were."""
  for block in blocks:
    check_frames(block)
    sizes.add(block.shape[1:3])
    if len(sizes) > 1:
      raise ValueError(
          f'blocks must all have frames of one size; got {sorted(sizes)}'
      )
    if block.shape[1:3] == tuple(resolution):
      yield block
      continue
    missing = FRAME_CHUNK - len(block)
    padded = np.pad(block, ((0, max(missing, 0)), (0, 0), (0, 0), (0, 0)))
    frames = parallel.fetch(_prepare_frames(padded, resolution))
    yield frames[: len(block)]


def _store(blocks: Iterable[np.ndarray]) -> np.ndarray:
  """Returns the frames of all blocks in a temporary file."""
  num_frames = 0
  with tempfile.TemporaryFile() as file:
    for block in blocks:
      file.write(block.tobytes())
      num_frames += len(block)
    file.flush()
    return np.memmap(file, block.dtype, 'r', 0, (num_frames, *block.shape[1:]))


def split_frames(
    frames: UInt8[np.ndarray, 't h w 3'],
) -> Iterator[UInt8[np.ndarray, '_ h w 3']]:
  """Cuts a video in memory into the blocks that `prepare_video` takes."""
  for start in range(0, len(frames), FRAME_CHUNK):
    yield frames[start : start + FRAME_CHUNK]


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
  size = max(1, long_videos.ROWS_PER_CHUNK // num_frames)
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
  return long_videos.join_rows(parts)


def _get_dtype(functions: TrackerFunctions, resolution: Resolution) -> np.dtype:
  """Returns the type of frames that came in some resolution, when prepared."""
  is_resized = tuple(resolution) != functions.resolution
  return np.dtype(np.float32 if is_resized else np.uint8)


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


@functools.partial(jax.jit, static_argnums=1)
def _prepare_frames(
    frames: UInt8[Array, 't h w 3'], resolution: Resolution
) -> Float[Array, 't _ _ 3']:
  return resize_video(normalize_frames(frames), resolution)


@functools.partial(jax.jit, static_argnums=0)
def _track_features(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[Array, 'n 3'],
    extent: Extent,
) -> Tracks:
  return padding.track_chunk(functions, params, features, query_points, extent)
