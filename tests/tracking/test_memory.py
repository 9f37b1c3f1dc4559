"""Memory estimated from shapes, and the windows that fit a budget."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import tapjax
from tapjax.models import registry
from tapjax.tracking import memory
from tapjax.tracking.options import Options
from tapjax.tracking.plan import make_plan
from tests.support.small_trackers import assert_same
from tests.support.small_trackers import make_tracker
from tests.tracking.test_plan import make_long_video
from tests.tracking.test_plan import NUM_FRAMES
from tests.tracking.test_plan import POINTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures('quick_compilation'),
]

MEASURE = """
import sys, threading, time
import numpy as np
import tapjax

def read_memory():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * 4096

tracker = tapjax.load()
resolution = int(sys.argv[1]), int(sys.argv[1])
estimate = tracker.estimate_memory(160, 40, resolution)
tracker.warmup(160, 36, resolution)
frames = np.random.default_rng(0).integers(256, size=(160, *resolution, 3))
frames = frames.astype(np.uint8)
points = tapjax.sample_grid_points(resolution, 6)
peak = before = read_memory()
thread = threading.Thread(target=tracker.track, args=(frames, points))
thread.start()
while thread.is_alive():
  peak = max(peak, read_memory())
  time.sleep(0.005)
print(estimate, peak - before)
"""


@pytest.mark.skipif(not os.path.exists('/proc/self/statm'), reason='no /proc')
@pytest.mark.parametrize(
    'side',
    [256, registry.get_preset(registry.DEFAULT).config.resolution[0]],
    ids=['resized', 'as-it-is'],
)
def test_estimate_of_memory(side):
  environment = {**os.environ, 'XLA_FLAGS': ''}
  answer = subprocess.run(
      [sys.executable, '-c', MEASURE, str(side)],
      check=True,
      capture_output=True,
      env=environment,
      text=True,
  )
  estimate, measured = map(int, answer.stdout.split())
  assert 0.75 < estimate / measured < 1.25


def test_estimates_compile_nothing():
  tracker = make_tracker('tapir')
  with tapjax.count_compilations() as compilations:
    tracker.estimate_memory(12, 7)
    tracker.fit_window(64, 7, (64, 64), '1GB')
  assert not compilations.count


def estimate(tracker, num_frames, window):
  plan = make_plan(
      tracker.functions, num_frames, POINTS[:, :3], Options(window=window)
  )
  return memory.estimate_memory(plan, tracker.params, (48, 72), on_disk=True)


def test_budget_decides():
  tracker = make_tracker('tapir_tiny')
  frames = make_long_video(64)
  size = frames.shape[1:3]
  needed = tracker.estimate_memory(64, len(POINTS), size)
  assert tracker.fit_window(64, len(POINTS), size, needed) is None
  budget = estimate(tracker, 64, 16)
  window = tracker.fit_window(64, len(POINTS), size, budget)
  assert window == 16
  # Of ten times as many frames nothing is held but the tracks.
  more = estimate(tracker, 640, 16) - estimate(tracker, 64, 16)
  assert more < 50 * 576 * len(POINTS)
  assert_same(
      tracker.track(frames, POINTS, max_memory=budget),
      tracker.track(frames, POINTS),
  )
  with pytest.raises(ValueError, match=r'max_memory must be at least \d+ MB'):
    tracker.track(frames, POINTS, max_memory='100kB')


@pytest.mark.parametrize('name', ['taptrv2', 'pips_plus_plus'])
def test_trackers_without_windows(name):
  tracker = make_tracker(name)
  frames = make_long_video(NUM_FRAMES)
  with pytest.raises(
      ValueError, match=r'max_memory must be at least \d+ MB for this'
  ):
    tracker.track(frames, POINTS, max_memory='1MB')
  assert_same(
      tracker.track(frames, POINTS, max_memory='8GB'),
      tracker.track(frames, POINTS),
  )


def test_types_of_frames():
  functions = make_tracker('tapir').functions
  assert memory.get_frame_dtype(functions, (64, 64)) == np.uint8
  assert memory.get_frame_dtype(functions, (64, 65)) == np.float32


def test_videos_are_read_drawn_and_encoded_at_once():
  functions = make_tracker('tapnet').functions
  frame = 3 * 2160 * 3840
  with pytest.raises(ValueError, match='MB for frames of 3840x2160') as caught:
    memory.check_frame_budget(functions, (2160, 3840), 1)
  needed = 1e6 * int(re.search(r'at least (\d+) MB', str(caught.value))[1])
  # As measured with two cores: 36 frames, most of them in the encoder.
  assert needed == pytest.approx(36 * frame, rel=0.15)
  memory.check_frame_budget(functions, (2160, 3840), int(needed + 1e6))
