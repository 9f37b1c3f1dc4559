"""The windows of TAPTRv2 in a video."""

import pytest

from tapjax.models.taptr.windows import count_windows
from tapjax.models.taptr.windows import plan_windows

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ('num_frames', 'starts'),
    [
        (8, [0]),
        (9, [0, 1]),
        (12, [0, 4]),
        (14, [0, 4, 6]),
        (24, [0, 4, 8, 12, 16]),
    ],
)
def test_windows_cover_every_frame(num_frames, starts):
  schedule = plan_windows(num_frames, 8, 7)
  assert schedule.starts[schedule.exists].tolist() == starts
  assert all(schedule.passes_on)


@pytest.mark.parametrize(('num_frames', 'gap'), [(47, 1), (48, 2), (250, 10)])
def test_long_videos_pass_vectors_on_less_often(num_frames, gap):
  num_windows = count_windows(num_frames, 8)
  passes_on = plan_windows(num_frames, 8, num_windows).passes_on
  assert [i for i, passes in enumerate(passes_on) if passes] == list(
      range(0, len(passes_on), gap)
  )
