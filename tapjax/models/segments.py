"""Segments of a video: the frames that a tracker sees together, in order."""

import itertools
import math
from typing import NamedTuple


class Segment(NamedTuple):
  """Consecutive frames `[start, stop)` that are tracked together.

  Attributes:
    start: first frame.
    stop: frame after the last one.
    first: first frame whose tracks are taken from this segment.
    end: frame after the last one whose tracks are taken.
    begins: whether the memory starts anew.
  """

  start: int
  stop: int
  first: int
  end: int
  begins: bool = False


class SegmentList(NamedTuple):
  """Segments in the order of tracking, and how their frames are encoded.

  Attributes:
    tracked: segments; every frame of the video is in one of them.
    described: segments of the same length in which queries are described
      before the first one is tracked. Empty where queries are described in the
      segments that are tracked.
    length: number of frames of a segment, to which shorter ones are padded.
    block: number of frames that are encoded together. Features of a block are
      kept for the next segment if that holds it as well.
    carries_memory: whether the memory leads from segment to segment.
    capacity: padded number of frames of the video, where the memory holds all
      of them; else 0.
  """

  tracked: tuple[Segment, ...]
  described: tuple[Segment, ...]
  length: int
  block: int
  carries_memory: bool
  capacity: int = 0


def list_whole_video(num_frames: int) -> SegmentList:
  """Returns one segment that holds the whole video."""
  whole = Segment(0, num_frames, 0, num_frames, begins=True)
  return SegmentList((whole,), (), num_frames, num_frames, carries_memory=False)


def list_overlapping_segments(
    num_frames: int, length: int, overlap: int, temporal_context: int
) -> SegmentList:
  """Returns overlapping segments; each frame is taken where it is innermost."""
  return SegmentList(
      tuple(cut_video(num_frames, length, overlap)),
      list_described(num_frames, length, temporal_context),
      length,
      length,
      carries_memory=False,
  )


def list_consecutive_segments(
    num_frames: int, length: int, temporal_context: int
) -> SegmentList:
  """Returns segments one after the other, with a memory between them."""
  first, *rest = cut_video(num_frames, length, overlap=0)
  return SegmentList(
      (first._replace(begins=True), *rest),
      list_described(num_frames, length, temporal_context),
      length,
      length,
      carries_memory=True,
  )


def list_described(
    num_frames: int, length: int, temporal_context: int
) -> tuple[Segment, ...]:
  """Returns segments in one of which every query can be described.

  A query between two frames needs both, and the frames these depend on.
  """
  return tuple(cut_video(num_frames, length, 2 * temporal_context + 2))


def list_paired_blocks(
    num_frames: int, block: int, lowest: int, highest: int
) -> SegmentList:
  """Returns pairs of blocks, first forward in time and then backward.

  Args:
    num_frames: of the video, more than one block.
    block: number of frames of a block; the last one of the video may be short.
    lowest: first frame from which tracks lead forward.
    highest: last frame from which tracks lead backward.
  """
  last = math.ceil(num_frames / block) - 2
  firsts = list(range(min(lowest // block, last), last + 1))
  if highest > 0:
    firsts += range(min(highest // block, last), -1, -1)
  tracked = [
      Segment(start, stop, start, stop)
      for start in (first * block for first in firsts)
      for stop in (min(start + 2 * block, num_frames),)
  ]
  tracked[0] = tracked[0]._replace(begins=True)
  return SegmentList(
      tuple(tracked),
      (),
      2 * block,
      block,
      carries_memory=True,
      # A power of two, so that few programs serve many videos.
      capacity=1 << (num_frames - 1).bit_length(),
  )


def cut_video(num_frames: int, length: int, overlap: int) -> list[Segment]:
  """Cuts a video so that every frame is taken once.

  Where segments overlap, the last one begins early enough to be of full length,
  and each frame is taken from the segment in which it is farther from an end.
  """
  starts = list(range(0, max(1, num_frames - overlap), length - overlap))
  if overlap:
    starts[-1] = max(0, min(starts[-1], num_frames - length))
  cuts = [
      (later + earlier + length) // 2
      for earlier, later in itertools.pairwise(starts)
  ]
  return [
      Segment(start, min(start + length, num_frames), first, end)
      for start, first, end in zip(
          starts, [0, *cuts], [*cuts, num_frames], strict=True
      )
  ]
