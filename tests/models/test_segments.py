"""Segments: every frame is taken once, and seen with its neighbors."""

import numpy as np
import pytest

from tapjax.models import segments


@pytest.mark.parametrize('overlap', [0, 1, 4, 7])
@pytest.mark.parametrize('num_frames', [1, 2, 7, 8, 9, 16, 23, 24])
def test_segments_take_every_frame_once(num_frames, overlap):
  cuts = segments.cut_video(num_frames, 8, overlap)
  taken = [i for cut in cuts for i in range(cut.first, cut.end)]
  assert taken == list(range(num_frames))
  for start, stop, first, end, _ in cuts:
    assert first == 0 or first - start >= overlap // 2
    assert end == num_frames or start + 8 - end >= overlap // 2
    assert 0 <= start <= first < end <= stop == min(start + 8, num_frames)
    # Segments are only short where there is nothing else to show.
    assert start + 8 <= num_frames or num_frames < 8 or not overlap


@pytest.mark.parametrize('num_frames', [9, 16, 17, 30])
@pytest.mark.parametrize(('lowest', 'highest'), [(0, 0), (0, 8), (5, 8)])
def test_pairs_of_blocks_lead_to_both_ends(num_frames, lowest, highest):
  pairs = segments.list_paired_blocks(num_frames, 4, lowest, highest)
  starts = [segment.start for segment in pairs.tracked]
  turn = int(np.argmax(starts))
  assert starts[: turn + 1] == list(range(starts[0], starts[turn] + 1, 4))
  assert starts[turn + 1 :] == list(
      range(starts[turn + 1], -1, -4) if len(starts) > turn + 1 else []
  )
  assert starts[0] <= lowest
  assert starts[turn] + 8 >= num_frames
  if highest:
    assert starts[-1] == 0
  assert [s.begins for s in pairs.tracked] == [True] + [False] * (
      len(starts) - 1
  )
  assert pairs.capacity >= num_frames


def test_a_whole_video_is_one_segment():
  whole = segments.list_whole_video(7)
  assert whole.tracked == (segments.Segment(0, 7, 0, 7, True),)
  assert not whole.carries_memory
