import dataclasses

import pytest

from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tests.support import narrow


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'channels': (8,)}, 'four entries'),
        ({'window': 1}, 'window must be at least 2'),
        ({'num_iterations': 0}, 'num_iterations must be at least 1'),
        ({'block_channels': (8, 4)}, 'never shrink'),
        ({'late_step': float('nan')}, 'finite'),
        ({'resolution': (8, 256)}, 'at least 16 with 2 levels'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    PipsPlusPlusFunctions(
        dataclasses.replace(narrow.PIPS_PLUS_PLUS, **settings)
    )
