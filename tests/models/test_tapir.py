import dataclasses
import functools

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models import tapir
from tapjax.models.base import Estimate
from tapjax.models.base import estimate_tracks
from tapjax.models.base import Extent
from tapjax.models.base import make_stages
from tapjax.models.base import Params
from tapjax.nn.mixer import BlockMemory
from tapjax.nn.mixer import Mixer


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
  config = dataclasses.replace(tapir.TAPIR, resolution=resolution)
  assert list(tapir.list_refinement_resolutions(config)) == expected


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
        ({'position_weight': float('inf')}, 'position_weight must be finite'),
        ({'template_weight': float('inf')}, 'template_weight must be finite'),
        ({'template_rate': 1.5}, 'template_rate must be between 0 and 1'),
        ({'motion_weight': float('inf')}, 'motion_weight must be finite'),
        ({'motion_weight': 1.0}, "temporal must be 'past'"),
        ({'motion_reach': 0.0}, 'motion_reach must be positive'),
    ],
    ids=str,
)
def test_impossible_settings(settings, message):
  config = dataclasses.replace(tapir.TAPIR, **settings)
  with pytest.raises(ValueError, match=message):
    tapir.make_functions(config)


def test_equal_configs_share_functions():
  """So that a second tracker does not compile again."""
  again = dataclasses.replace(tapir.TAPIR, num_iterations=4)
  assert tapir.make_functions(again) is tapir.make_functions(tapir.TAPIR)


