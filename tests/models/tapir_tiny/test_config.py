"""Settings of `tapir_tiny`: sizes, and impossible ones."""

import dataclasses

import pytest

from tapjax.models.tapir_tiny.config import TAPIR_TINY
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions


def test_resolution_alone_decides_the_size():
  config = dataclasses.replace(TAPIR_TINY, resolution=(64, 96))
  assert config.first_resolution == (64, 96)
  assert config.levels == config.encoded_resolutions == ((64, 96),)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'position_weight': float('inf')}, 'position_weight must be finite'),
        ({'template_weight': float('inf')}, 'template_weight must be finite'),
        ({'template_rate': 1.5}, 'template_rate must be between 0 and 1'),
        ({'motion_weight': float('inf')}, 'motion_weight must be finite'),
        ({'temporal': 'both'}, "temporal must be 'past'"),
        ({'motion_reach': 0.0}, 'motion_reach must be positive'),
        ({'logits_stride': 0}, 'logits_stride must be at least 1'),
        ({'support_radius': -1}, 'support_radius must be at least 0'),
        ({'resolution': (60, 64)}, 'multiples of 8'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  config = dataclasses.replace(TAPIR_TINY, **settings)
  with pytest.raises(ValueError, match=message):
    TapirTinyFunctions(config)
