"""Numbers of operations."""

import pytest

from tapjax.models.tapir.config import BOOTSTAPIR
from tapjax.models.tapir.config import TAPIR
from tapjax.models.tapir.cost import count_operations


@pytest.mark.parametrize(
    ('config', 'frames', 'queries', 'teraflops'),
    [
        (TAPIR, 24, 64, 0.77),
        (BOOTSTAPIR, 24, 64, 1.94),
        (TAPIR, 24, 0, 0.45),
    ],
)
def test_operations_are_those_published(config, frames, queries, teraflops):
  counted = count_operations(config, frames, queries)
  assert counted / 1e12 == pytest.approx(teraflops, rel=0.02)