def test_pooled_grids_of_odd_size():
  """An odd last row is dropped, and positions follow what is left."""
  config = dataclasses.replace(
      tapir.TAPIR, pooled_levels=1, radius=0, channels=(1, 1, 1, 1)
  )
  # Each cell of the coarse grid holds its row, pooled cells the mean of two.
  rows = jnp.broadcast_to(jnp.arange(37.0)[:, None, None], (37, 37, 1))
  pooled = tapir._halve(rows[None])
  assert pooled.shape == (1, 18, 18, 1)
  np.testing.assert_allclose(pooled[0, :, 0, 0], np.arange(18) * 2 + 0.5)

  grids = tapir.FeatureGrids(jnp.zeros((1, 74, 74, 1)), rows[None], (pooled,))
  y = 100.0
  now = tapir.Refinement(
      positions=jnp.full((1, 1, 2), y),
      occlusion_logits=jnp.zeros((1, 1)),
      uncertainty_logits=jnp.zeros((1, 1)),
      features=jnp.ones((1, 1, 2)),
  )
  vectors = tapir.QueryVectors(*jnp.ones((2, 1, 1)), None, None)
  correlation = tapir._correlate_tracks(grids, vectors, now, config)
  pooled_y = y * 18 / 256 - 0.5
  expected = [0, y * 37 / 256 - 0.5, 2 * pooled_y + 0.5]
  np.testing.assert_allclose(correlation[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize('weight', [0.0, 8.0])
def test_refinement_sees_positions_if_they_have_a_weight(weight):
  config = dataclasses.replace(
      tapir.TAPIR_TINY,
      resolution=(256, 256),
      initial_resolution=(256, 256),
      position_weight=weight,
  )
  seen = []

  def mix(inputs, memory):
    seen.append(inputs[..., :2])
    return jnp.zeros((1, 3, 4 + 96)), memory

  # A path across the frame, from the upper-left corner to the lower-right one.
  positions = jnp.asarray([[[0.0, 0], [128, 64], [256, 256]]])
  start = tapir.Refinement(
      positions, *jnp.zeros((2, 1, 3)), jnp.zeros((1, 3, 96))
  )
  vectors = tapir.QueryVectors(
      jnp.zeros((1, 32)), jnp.zeros((1, 64)), None, None
  )
  grids = tapir.FeatureGrids(
      jnp.zeros((3, 64, 64, 32)),
      jnp.zeros((3, 32, 32, 64)),
      (jnp.zeros((3, 16, 16, 64)),),
  )
  with jax.disable_jit():
    tapir._refine_at_level(
        mix, grids, vectors, start, None, config, config.resolution
    )
  expected = [[-0.5, -0.5], [0, -0.25], [0.5, 0.5]]
  np.testing.assert_allclose(seen[0][0], weight * np.asarray(expected))


def test_all_around_a_query_is_correlated_with_all_around_a_position():
  config = dataclasses.replace(
      tapir.TAPIR,
      resolution=(32, 32),
      initial_resolution=(32, 32),
      channels=(5, 5, 5, 5),
      support_radius=1,
      stem_support_radius=1,
  )
  functions = tapir.make_functions(config)
  generator = np.random.default_rng(0)
  stem, fine, coarse = (
      jnp.asarray(generator.normal(size=(1, 2, side, side, 5)), jnp.float32)
      for side in (16, 8, 4)
  )
  features = (tapir.FeatureGrids(fine, coarse, (), stem),)
  # The middles of the cells in row 5, column 2, and in row 3, column 4.
  query = jnp.asarray([[[1.0, 5.5 * 4, 2.5 * 4]]])
  position = jnp.asarray([[[4.5 * 4, 3.5 * 4]]])
  (vectors,) = functions.describe_queries(Params({}, {}), features, query)
  supports = fine[0, 1, 4:7, 1:4] / 3
  np.testing.assert_allclose(
      vectors.supports[0, 0].reshape(3, 3, 5), supports, rtol=1e-6
  )
  now = tapir.Refinement(
      position, *jnp.zeros((2, 1, 1)), features=jnp.zeros((1, 1, 10))
  )
  grids = jax.tree.map(lambda array: array[0, :1], features[0])
  correlation = tapir._correlate_tracks(
      grids, jax.tree.map(lambda array: array[0], vectors), now, config
  )[0, 0]
  *_, around, around_stem = np.split(correlation, [49, 98, 98 + 9 * 49])
  expected = np.einsum('abc,yxc->abyx', supports, fine[0, 0, 0:7, 1:8])
  np.testing.assert_allclose(around.reshape(3, 3, 7, 7), expected, atol=1e-5)

  def read_contrasts(frame, y, x, radius):
    """Of the stem around the corner of four cells, between which it lies."""
    reach = slice(y - radius - 1, y + radius + 1)
    cells = stem[0, frame, reach, x - radius - 1 : x + radius + 1]
    cells = (cells[1:] + cells[:-1]) / 2
    cells = (cells[:, 1:] + cells[:, :-1]) / 2
    cells -= np.mean(cells, axis=(0, 1), keepdims=True)
    return cells / np.sqrt(np.mean(np.sum(cells**2, axis=-1)) + 0.02)

  expected = np.einsum(
      'abc,yxc->abyx',
      read_contrasts(1, 11, 5, 1) / 3,
      read_contrasts(0, 7, 9, 3),
  )
  np.testing.assert_allclose(
      around_stem.reshape(3, 3, 7, 7), expected, atol=1e-5
  )


@pytest.mark.slow
def test_courses_are_followed():
  """Written again for one point, from what each frame was refined to."""
  config = dataclasses.replace(
      tapir.TAPIR_TINY,
      resolution=(32, 32),
      initial_resolution=(32, 32),
      channels=(4, 4, 8, 8),
      support_radius=1,
      stem_support_radius=1,
      mixer_blocks=1,
      mixer_channels=8,
      frames_at_once=1,
  )
  functions = tapir.make_functions(config)
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
    extent = Extent(num_frames, jnp.asarray(1))
    arguments = functions, params, features, queries
    return estimate_tracks(*arguments, points, memory, extent)

  @jax.jit
  def follow_apart(memory):
    arguments = params, features, queries
    guess = functions.initialize_tracks(*arguments, points, memory)
    extent = Extent(jnp.asarray(6), jnp.asarray(1))
    states, memory = functions.refine_tracks(
        *arguments, guess, memory, extent, points
    )
    return Estimate(guess, states, memory, None)

  empty = functions.make_memory(1)
  whole = follow(features, points, empty, 6)
  # Both steps by themselves are the same as both in one.
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, atol=1e-5),
      follow_apart(empty),
      whole,
  )

  grids = np.asarray(features[0].coarse[0])
  mean, before, velocity, memory = np.zeros(8), None, np.zeros(2), empty
  for frame in range(6):
    now = jax.tree.map(lambda array, i=frame: array[:, i : i + 1], features)
    shifted = points - jnp.asarray([[[frame, 0, 0]]])
    estimate = follow(now, shifted, memory, 1)
    np.testing.assert_allclose(
        estimate.states.positions,
        whole.states.positions[..., frame : frame + 1, :],
        atol=1e-3,
    )

    # Nothing is known up to the query's frame, and no velocity on it.
    if frame >= 1:
      _, occlusion, uncertainty = (np.ravel(a[-1]) for a in estimate.states)
      shown = np.prod(1 / (1 + np.exp([occlusion, uncertainty])))
      position = np.ravel(estimate.states.positions[-1])
      look = read_between(grids[frame], *position / 8)
      mean += config.template_rate * shown * (look - mean)
      velocity = np.zeros(2) if before is None else position - before
      before = position
      course = jax.tree.map(lambda array: array[0, 0], estimate.memory.course)
      assert shown > 0.01
      np.testing.assert_allclose(course.templates, mean, atol=1e-5)
      np.testing.assert_allclose(course.positions, position, atol=1e-5)
      np.testing.assert_allclose(course.velocities, velocity, atol=1e-4)
      np.testing.assert_allclose(course.shown, shown, rtol=1e-5)
    else:
      assert not np.any(estimate.memory.course.templates)
      assert not np.any(estimate.memory.course.shown)
    memory = estimate.memory
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


