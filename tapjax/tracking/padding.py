"""Videos of many lengths through few compiled programs.

A program is compiled for a length and a number of queries. Videos are padded to
a few of both, and a program works on no more than the true frames and queries:
it encodes as many windows of frames and tracks as many chunks of queries as it
is told, and knows where the video ends. Padding changes no result.

```
PaddedVideo ──encode windows──► features ──track chunks──► tracks
                     └─────────── Progress ───────────┘
```

The same program does a part of the work or all of it, so that one can say how
far it is. Several devices either work on a video each, or share one: each then
encodes a part of the frames, gets all features, and tracks a part of the
queries.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
import functools
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array
from jaxtyping import Bool
from jaxtyping import Float
from jaxtyping import Int
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.models.contract import describe_params
from tapjax.models.contract import estimate_tracks
from tapjax.models.contract import Extent
from tapjax.models.contract import NumFrames
from tapjax.models.contract import Params
from tapjax.models.contract import TrackerFunctions
from tapjax.types import PyTree
from tapjax.types import Tracks

# Frames encoded at once for each on which features depend, to either side.
_FRAMES_PER_CONTEXT = 8
# Queries times frames that are refined at once, unless the caller says. Windows
# of long videos take `long_videos.ROWS_PER_CHUNK`, not measured with more.
_ROWS_ON_CPU = 2560
_ROWS_ON_ACCELERATOR = 2**15
# Rows of tracks come in multiples of this; only true ones cost time.
_QUERY_CAPACITY = 1024
# Where queries are tracked together there is a row for each.
_SET_CAPACITY = 64
MOST_LENGTHS = 4
# What was compiled for each tracker and its devices and chunks.
_SIZES: dict[Hashable, list['Sizes']] = {}
# Of so many images at once a convolution takes no memory worth counting.
_FEW_IMAGES = 8
# Reports of the encoding of a video.
_MOST_PARTS = 20


class Sizes(NamedTuple):
  """What a program is compiled for, besides the video's resolution.

  Attributes:
    num_frames: of the longest video.
    num_queries: the most of them.
    frame_chunk: frames that a window adds to those encoded before.
    query_chunk: queries that are tracked at once.
  """

  num_frames: int
  num_queries: int
  frame_chunk: int
  query_chunk: int


class PaddedVideo(NamedTuple):
  """A video at the model's resolution, padded, and its queries there.

  Only the first `num_frames` frames and `num_queries` queries are true. Query
  points are (t, y, x). Frames of floats are in [-1, 1].
  """

  frames: (
      UInt8[Array | np.ndarray, '*d t h w 3']
      | Float[Array | np.ndarray, '*d t h w 3']
  )
  num_frames: Int[Array | np.ndarray, '*d']
  query_points: Float[Array | np.ndarray, '*d n 3']
  num_queries: Int[Array | np.ndarray, '*d']


class Work(NamedTuple):
  """What one call is to do: these windows of frames, then these queries."""

  first_window: Int[np.ndarray, '*d']
  end_window: Int[np.ndarray, '*d']
  first_query: Int[np.ndarray, '*d']
  end_query: Int[np.ndarray, '*d']


class Progress(NamedTuple):
  """How far the work on a video has come; zeros are where it has not."""

  features: PyTree
  tracks: Tracks


# The first of some numbers and the one behind the last.
Range = tuple[int, int]
Whole = tuple[Params, PaddedVideo | None]
Cut = tuple[PaddedVideo | None, Work]


class Program(NamedTuple):
  """A compiled program, and what it takes.

  Attributes:
    run: does some of the work.
    memory: bytes on each device while it runs, with all that goes in and out.
  """

  run: Callable[[Whole, Cut, Progress], Progress]
  memory: int


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


def choose_sizes(
    functions: TrackerFunctions,
    num_frames: int,
    num_queries: int,
    *,
    num_devices: int = 1,
    frame_chunk: int | None = None,
    query_chunk: int | None = None,
) -> Sizes:
  """Returns the sizes of a program for videos of up to `num_frames`.

  Chunks fit the caches of a CPU or fill an accelerator, unless the caller says,
  and cut what a device gets of `num_queries` evenly. More queries than these
  are no problem.
  """
  on_cpu = jax.default_backend() == 'cpu'
  context = functions.temporal_context
  if frame_chunk is None:
    # What windows share is encoded twice, so they are long where there is
    # context.
    most = max(4 if on_cpu else 8, _FRAMES_PER_CONTEXT * context)
    inner = max(1, num_frames - 2 * context)
    frame_chunk = math.ceil(inner / math.ceil(inner / most))
  frame_chunk = min(frame_chunk, num_frames)
  if not functions.queries_independent:
    return Sizes(num_frames, num_queries, frame_chunk, num_queries)
  if query_chunk is None:
    query_chunk = max(
        1, (_ROWS_ON_CPU if on_cpu else _ROWS_ON_ACCELERATOR) // num_frames
    )
  share = math.ceil(num_queries / num_devices)
  query_chunk = math.ceil(share / math.ceil(share / query_chunk))
  capacity = round_capacity(functions, num_queries)
  capacity = math.ceil(capacity / query_chunk) * query_chunk
  return Sizes(num_frames, capacity, frame_chunk, query_chunk)


def round_capacity(functions: TrackerFunctions, num_queries: int) -> int:
  """Returns a round number of rows for queries."""
  capacity, factor = _SET_CAPACITY, 4
  if functions.queries_independent:
    capacity, factor = _QUERY_CAPACITY, 8
  while capacity < num_queries:
    capacity *= factor
  return capacity


def round_up(number: int) -> int:
  """Returns the power of two that is at least `number`, from 1 on."""
  return 1 << (number - 1).bit_length()


def count_windows(
    functions: TrackerFunctions, sizes: Sizes, num_frames: int
) -> int:
  """Returns how many windows encode a video."""
  inner = max(1, num_frames - 2 * functions.temporal_context)
  return math.ceil(inner / sizes.frame_chunk)


def pad_video(
    frames: UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'],
    query_points: Float[np.ndarray, 'n 3'],
    sizes: Sizes,
) -> PaddedVideo:
  """Pads frames and queries to the sizes of a program."""
  padding = sizes.num_frames - len(frames)
  rows = sizes.num_queries - len(query_points)
  if padding < 0 or rows < 0:
    raise ValueError(
        f'sizes must be at least the {len(frames)} frames and '
        f'{len(query_points)} queries of the video; got {sizes}'
    )
  if padding:
    frames = np.pad(frames, ((0, padding), (0, 0), (0, 0), (0, 0)))
  return PaddedVideo(
      frames=frames,
      num_frames=np.asarray(len(frames) - padding, np.int32),
      query_points=np.pad(query_points.astype(np.float32), ((0, rows), (0, 0))),
      num_queries=np.asarray(len(query_points), np.int32),
  )


def track_padded(
    functions: TrackerFunctions,
    params: Params,
    videos: Sequence[PaddedVideo],
    sizes: Sizes,
    mesh: Mesh,
) -> list[Tracks]:
  """Tracks videos of one padded shape at once, one on each device.

  There may be fewer videos than devices. `params` are replicated over `mesh`.

  Returns:
    Tracks of the true frames and queries, at the model's resolution.
  """
  work = [
      _make_work(
          (0, count_windows(functions, sizes, int(video.num_frames))),
          (0, int(video.num_queries)),
      )
      for video in videos
  ]
  idle = mesh.size - len(videos)
  batch = _stack([*videos, *[videos[0]] * idle])
  shares = _stack([*work, *[_make_work((0, 0), (0, 0))] * idle])
  dtypes = list_dtypes(videos[0].frames.dtype, params)
  program = compile_program(functions, sizes, mesh, dtypes, is_shared=False)
  progress = make_progress(functions, sizes, mesh)
  progress = program.run(
      (params, None), parallel.shard(mesh, (batch, shares)), progress
  )
  tracks = parallel.fetch(progress.tracks)

  def cut(row: int, video: PaddedVideo) -> Tracks:
    return jax.tree.map(
        lambda array: array[row, : video.num_queries, : video.num_frames],
        tracks,
    )

  return [cut(row, video) for row, video in enumerate(videos)]


def track_shared(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'],
    query_points: Float[np.ndarray, 'n 3'],
    sizes: Sizes,
    mesh: Mesh,
    report: Callable[[str, int, int], None] | None = None,
) -> Tracks:
  """Tracks one video, all devices together.

  Where queries depend on each other they are one set, on the first device.

  Args:
    functions: the tracker.
    params: its parameters, replicated over `mesh`.
    frames: at the resolution of the model; those of floats in [-1, 1].
    query_points: (t, y, x) there.
    sizes: of the program.
    mesh: the devices.
    report: called after every part of the work; without it there is one.
  """
  num_frames, num_queries = len(frames), len(query_points)
  video = parallel.replicate(mesh, pad_video(frames, query_points, sizes))
  dtypes = list_dtypes(frames.dtype, params)
  program = compile_program(functions, sizes, mesh, dtypes, is_shared=True)
  progress = make_progress(functions, sizes, mesh)
  num_windows = count_windows(functions, sizes, num_frames)
  windows = _split(0, num_windows, mesh.size, 1)
  queries = _split(0, num_queries, mesh.size, sizes.query_chunk)

  def advance(
      progress: Progress,
      encoded: Sequence[Range],
      tracked: Sequence[Range],
  ) -> Progress:
    work = _stack(list(map(_make_work, encoded, tracked)))
    shares = parallel.shard(mesh, (None, work))
    return program.run((params, video), shares, progress)

  if report is None:
    progress = advance(progress, windows, queries)
  else:
    nothing = [(0, 0)] * mesh.size
    step = math.ceil(windows[0][1] / _MOST_PARTS)
    encoding = [(part, nothing) for part in _cut(windows, step)]
    tracking = [(nothing, part) for part in _cut(queries, sizes.query_chunk)]
    for stage, total, parts in (
        ('encode', num_frames, encoding),
        ('track', num_queries, tracking),
    ):
      report(stage, 0, total)
      for done, part in enumerate(parts, 1):
        progress = advance(progress, *part)
        jax.block_until_ready(progress)
        report(stage, total * done // len(parts), total)
  tracks = parallel.fetch(progress.tracks)
  return jax.tree.map(
      lambda array: np.concatenate(
          [
              rows[start:stop, :num_frames]
              for rows, (start, stop) in zip(array, queries, strict=True)
          ]
      ),
      tracks,
  )


def choose_program(
    functions: TrackerFunctions,
    num_frames: int,
    num_queries: int,
    mesh: Mesh,
    *,
    frame_chunk: int | None = None,
    query_chunk: int | None = None,
) -> Sizes:
  """Returns the sizes of the program for a video, compiled before if possible.

  A program serves videos of half its length and more. The first one of a
  tracker has the very size of its video, and later ones are of round sizes, so
  that a single video wastes nothing and many of them compile little.
  """
  known = _SIZES.setdefault((functions, mesh, frame_chunk, query_chunk), [])

  def fits(sizes: Sizes) -> bool:
    if num_frames < functions.shortest_padded:
      fits_frames = sizes.num_frames == num_frames
    else:
      fits_frames = num_frames <= sizes.num_frames <= 2 * num_frames
    most = max(4 * num_queries, _SET_CAPACITY)
    return (
        fits_frames
        and num_queries <= sizes.num_queries
        and (functions.queries_independent or sizes.num_queries <= most)
    )

  if fitting := [sizes for sizes in known if fits(sizes)]:
    return min(fitting)
  if known:
    if not functions.queries_independent:
      num_queries = round_capacity(functions, num_queries)
    if num_frames >= functions.shortest_padded:
      num_frames = round_up(num_frames)
  sizes = choose_sizes(
      functions,
      num_frames,
      num_queries,
      num_devices=mesh.size,
      frame_chunk=frame_chunk,
      query_chunk=query_chunk,
  )
  known.append(sizes)
  return sizes


def make_progress(
    functions: TrackerFunctions, sizes: Sizes, mesh: Mesh
) -> Progress:
  """Returns what is there before the work begins, on every device."""
  # NumPy's zeros take no memory until they are written, and no compilation.
  zeros = jax.tree.map(
      lambda leaf: np.zeros((mesh.size, *leaf.shape), leaf.dtype),
      describe_progress(functions, sizes),
  )
  return parallel.shard(mesh, zeros)


@functools.cache
def describe_progress(functions: TrackerFunctions, sizes: Sizes) -> Progress:
  """Returns the shapes of a video's features and tracks."""
  return Progress(
      describe_features(functions, sizes.num_frames, sizes.frame_chunk),
      describe_tracks(functions, sizes.num_frames, sizes.num_queries),
  )


