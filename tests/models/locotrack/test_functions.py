import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.models.arrows import track_segment
from tapjax.models.contract import describe_params
from tapjax.models.locotrack.config import SMALL
from tapjax.models.locotrack.functions import LocoTrackFunctions

SMALLEST = dataclasses.replace(
    SMALL,
    resolution=(64, 64),
    initial_resolution=(64, 64),
    encoder='b0',
    encoder_layers=((5, 4, 16), (2, 2, 16)),
    num_iterations=2,
    transformer_layers=1,
    transformer_channels=32,
    transformer_heads=2,
)


def test_equal_configs_are_equal_functions():
  """So that a second tracker does not compile again."""
  again = LocoTrackFunctions(dataclasses.replace(SMALL, num_iterations=4))
  functions = LocoTrackFunctions(SMALL)
  assert again == functions
  assert hash(again) == hash(functions)
  assert LocoTrackFunctions(SMALLEST) != functions


VIDEO = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), jnp.float32)
POINTS = jax.ShapeDtypeStruct((1, 2, 3), jnp.float32)


def test_sessions_are_refused():
  functions = LocoTrackFunctions(SMALLEST)
  assert not functions.streams
  assert functions.begin(jnp.zeros((1, 2, 3))) is None

  def track(params, video, points):
    features = functions.encode_video(params, video)
    queries = functions.describe_queries(params, features, points)
    return track_segment(
        functions, params, features, queries, points, memory=points
    )

  with pytest.raises(ValueError, match='memory must be None'):
    jax.eval_shape(track, describe_params(functions), VIDEO, POINTS)


@pytest.mark.parametrize(
    ('encoder', 'has_norms'), [('resnet', False), ('b0', True)]
)
def test_features_in_training(encoder, has_norms):
  """A residual network has no batch norms, and so no statistics."""
  functions = LocoTrackFunctions(dataclasses.replace(SMALLEST, encoder=encoder))
  params = describe_params(functions)

  def encode(params, video):
    return jax.vmap(
        lambda video: functions.encode_in_training(
            params, video, jax.random.key(0)
        ),
        axis_name=parallel.AXIS,
        out_axes=(0, None),
    )(video[None])

  features, statistics = jax.eval_shape(encode, params, VIDEO)
  assert statistics == params.state
  assert bool(statistics) == has_norms
  expected = jax.eval_shape(functions.encode_video, params, VIDEO)
  assert jax.tree.map(lambda array: array.shape[1:], features) == jax.tree.map(
      lambda array: array.shape, expected
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
  functions = LocoTrackFunctions(config)
  # Gates of random positive weights would be wide open, and learn nothing.
  params = functions.init(jax.random.key(1))
  video = jax.random.uniform(jax.random.key(0), (1, 3, 64, 64, 3), minval=-1.0)
  points = jnp.asarray([[[1.0, 20.0, 30.0]]])

  @jax.jit
  @jax.grad
  def differentiate(weights):
    given = params._replace(params=weights)
    features = functions.encode_video(given, video)
    queries = functions.describe_queries(given, features, points)
    _, states, _ = track_segment(functions, given, features, queries, points)
    return sum(jnp.sum(jnp.square(array)) for array in jax.tree.leaves(states))

  for module, arrays in differentiate(params.params).items():
    for name, array in arrays.items():
      assert np.isfinite(array).all(), (module, name)
      # A constant moves no softmax, nor does what a group norm takes away.
      if name != 'b' and not module.endswith('attention/~/key'):
        assert np.abs(array).max() > 0, (module, name)
