import pytest

from tapjax.models import registry
from tapjax.models.locotrack import cost


@pytest.mark.parametrize(
    ('name', 'frame', 'point'),
    [
        ('small', 18.83, 0.0487),
        ('base', 18.83, 0.0960),
        ('efficientnet_b0', 0.297, 0.0396),
        ('efficientnet_b0_tiny', 0.297, 0.0154),
        ('efficientnet_b2', 1.02, 0.0416),
        ('efficientnet_b5', 11.03, 0.0442),
    ],
)
def test_operations_are_those_counted(name, frame, point):
  config = registry.get_preset(f'locotrack_{name}').config
  counted = cost.count_frame(config) / 1e9
  assert counted == pytest.approx(frame, rel=0.005)
  # The correlation reads 8x8 cells to interpolate 7x7 products.
  counted = cost.count_point(config, 8) / 1e9
  assert counted == pytest.approx(point, rel=0.04)
