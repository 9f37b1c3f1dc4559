"""Videos at the resolution of a tracker, in memory or on disk."""

from collections.abc import Iterable
from collections.abc import Iterator
import functools
import itertools
import math
import tempfile
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from jaxtyping import Float
from jaxtyping import UInt8
import numpy as np

from tapjax import parallel
from tapjax.geometry import normalize_frames
from tapjax.geometry import resize_video
from tapjax.geometry import Resolution
from tapjax.media.lazy import LazyFrames
from tapjax.models.contract import trace_program
from tapjax.tracking.checks import check_frames

# Frames that are resized at once: fewer where they are large.
_BLOCK_FRAMES = 8
_BLOCK_PIXELS = 8 << 20


class PreparedVideo(NamedTuple):
  """A video at the model resolution, and its original resolution.

  Frames that need no resizing are uint8, others floats in [-1, 1]. Frames of
  `LazyFrames` are read segment by segment.
  """

  frames: (
      UInt8[np.ndarray, 't h w 3'] | Float[np.ndarray, 't h w 3'] | LazyFrames
  )
  original: Resolution


def count_block_frames(size: Resolution) -> int:
  """Returns the number of frames that are read and resized at once."""
  return max(1, min(_BLOCK_FRAMES, _BLOCK_PIXELS // math.prod(size)))


def prepare_video(
    blocks: Iterable[UInt8[np.ndarray, '_ h w 3']],
    resolution: Resolution,
    *,
    on_disk: bool = False,
) -> PreparedVideo:
  """Resizes a video while it is read, so that it is never held at full size.

  With `on_disk`, frames are in a temporary file that goes with the video.
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
  """Resizes blocks one by one, and adds their sizes to `sizes`."""
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
    for frames in split_frames(block):
      missing = count_block_frames(block.shape[1:3]) - len(frames)
      padded = frames
      if missing:
        padded = np.pad(frames, ((0, missing), (0, 0), (0, 0), (0, 0)))
      resized = _prepare_frames(jnp.asarray(padded), resolution)
      yield parallel.fetch(resized)[: len(frames)]


def _store(blocks: Iterable[np.ndarray]) -> np.ndarray:
  """Returns frames of all blocks, mapped from a temporary file."""
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
  count = count_block_frames(frames.shape[1:3])
  for start in range(0, len(frames), count):
    yield frames[start : start + count]


def trace_resizing(size: Resolution, resolution: Resolution) -> Any:
  """Returns the traced program that resizes a block of frames."""
  shape = (count_block_frames(size), *size, 3)
  block = jax.ShapeDtypeStruct(shape, np.uint8)
  return trace_program(_prepare_frames, block, tuple(resolution))


@functools.partial(jax.jit, static_argnums=1)
def _prepare_frames(
    frames: UInt8[Array, 't h w 3'], resolution: Resolution
) -> Float[Array, 't _ _ 3']:
  return resize_video(normalize_frames(frames), resolution)
