"""The windows of PIPs++, one after the other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.pips_plus_plus.refinement import find_window
from tapjax.models.pips_plus_plus.refinement import make_recurrence
from tests.support import narrow

pytestmark = pytest.mark.slow


def list_windows_slowly(num_frames, size):
  """The windows of a query on the first frame, as the published loop runs."""
  windows, start = [], 0
  while num_frames > 1:
    end = start + size
    if end > num_frames:
      start, end = max(start - (end - num_frames), 0), num_frames
    windows.append((start, end))
    if end >= num_frames:
      break
    start += size - 1
  return windows


@pytest.mark.parametrize(
    ('num_frames', 'size'), [(1, 2), (5, 2), (9, 5), (10, 3), (17, 5), (4, 6)]
)
def test_windows_are_those_of_the_published_loop(num_frames, size):
  config = dataclasses.replace(narrow.PIPS_PLUS_PLUS, window=size)
  frames = jnp.arange(num_frames)
  recurrence = make_recurrence(
      config,
      num_frames,
      frames.astype(jnp.float32),
      jnp.zeros((num_frames, 1)),
      jnp.zeros((1, num_frames, num_frames, 2)),
  )
  find = jax.jit(
      lambda index: find_window(
          recurrence._replace(next_window=jnp.full_like(frames, index))
      )
  )
  windows = [[] for _ in range(num_frames)]
  for index in range(2 * num_frames + 2):
    found = jax.tree.map(np.asarray, find(index))
    for row in np.flatnonzero(found.exists):
      start, step = int(found.start[row]), int(found.step[row])
      assert found.is_first[row] == (start == 0)
      windows[row].append((step, start, start + int(found.length[row])))
  for row, listed in enumerate(windows):
    expected = [
        (step, *window)
        for step, available in ((1, num_frames - row), (-1, row + 1))
        for window in list_windows_slowly(available, min(size, num_frames))
    ]
    assert listed == expected
