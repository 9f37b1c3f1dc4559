import pytest

from tapjax.models.taptr.config import TAPTRV2
from tapjax.models.taptr.cost import count_operations


def test_operations_are_those_published():
  """160 GFLOP a frame; 31 MFLOP and 5 kFLOP per other point and frame.

  The published count is of keys and values of every token; ours reads first.
  """
  frame = count_operations(TAPTRV2, 8, 0) / 8
  assert frame / 1e9 == pytest.approx(160, rel=0.02)
  counts = [count_operations(TAPTRV2, 8, n) / 8 - frame for n in (1, 100)]
  assert counts[1] / 100 - counts[0] == pytest.approx(99 * 5 * 1024, rel=0.1)
