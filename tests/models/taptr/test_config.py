import dataclasses

import pytest

from tapjax.models.taptr.config import TAPTRV2
from tapjax.models.taptr.functions import TaptrFunctions


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'resolution': (256, 320)}, r'use \(256, 256\)'),
        ({'resolution': (1, 1)}, 'must be a square'),
        ({'num_heads': 3}, 'multiple of num_heads'),
        ({'num_groups': 5}, 'multiple of num_groups'),
        ({'channels': 30, 'num_heads': 2, 'num_groups': 2}, 'sines'),
        ({'window': 7}, 'window must be even'),
        ({'decoder_layers': 0}, 'decoder_layers must be at least 1'),
        ({'encoder_layers': -1}, 'encoder_layers must be at least 0'),
        ({'backbone_blocks': ()}, 'backbone_blocks must have'),
        ({'backbone_channels': 0}, 'backbone_channels must be at least 1'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    TaptrFunctions(dataclasses.replace(TAPTRV2, **settings))
