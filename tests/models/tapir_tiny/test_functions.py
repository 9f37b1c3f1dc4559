"""Tracking frame by frame: places, appearance and motion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models import arrows
from tapjax.models.contract import ValidLength
from tapjax.models.multires import Refinement
from tapjax.models.tapir_tiny.appearance import FeatureGrids
from tapjax.models.tapir_tiny.appearance import QueryVectors
from tapjax.models.tapir_tiny.config import TapirTinyConfig
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions
from tests.support import golden


@pytest.mark.parametrize('weight', [0.0, 8.0])
def test_refinement_sees_positions_if_they_have_a_weight(weight):
  config = TapirTinyConfig(
      resolution=(256, 256),
      position_weight=weight,
      support_radius=0,
      stem_support_radius=0,
  )
  # A path across the frame, from the upper-left corner to the lower-right one.
  positions = jnp.asarray([[[0.0, 0], [128, 64], [256, 256]]])
  now = Refinement(
      positions, *jnp.zeros((2, 1, 3)), features=jnp.zeros((1, 3, 96))
  )
  vectors = QueryVectors(jnp.zeros((1, 32)), jnp.zeros((1, 64)), None, None)
  grids = FeatureGrids(
      jnp.zeros((3, 64, 64, 32)),
      jnp.zeros((3, 32, 32, 64)),
      (jnp.zeros((3, 16, 16, 64)),),
      None,
  )
  make_inputs = jax.jit(TapirTinyFunctions(config)._make_inputs)
  inputs = make_inputs(grids, vectors, now)
  expected = [[-0.5, -0.5], [0, -0.25], [0.5, 0.5]]
  np.testing.assert_allclose(inputs[0, :, :2], weight * np.asarray(expected))


@pytest.mark.slow
def test_motion_and_appearance_are_followed():
  """Written again for one point, from what each frame was refined to."""
  config = TapirTinyConfig(
      resolution=(32, 32),
      channels=(4, 4, 8, 8),
      support_radius=1,
      stem_support_radius=1,
      mixer_blocks=1,
      mixer_channels=8,
      frames_at_once=1,
  )
  functions = TapirTinyFunctions(config)
  params = golden.make_random_params(functions)
  video = jax.random.uniform(jax.random.key(0), (1, 6, 32, 32, 3), minval=-1.0)
  # On the second frame.
  points = jnp.asarray([[[1.0, 20.0, 12.0]]])

  @jax.jit
  def prepare(video):
    features = functions.encode_video(params, video)
    return features, functions.describe_queries(params, features, points)

  features, queries = prepare(video)

  @jax.jit
  def follow(features, points, memory, num_frames):
    return arrows.track_segment(
        functions,
        params,
        features,
        queries,
        points,
        memory,
        ValidLength(num_frames, jnp.asarray(1)),
    )

  empty = functions.begin(points)
  whole = follow(features, points, empty, 6)

  grids = np.asarray(features[0].coarse[0])
  mean, before, velocity, memory = np.zeros(8), None, np.zeros(2), empty
  for frame in range(6):
    now = jax.tree.map(lambda array, i=frame: array[:, i : i + 1], features)
    shifted = points - jnp.asarray([[[frame, 0, 0]]])
    segment = follow(now, shifted, memory, 1)
    np.testing.assert_allclose(
        segment.states.positions,
        whole.states.positions[..., frame : frame + 1, :],
        atol=1e-3,
    )

    # Nothing is known up to the query's frame, and no velocity on it.
    if frame >= 1:
      _, occlusion, uncertainty = (np.ravel(a[-1]) for a in segment.states[:3])
      shown = np.prod(1 / (1 + np.exp([occlusion, uncertainty])))
      position = np.ravel(segment.states.positions[-1])
      look = read_between(grids[frame], *position / 8)
      mean += config.template_rate * shown * (look - mean)
      velocity = np.zeros(2) if before is None else position - before
      before = position
      course = jax.tree.map(lambda array: array[0, 0], segment.memory.course)
      assert shown > 0.01
      np.testing.assert_allclose(course.templates, mean, atol=1e-5)
      np.testing.assert_allclose(course.positions, position, atol=1e-5)
      np.testing.assert_allclose(course.velocities, velocity, atol=1e-4)
      np.testing.assert_allclose(course.shown, shown, rtol=1e-5)
    else:
      assert not np.any(segment.memory.course.templates)
      assert not np.any(segment.memory.course.shown)
    memory = segment.memory
    if frame == 2:
      # Nothing is learned of padding.
      cut = follow(features, points, empty, 3)
      jax.tree.map(
          functools.partial(np.testing.assert_allclose, atol=1e-3),
          cut.memory,
          memory,
      )


def read_between(grid, x, y):
  """Reads a grid of numpy between its cells."""
  x, y = (np.clip(place - 0.5, 0, 3) for place in (x, y))
  left, top = int(min(x, 2)), int(min(y, 2))
  square = grid[top : top + 2, left : left + 2]
  return np.einsum(
      'y,x,yxc->c', [1 - y + top, y - top], [1 - x + left, x - left], square
  )
