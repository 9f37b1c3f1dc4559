import dataclasses

import pytest

from tapjax.models.point_transformer.functions import PointTransformerFunctions
from tests.support import narrow


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'window': 1}, 'window must be at least 2'),
        ({'num_points': 0}, 'num_points must be at least 1'),
        ({'channels': 6, 'num_heads': 4}, 'multiple of num_heads'),
        ({'backbone_blocks': ()}, 'backbone_blocks must have'),
        ({'dropout': 1.0}, 'less than 1'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    PointTransformerFunctions(
        dataclasses.replace(narrow.POINT_TRANSFORMER, **settings)
    )
