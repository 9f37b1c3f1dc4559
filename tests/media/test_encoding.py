"""Encoded files: times, rates and memory."""

import av
import numpy as np
import pytest

from tapjax.media import encoding
from tests.support import videos


def encode(path, frames, rate, times=None):
  encoding.encode(
      path,
      iter(frames),
      frames.shape[1:3],
      rate,
      times,
      quality=18,
      num_threads=1,
  )
  with av.open(str(path)) as container:
    return [
        (float(frame.pts * frame.time_base), frame.height, frame.width)
        for frame in container.decode(video=0)
    ]


def test_even_frames_have_even_times_and_sides(tmp_path):
  frames = videos.make_frames(5, 47, 63)
  found = encode(tmp_path / 'a.mp4', frames, 30000 / 1001)
  times, heights, widths = zip(*found, strict=True)
  np.testing.assert_allclose(np.diff(times), 1001 / 30000, atol=1e-6)
  assert (set(heights), set(widths)) == ({48}, {64})


def test_uneven_times_are_kept(tmp_path):
  times = [7.0, 7.05, 7.5, 9.25]
  frames = videos.make_frames(4, 48, 64)
  found = [time for time, *_ in encode(tmp_path / 'a.mp4', frames, 25.0, times)]
  np.testing.assert_allclose(np.diff(found), np.diff(times), atol=1e-3)


@pytest.mark.parametrize('rate', [24.0, 23.976, 1e-4, 59.94])
def test_ticks_divide_a_frame(rate):
  rounded = encoding._round_rate(rate)
  assert float(rounded) == pytest.approx(rate, rel=1e-4)
  tick, get_tick = encoding._make_timer(rounded, None)
  assert get_tick(3) * tick == 3 / rounded


def test_large_frames_are_held_for_shorter():
  small, large = (1, 1), (4320, 7680)
  assert encoding.count_lookahead(small) > encoding.count_lookahead(large) >= 1
  assert encoding.estimate_bytes(large) > 3 * 4320 * 7680
