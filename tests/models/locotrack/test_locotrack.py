import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models import registry
from tapjax.models.locotrack import functions as locotrack


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
  levels = [level.resolution for level in locotrack.list_refined_levels(config)]
  assert levels == refined
  assert locotrack.list_resolutions(config)[0] == first


def test_resolutions_of_the_jax_program():
  """It also refines where it initializes."""
  config = dataclasses.replace(
      locotrack.SMALL, refined_levels='every', resolution=(384, 512)
  )
  levels = ((256, 256), (384, 512))
  refined = locotrack.list_refined_levels(config)
  assert tuple(level.resolution for level in refined) == levels
  assert locotrack.list_resolutions(config) == levels


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
def test_a_level_behind_one_of_the_size_of_the_video(levels, features):
  """It looks at the video as it is, and counts in its own pixels."""
  config = dataclasses.replace(locotrack.SMALL, refinement_resolutions=levels)
  assert locotrack.list_resolutions(config) == features
  (level,) = locotrack.list_refined_levels(config)
  assert level == (levels[-1], features[-1])
  # The JAX program resizes always.
  config = dataclasses.replace(config, refined_levels='every')
  refined = locotrack.list_refined_levels(config)
  assert refined == tuple(zip(levels, levels, strict=True))


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
    locotrack.make_functions(config)


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
  counted = locotrack.count_frame_operations(config) / 1e9
  assert counted == pytest.approx(frame, rel=0.005)
  # The correlation reads 8x8 cells to interpolate 7x7 products.
  counted = locotrack.count_point_operations(config, 8) / 1e9
  assert counted == pytest.approx(point, rel=0.04)


def test_motion_of_a_step():
  """One step by 8 pixels right and 4 down, between the second and third."""
  positions = jnp.asarray([[[10.0, 20.0], [10.0, 20.0], [18.0, 24.0]]])
  motion = np.asarray(locotrack.encode_motion(positions, (256, 128)))[0]
  step = np.asarray([8 / 128, 4 / 256], np.float32)
  zeros = np.zeros(2)
  np.testing.assert_allclose(motion[0, :44], 0, atol=1e-6)
  np.testing.assert_allclose(motion[0, 44:], 1, atol=1e-6)
  np.testing.assert_allclose(motion[1, :4], [*-step, *zeros], atol=1e-6)
  np.testing.assert_allclose(motion[2, :4], [*zeros, *step], atol=1e-6)
  for k in range(10):
    phase = 2.0**k * np.asarray([*zeros, *step])
    waves = motion[2, 4 + 4 * k : 8 + 4 * k]
    np.testing.assert_allclose(waves, np.sin(phase), atol=1e-5)
    waves = motion[2, 44 + 4 * k : 48 + 4 * k]
    np.testing.assert_allclose(waves, np.cos(phase), atol=1e-4)


SMALLEST = dataclasses.replace(
    locotrack.SMALL,
    resolution=(64, 64),
    initial_resolution=(64, 64),
    encoder='b0',
    encoder_layers=((5, 4, 16), (2, 2, 16)),
    num_iterations=2,
    transformer_layers=1,
    transformer_channels=32,
    transformer_heads=2,
)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
@pytest.mark.parametrize(
    'inputs',
    [
        'motion_last',
        pytest.param('motion_first_features_last', marks=pytest.mark.heavy),
    ],
)
def test_gradients_reach_every_weight_that_counts(inputs):
  """Unused outputs of the last layer have none."""
  config = dataclasses.replace(SMALLEST, inputs=inputs)
  functions = locotrack.make_functions(config)
  # Gates of random positive weights would be wide open, and learn nothing.
  params = functions.init(jax.random.key(1))
  video = jax.random.uniform(jax.random.key(0), (1, 3, 64, 64, 3), minval=-1.0)
  points = jnp.asarray([[[1.0, 20.0, 30.0]]])

  @jax.jit
  @jax.grad
  def differentiate(weights):
    given = params._replace(weights=weights)
    features = functions.encode_video(given, video)
    queries = functions.describe_queries(given, features, points)
    first = functions.initialize_tracks(given, features, queries, points)
    states, _ = functions.refine_tracks(given, features, queries, first)
    return sum(
        jnp.sum(jnp.square(array)) for array in jax.tree.leaves((first, states))
    )

  for module, arrays in differentiate(params.weights).items():
    for name, array in arrays.items():
      assert np.isfinite(array).all(), (module, name)
      # A constant moves no softmax, nor does what a group norm takes away.
      if name != 'b' and not module.endswith('attention/~/key'):
        assert np.abs(array).max() > 0, (module, name)
