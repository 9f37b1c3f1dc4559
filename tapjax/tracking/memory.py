"""Memory of a plan, estimated from shapes, and windows that fit a budget."""

import ctypes
import dataclasses
import math
import sys

import jax
from jaxtyping import Float
import numpy as np

from tapjax.geometry import Resolution
from tapjax.media import encoding
from tapjax.models.contract import Params
from tapjax.models.contract import trace_program
from tapjax.models.contract import TrackerFunctions
from tapjax.tracking import prepare
from tapjax.tracking import shapes
from tapjax.tracking.options import Options
from tapjax.tracking.peak_bytes import estimate_peak_bytes
from tapjax.tracking.plan import make_plan
from tapjax.tracking.plan import Plan
from tapjax.tracking.programs import describe_arguments
from tapjax.tracking.programs import make_stages
from tapjax.visualization import overlay

# Memory of a running program besides its arrays, as measured on CPUs.
_RUNTIME = 24 * 2**20
# Memory of a decoder, and RGB frames of which it takes the memory besides, as
# measured on two cores.
_DECODER = 24 * 2**20
_DECODED_FRAMES = 5
# Positions are rescaled at the end, into a copy.
_COPIES_OF_TRACKS = 2


def estimate_memory(
    plan: Plan,
    params: Params,
    resolution: Resolution,
    *,
    on_disk: bool = False,
) -> int:
  """Returns the bytes that tracking by a plan takes, from shapes alone.

  Parameters and the caller's own frames come on top, except for resized frames
  that are in memory.

  Args:
    plan: for the video and its queries.
    params: of the tracker.
    resolution: of the caller's frames.
    on_disk: whether resized frames are in a file.
  """
  functions = plan.functions
  dtype = get_frame_dtype(functions, resolution)
  dtypes = (dtype, *(leaf.dtype for leaf in jax.tree.leaves(params)))
  peak = _estimate_stages(plan, dtypes) - shapes.count_bytes(params)
  if jax.default_backend() == 'cpu':
    # Virtual devices share the memory of the host.
    peak *= plan.mesh.size
  calls = math.ceil(plan.num_queries / plan.queries_per_call)
  arguments = describe_arguments(functions, plan.shape, plan.mesh, dtypes)
  _, _, queries, _, _, memory = arguments.track
  kept = calls * shapes.count_bytes((queries, memory))
  tracks = shapes.count_bytes(
      shapes.describe_tracks(functions, plan.shape.num_frames)
  )
  tracks = tracks * plan.num_queries * plan.num_frames // plan.shape.num_frames
  frames = 0
  if not on_disk:
    frames = plan.num_frames * 3 * math.prod(functions.resolution)
    # Blocks of frames are resized one by one, and joined at the end.
    frames *= dtype.itemsize * (2 if dtype != np.uint8 else 1)
  tracking = peak + kept + _COPIES_OF_TRACKS * tracks
  resizing = estimate_resizing(functions, resolution)
  return frames + max(tracking, resizing) + _RUNTIME


def estimate_resizing(
    functions: TrackerFunctions, resolution: Resolution
) -> int:
  """Returns the bytes that resizing a block of frames takes, with the block."""
  height, width = resolution
  size = height, width
  if size == functions.resolution:
    return 0
  return estimate_peak_bytes(
      prepare.trace_resizing(size, functions.resolution)
  ) + 3 * math.prod(size) * prepare.count_block_frames(size)


def check_frame_budget(
    functions: TrackerFunctions,
    resolution: Resolution,
    max_memory: int,
    tracking: int = 0,
) -> None:
  """Raises ValueError if a budget is not enough for the frames of a video file.

  They are read and resized, and after tracking read again, drawn over and
  encoded. The program itself comes on top.

  Args:
    functions: the tracker.
    resolution: of the frames.
    max_memory: the budget.
    tracking: bytes that tracking takes while frames are drawn, as in a stream.
  """
  block = prepare.count_block_frames(resolution)
  frame = 3 * math.prod(resolution)
  # Frames of a block are decoded one by one, and joined.
  reading = _DECODER + (_DECODED_FRAMES + 2 * block) * frame
  writing = overlay.estimate_bytes(resolution) + encoding.estimate_bytes(
      resolution
  )
  needed = tracking + reading
  needed += max(writing, estimate_resizing(functions, resolution))
  if needed > max_memory:
    height, width = resolution
    raise ValueError(
        f'max_memory must be at least {needed / 1e6:.0f} MB for frames of '
        f'{width}x{height}; got {max_memory / 1e6:.0f} MB - allow more, or '
        'shrink the video first'
    )


def fit_window(
    functions: TrackerFunctions,
    params: Params,
    num_frames: int,
    query_points: Float[np.ndarray, 'n 3'],
    resolution: Resolution,
    max_memory: int,
    options: Options,
) -> int | None:
  """Returns the longest window that a budget is enough for.

  Args:
    functions: the tracker.
    params: its parameters.
    num_frames: of the video.
    query_points: (t, y, x) to track, at least one.
    resolution: of the caller's frames.
    max_memory: bytes that tracking may take, besides frames, which are the
      caller's own or on disk.
    options: of the call, without a window.

  Returns:
    Frames of a window; None if the budget is enough for the whole video.

  Raises:
    ValueError: no window fits, or the tracker has no windows.
  """

  def estimate(window: int | None) -> int:
    plan = make_plan(
        functions,
        num_frames,
        query_points,
        dataclasses.replace(options, window=window),
    )
    return estimate_memory(plan, params, resolution, on_disk=True)

  needed = estimate(None)
  if needed <= max_memory:
    return None
  video = 'this video and model'
  hint = 'cut the video, or choose a smaller resolution'
  length = shapes.round_up(num_frames)
  while length > 1:
    length //= 2
    try:
      needed = estimate(length)
    except ValueError:  # The tracker has no such windows.
      break
    if needed <= max_memory:
      return length
    video = f'{len(query_points)} points through {num_frames} frames'
    hint = 'track fewer points at a time, or choose a smaller resolution'
  raise ValueError(
      f'max_memory must be at least {needed / 1e6:.0f} MB for {video}; got '
      f'{max_memory / 1e6:.0f} MB - {hint}'
  )


def release_memory() -> None:
  """Returns memory that was freed to the system, where the C library can."""
  if sys.platform == 'linux':
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
      trim(0)


def get_frame_dtype(
    functions: TrackerFunctions, resolution: Resolution
) -> np.dtype:
  """Returns the type of frames of some resolution once they are prepared."""
  is_resized = tuple(resolution) != functions.resolution
  return np.dtype(np.float32 if is_resized else np.uint8)


def _estimate_stages(plan: Plan, dtypes: tuple[np.dtype, ...]) -> int:
  """Returns the bytes of the larger stage on one device."""
  stages = make_stages(plan.functions, plan.shape, plan.mesh)
  arguments = describe_arguments(plan.functions, plan.shape, plan.mesh, dtypes)
  return max(
      estimate_peak_bytes(trace_program(stages.encode, *arguments.encode)),
      estimate_peak_bytes(trace_program(stages.track, *arguments.track)),
  )