@functools.cache
def describe_features(
    functions: TrackerFunctions, num_frames: int, frame_chunk: int
) -> PyTree:
  """Returns the shapes of the features `[1, t, ...]` of a video."""
  window = jax.ShapeDtypeStruct(
      (
          1,
          _count_window_frames(functions, num_frames, frame_chunk),
          *functions.resolution,
          3,
      ),
      jnp.float32,
  )
  features = jax.eval_shape(
      functions.encode_video, describe_params(functions), window
  )
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          (1, num_frames, *leaf.shape[2:]), leaf.dtype
      ),
      features,
  )


@functools.cache
def describe_tracks(
    functions: TrackerFunctions, num_frames: int, num_queries: int
) -> Tracks:
  """Returns the shapes of the tracks of some queries through a video."""
  count = np.zeros((), np.int32)
  # Where queries are tracked together they may be too many to look at.
  tracks = jax.eval_shape(
      functools.partial(track_chunk, functions),
      describe_params(functions),
      describe_features(functions, num_frames, 1),
      jax.ShapeDtypeStruct((1, 3), jnp.float32),
      Extent(count, count),
  )
  return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
          (num_queries, *leaf.shape[1:]), leaf.dtype
      ),
      tracks,
  )


def list_dtypes(frames: np.dtype, params: Params) -> tuple[np.dtype, ...]:
  """Returns types that a program is compiled for: of frames and weights."""
  return (frames, *(leaf.dtype for leaf in jax.tree.leaves(params)))