def test_query_and_looks_are_joined_to_unit_length():
  config = dataclasses.replace(tapir.TAPIR_TINY, template_weight=0.5)
  course = tapir.Course(
      jnp.asarray([[6.0, 0.0]]), *jnp.zeros((2, 1, 2)), shown=jnp.zeros(1)
  )
  joined = tapir._join_looks(jnp.asarray([[0.0, 4.0]]), course, config)
  np.testing.assert_allclose(joined, [[0.6, 0.8]], rtol=1e-6)


def test_lone_templates_are_those_of_tracks_seen_so_far():
  config = dataclasses.replace(tapir.TAPIR_TINY, lone_template_weight=0.5)
  course = tapir.Course(
      jnp.asarray([[3.0, 4.0], [0.0, 0.0]]),
      *jnp.zeros((2, 2, 2)),
      shown=jnp.asarray([0.0, 0.0]),
  )
  vectors = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(
      tapir._pick_templates(vectors, course, config),
      [[0.3, 0.4], [0.0, 1.0]],
      rtol=1e-6,
  )


def test_cells_lose_by_their_distance_from_where_a_track_was_going():
  config = dataclasses.replace(
      tapir.TAPIR_TINY, resolution=(64, 64), motion_weight=6.0, motion_reach=2.0
  )
  course = tapir.Course(
      templates=jnp.zeros((2, 8)),
      # Going to the middle of a cell, that at row 2 and column 3.
      positions=jnp.asarray([[27.0, 20], [27, 20]]),
      velocities=jnp.asarray([[1.0, 0], [1, 0]]),
      shown=jnp.asarray([0.5, 0.0]),
  )
  bias = tapir._favor_course(course, (8, 8), config)
  assert bias[0, 2, 3] == 0
  # Two cells away it is half of 6 times 0.5, and far away nearly all of it.
  np.testing.assert_allclose(bias[0, 2, [1, 5]], -1.5, rtol=1e-5)
  np.testing.assert_allclose(bias[0, [0, 4], 3], -1.5, rtol=1e-5)
  assert -3 < bias[0, 7, 7] < -2.7
  np.testing.assert_array_equal(bias[1], 0)


@pytest.mark.parametrize(
    ('config', 'frames', 'queries', 'teraflops'),
    [
        (tapir.TAPIR, 24, 64, 0.77),
        (tapir.BOOTSTAPIR, 24, 64, 1.94),
        (tapir.TAPIR, 24, 0, 0.45),
    ],
)
def test_operations_are_those_published(config, frames, queries, teraflops):
  counted = tapir.count_operations(config, frames, queries)
  assert counted / 1e12 == pytest.approx(teraflops, rel=0.02)


@functools.cache
def make_mixer(temporal):
  """A small mixer as a compiled function, and its parameters."""
  stages = make_stages(
      lambda: Mixer(2, 16, 4, 7, temporal, name='mixer'),
      ('__call__',),
      lambda module: module(jnp.zeros((1, 1, 5))),
  )

  @jax.jit
  def mix(params, x, memory=None):
    return stages.apply('__call__', params, x, memory)

  return functools.partial(mix, stages.init(jax.random.key(0)))


SEQUENCES = jax.random.normal(jax.random.key(1), (3, 9, 5))


@pytest.mark.slow
def test_past_mixer_never_sees_the_future():
  mix = make_mixer('past')
  before, _ = mix(SEQUENCES)
  after, _ = mix(SEQUENCES.at[:, 6:].add(1.0))
  np.testing.assert_array_equal(before[:, :6], after[:, :6])
  assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-3


@pytest.mark.slow
def test_mixer_of_both_sides_sees_the_future():
  mix = make_mixer('both')
  before, _ = mix(SEQUENCES)
  after, _ = mix(SEQUENCES.at[:, 6].add(1.0))
  assert np.abs(before[:, 5] - after[:, 5]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize('cuts', [(1,) * 9, (4, 5)], ids=str)
def test_mixer_in_pieces_equals_one_call(cuts):
  mix = make_mixer('past')
  whole, _ = mix(SEQUENCES)
  memory = BlockMemory(jnp.zeros((2, 3, 2, 16)), jnp.zeros((2, 3, 2, 4, 16)))
  parts = []
  for piece in np.split(SEQUENCES, np.cumsum(cuts)[:-1], axis=1):
    part, memory = mix(piece, memory)
    parts.append(part)
  np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
