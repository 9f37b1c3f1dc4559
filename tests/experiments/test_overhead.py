"""The cost of evaluation is measured for any tracker."""

import jax
import pytest

from experiments.tasks import overhead
from tests.support.small_trackers import make_tracker

pytestmark = pytest.mark.slow


def test_measures_both_ways(monkeypatch):
  monkeypatch.setattr(overhead, '_SHAPES', ((3, 2), (5, 4)))
  tracker = make_tracker('tapnet')
  # What else ran in this process must not matter.
  jax.clear_caches()
  count, padded, bare = overhead.measure(tracker)
  # Encoding and tracking, for either length.
  assert count == 4
  assert padded > 0 < bare