@functools.cache
def compile_program(
    functions: TrackerFunctions,
    sizes: Sizes,
    mesh: Mesh,
    dtypes: tuple[np.dtype, ...],
    *,
    is_shared: bool,
) -> Program:
  """Returns the program, the same for the same tracker, sizes and devices.

  Args:
    functions: the tracker.
    sizes: of its videos.
    mesh: the devices.
    dtypes: as `list_dtypes` returns them.
    is_shared: whether the devices share a video, or else have one each.
  """

  def run(whole: Whole, cut: Cut, progress: Progress) -> Progress:
    params, shared = whole
    own, work, progress = jax.tree.map(lambda leaf: leaf[0], (*cut, progress))
    video = shared if is_shared else own
    assert video is not None, 'a video is either shared or the own'
    features = _encode(
        functions,
        sizes.frame_chunk,
        params,
        jnp.asarray(video.frames),
        video.num_frames,
        (work.first_window, work.end_window),
        progress.features,
    )
    if is_shared and mesh.size > 1:
      # Every frame is new on one device, and zero on the others until then.
      features = jax.tree.map(
          lambda new, old: old + parallel.total(new - old),
          features,
          progress.features,
      )
    tracks = _track(
        functions, sizes, params, video, work, features, progress.tracks
    )
    return jax.tree.map(lambda leaf: leaf[None], Progress(features, tracks))

  dtype, *weight_dtypes = dtypes
  params = describe_params(functions, tuple(weight_dtypes))
  video = _describe_video(functions, sizes, dtype)
  work = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
      _make_work((0, 0), (0, 0)),
  )
  whole = (params, video if is_shared else None)
  cut = (None if is_shared else video, work)
  return Program(
      *compile_measured(
          parallel.map_shards(run, mesh, donate=(2,)),
          parallel.describe_replicated(mesh, whole),
          *parallel.describe_shards(
              mesh, (cut, describe_progress(functions, sizes))
          ),
      )
  )


