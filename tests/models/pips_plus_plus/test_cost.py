import dataclasses

import pytest

from tapjax.models.contract import describe_params
from tapjax.models.pips_plus_plus.config import PIPS_PLUS_PLUS
from tapjax.models.pips_plus_plus.cost import count_inputs
from tapjax.models.pips_plus_plus.cost import count_operations
from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tests.support import narrow


@pytest.mark.parametrize(
    ('frames', 'queries', 'gigaflops'),
    [(1, 0, 11.18), (1, 1, 11.18 + 0.478)],
)
def test_operations_are_those_published(frames, queries, gigaflops):
  config = dataclasses.replace(PIPS_PLUS_PLUS, resolution=(256, 256))
  counted = count_operations(config, frames, queries)
  assert counted / 1e9 == pytest.approx(gigaflops, rel=0.003)


def test_the_update_network_takes_what_is_counted():
  """Correlations and motion, as the network joins them."""
  config = narrow.PIPS_PLUS_PLUS
  weights = describe_params(PipsPlusPlusFunctions(config)).params
  kernel = weights['pips_plus_plus/~/update/~/input']['w']
  assert kernel.shape == (3, count_inputs(config), config.block_channels[0])
