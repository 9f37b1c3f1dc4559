"""Settings of TAPIR: those that follow from others, and impossible ones."""

import dataclasses

import pytest

from tapjax.models.tapir.config import TAPIR
from tapjax.models.tapir.functions import TapirFunctions


@pytest.mark.parametrize(
    ('resolution', 'expected'),
    [
        ((256, 256), [(256, 256)]),
        ((128, 160), [(256, 256)]),
        ((384, 320), [(256, 256), (384, 320)]),
        ((300, 260), [(256, 256), (296, 256)]),
        ((480, 854), [(256, 256), (344, 464), (480, 848)]),
        ((512, 512), [(256, 256), (512, 512)]),
        ((720, 1280), [(256, 256), (360, 432), (504, 744), (720, 1280)]),
        ((257, 257), [(256, 256), (256, 256)]),
        (
            (2048, 2048),
            [(256, 256), (512, 512), (1016, 1016), (2048, 2048)],
        ),
    ],
)
def test_refinement_resolutions(resolution, expected):
  config = dataclasses.replace(TAPIR, resolution=resolution)
  assert list(config.levels) == expected


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'refinement_resolutions': ((256, 260),)}, 'multiples of 8'),
        ({'refinement_resolutions': ()}, 'must have an entry'),
        ({'refinement_resolutions': ((8, 8),), 'pooled_levels': 1}, 'larger'),
        ({'resolution': (512, 4)}, r'got \(512, 0\)'),
        ({'initial_resolution': (60, 60)}, 'multiples of 8'),
        ({'channels': (8,)}, 'four entries'),
        ({'num_iterations': 0}, 'num_iterations must be at least 1'),
        ({'num_extra_convs': -1}, 'num_extra_convs must be at least 0'),
        ({'temperature': float('nan')}, 'finite'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  config = dataclasses.replace(TAPIR, **settings)
  with pytest.raises(ValueError, match=message):
    TapirFunctions(config)


def test_equal_configs_share_functions():
  """So that a second tracker does not compile again."""
  again = TapirFunctions(dataclasses.replace(TAPIR, num_iterations=4))
  functions = TapirFunctions(TAPIR)
  assert again == functions
  assert hash(again) == hash(functions)
  other = TapirFunctions(dataclasses.replace(TAPIR, num_iterations=3))
  assert other != functions