def compile_measured(
    function: jax.stages.Wrapped, *shapes: PyTree
) -> tuple[Callable[..., PyTree], int]:
  """Returns a compiled function, and its bytes with all it takes and gives."""
  traced = function.trace(*shapes)
  compiled = traced.lower().compile()
  analysis = compiled.memory_analysis()
  assert analysis is not None, 'CPUs, GPUs and TPUs all analyse programs'
  memory = _count_workspace(traced.jaxpr) + (
      analysis.argument_size_in_bytes
      + analysis.output_size_in_bytes
      + analysis.temp_size_in_bytes
      - analysis.alias_size_in_bytes
  )
  return compiled, memory


def _count_workspace(jaxpr: Any) -> int:
  """Returns the bytes that the largest convolution takes besides its arrays.

  The CPU's library lays out what each output sees, and no analysis tells. For
  a few images at once that was measured to be little, for many all of it.
  """
  if jax.default_backend() != 'cpu':
    return 0
  largest = 0
  for equation in jaxpr.eqns:
    inner = jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
    )
    for value in inner:
      if hasattr(value, 'eqns'):
        largest = max(largest, _count_workspace(value))
    if equation.primitive.name == 'conv_general_dilated':
      kernel, output = equation.invars[1].aval, equation.outvars[0].aval
      if output.shape[0] <= _FEW_IMAGES:
        continue
      _, channel_axis, *_ = equation.params['dimension_numbers'].out_spec
      seen = kernel.size // output.shape[channel_axis]
      cells = output.size // output.shape[channel_axis]
      largest = max(largest, cells * seen * output.dtype.itemsize)
  return largest


