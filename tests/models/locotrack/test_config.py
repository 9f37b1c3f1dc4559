import dataclasses

import pytest

from tapjax.models.locotrack import config as locotrack
from tapjax.models.locotrack.functions import LocoTrackFunctions


@pytest.mark.parametrize(
    ('config', 'resolution', 'first', 'refined'),
    [
        ('SMALL', (256, 256), (256, 256), [(256, 256)]),
        ('SMALL', (384, 512), (256, 256), [(384, 512)]),
        ('SMALL', (480, 854), (256, 256), [(480, 848)]),
        ('SMALL', (200, 300), (256, 256), [(200, 296)]),
        ('EFFICIENTNET_B5', (256, 256), (384, 512), [(384, 512)]),
    ],
)
def test_resolutions_of_the_pytorch_program(config, resolution, first, refined):
  config = dataclasses.replace(
      getattr(locotrack, config), resolution=resolution
  )
  assert [level.resolution for level in config.levels] == refined
  assert config.encoded_resolutions[0] == first


def test_resolutions_of_the_jax_program():
  """Tracks are also refined at the resolution of the initialization."""
  config = dataclasses.replace(
      locotrack.SMALL, refined_levels='every', resolution=(384, 512)
  )
  levels = ((256, 256), (384, 512))
  assert tuple(level.resolution for level in config.levels) == levels
  assert config.encoded_resolutions == levels


LOW, HIGH, OTHER = (256, 256), (384, 512), (320, 320)


@pytest.mark.parametrize(
    ('levels', 'features'),
    [
        ((LOW, HIGH), (LOW,)),
        ((HIGH,), (HIGH,)),
        ((LOW, LOW, HIGH), (LOW,)),
        ((LOW, HIGH, HIGH), (LOW,)),
        ((LOW, HIGH, OTHER), (LOW, OTHER)),
        ((OTHER, LOW, HIGH), (OTHER, LOW)),
        ((OTHER, HIGH), (OTHER, HIGH)),
    ],
    ids=str,
)
def test_a_level_after_one_of_the_size_of_the_video(levels, features):
  """Reads the video as it is, and counts in pixels of the level."""
  config = dataclasses.replace(locotrack.SMALL, refinement_resolutions=levels)
  assert config.encoded_resolutions == features
  (level,) = config.levels
  assert level == (levels[-1], features[-1])
  # The JAX program resizes always.
  config = dataclasses.replace(config, refined_levels='every')
  assert config.levels == tuple(zip(levels, levels, strict=True))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'refinement_resolutions': ((256, 260),)}, 'multiples of 8'),
        ({'refinement_resolutions': ()}, 'must have an entry'),
        ({'initial_resolution': (60, 64)}, 'multiples of 8'),
        ({'transformer_heads': 3}, 'transformer_heads must be even'),
        ({'transformer_channels': 30}, 'transformer_heads must be even'),
        ({'encoder_layers': ()}, 'encoder_layers must be'),
        ({'encoder_layers': ((5, 4, 24),)}, 'multiples of 16'),
        ({'num_iterations': 0}, 'num_iterations must be at least 1'),
        ({'temperature': float('nan')}, 'finite'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  config = dataclasses.replace(locotrack.SMALL, **settings)
  with pytest.raises(ValueError, match=message):
    LocoTrackFunctions(config)
