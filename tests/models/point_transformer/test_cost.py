import pytest

from tapjax.models.point_transformer.config import RESNET18
from tapjax.models.point_transformer.config import RESNET34
from tapjax.models.point_transformer.config import RESNET50
from tapjax.models.point_transformer.cost import count_operations


@pytest.mark.parametrize(
    ('config', 'gigaflops'),
    [
        (RESNET18, 4.75),
        (RESNET34, 9.59),
        (RESNET50, 10.74),
    ],
)
def test_operations_are_those_published(config, gigaflops):
  one = count_operations(config, 1, 0)
  assert one / 1e9 == pytest.approx(gigaflops, rel=0.005)
  # Of eight frames and eight points, beside the frames.
  both = count_operations(config, 8, 8)
  assert (both - 8 * one) / 1e9 == pytest.approx(0.42, abs=0.01)