def _describe_video(
    functions: TrackerFunctions, sizes: Sizes, dtype: np.dtype
) -> PyTree:
  """Returns the shapes of a padded video."""
  shape = (sizes.num_frames, *functions.resolution, 3)
  return jax.eval_shape(
      lambda: PaddedVideo(
          jnp.zeros(shape, dtype),
          jnp.zeros((), jnp.int32),
          jnp.zeros((sizes.num_queries, 3), jnp.float32),
          jnp.zeros((), jnp.int32),
      )
  )


def _track(
    functions: TrackerFunctions,
    sizes: Sizes,
    params: Params,
    video: PaddedVideo,
    work: Work,
    features: PyTree,
    tracks: Tracks,
) -> Tracks:
  """Tracks the queries that the work names, a few at a time."""
  size = sizes.query_chunk

  def add_chunk(index: Array, tracks: Tracks) -> Tracks:
    start = work.first_query + index * size
    points = jax.lax.dynamic_slice_in_dim(video.query_points, start, size)
    # Padding repeats the first query, so that all numbers are finite.
    count = jnp.clip(work.end_query - start, 0, size)
    is_query = jnp.arange(size) < count
    points = jnp.where(is_query[:, None], points, video.query_points[:1])
    extent = Extent(video.num_frames, count)
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
            whole, part, start, axis=0
        ),
        tracks,
        track_chunk(functions, params, features, points, extent),
    )

  num_chunks = -(-(work.end_query - work.first_query) // size)
  return jax.lax.fori_loop(0, num_chunks, add_chunk, tracks)


def track_chunk(
    functions: TrackerFunctions,
    params: Params,
    features: PyTree,
    query_points: Float[Array, 'n 3'],
    extent: Extent | None = None,
) -> Tracks:
  """Tracks some queries through a video that was encoded."""
  points = query_points[None]
  queries = functions.describe_queries(params, features, points)
  estimate = estimate_tracks(
      functions, params, features, queries, points, None, extent
  )
  tracks = functions.finalize_tracks(estimate.states)
  return jax.tree.map(lambda array: array[0], tracks)


def encode_frames(
    functions: TrackerFunctions,
    params: Params,
    frames: UInt8[Array, 't h w 3'] | Float[Array, 't h w 3'],
    num_frames: NumFrames,
    frame_chunk: int,
    share: tuple[int | Array, int] = (0, 1),
) -> PyTree:
  """Encodes a padded video a few frames at a time, as if all at once.

  With `share`, an index and a number of shares, only that share of the frames
  is encoded. Features of other frames are zero, so the sum over all shares has
  those of all frames.
  """
  features = jax.tree.map(
      lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
      describe_features(functions, len(frames), frame_chunk),
  )
  inner = jnp.maximum(1, num_frames - 2 * functions.temporal_context)
  count = -(-inner // min(frame_chunk, len(frames)))
  index, num_shares = share
  size = -(-count // num_shares)
  windows = (index * size, jnp.minimum((index + 1) * size, count))
  return _encode(
      functions, frame_chunk, params, frames, num_frames, windows, features
  )


def _encode(
    functions: TrackerFunctions,
    frame_chunk: int,
    params: Params,
    frames: UInt8[Array, 't h w 3'] | Float[Array, 't h w 3'],
    num_frames: NumFrames,
    windows: tuple[int | Array, int | Array],
    features: PyTree,
) -> PyTree:
  """Encodes some windows of the frames; padding stays as it was.

  Windows overlap by the frames that features depend on. At its ends the video
  itself ends, and the last window begins early enough to be of full length.
  """
  context, chunk = functions.temporal_context, min(frame_chunk, len(frames))
  length = _count_window_frames(functions, len(frames), chunk)

  def add_window(index: Array, features: PyTree) -> PyTree:
    last_start = jnp.maximum(num_frames - length, 0)
    start = jnp.minimum(index * chunk, last_start)
    window = jax.lax.dynamic_slice_in_dim(frames, start, length)
    if window.dtype == jnp.uint8:
      window = normalize_frames(window)
    encoded = functions.encode_video(params, window[None], num_frames - start)
    numbers = start + jnp.arange(length)
    # What a window before this one has encoded is kept.
    first = jnp.where(index == 0, 0, index * chunk + context)
    is_last = start + length >= num_frames
    end = jnp.where(is_last, num_frames, start + length - context)
    keep = (numbers >= first) & (numbers < end)
    return _write_window(features, encoded, start, keep)

  return jax.lax.fori_loop(*windows, add_window, features)


def _write_window(
    features: PyTree,
    encoded: PyTree,
    start: Array,
    keep: Bool[Array, 't'],
) -> PyTree:
  """Writes some frames of a window from `start` on into a whole video's."""

  def write(whole: Array, part: Array) -> Array:
    old = jax.lax.dynamic_slice_in_dim(whole, start, part.shape[1], axis=1)
    mask = keep.reshape(1, -1, *(1,) * (part.ndim - 2))
    merged = jnp.where(mask, part, old)
    return jax.lax.dynamic_update_slice_in_dim(whole, merged, start, axis=1)

  return jax.tree.map(write, features, encoded)


def _count_window_frames(
    functions: TrackerFunctions, num_frames: int, frame_chunk: int
) -> int:
  return min(num_frames, frame_chunk + 2 * functions.temporal_context)


def _split(start: int, stop: int, parts: int, unit: int) -> list[Range]:
  """Cuts a range into equal parts, but for the unit that is not cut."""
  num_units = math.ceil((stop - start) / unit)
  size = math.ceil(num_units / parts) * unit
  ends = [min(start + i * size, stop) for i in range(parts + 1)]
  return list(itertools.pairwise(ends))


def _cut(ranges: Sequence[Range], step: int) -> list[list[Range]]:
  """Returns the ranges step by step, all of them at once."""
  num_steps = max(math.ceil((stop - start) / step) for start, stop in ranges)
  return [
      [
          (min(start + i * step, stop), min(start + (i + 1) * step, stop))
          for start, stop in ranges
      ]
      for i in range(num_steps)
  ]


def _make_work(windows: Range, queries: Range) -> Work:
  return Work(*(np.asarray(end, np.int32) for end in (*windows, *queries)))


def _stack(trees: Sequence[PyTree]) -> PyTree:
  return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
