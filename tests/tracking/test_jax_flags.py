"""Tracking under flags of JAX that users set: wide numbers, no compilation."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tapjax
from tapjax.models import arrows
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.models.contract import ValidLength
from tapjax.models.tapir.functions import TapirFunctions
from tapjax.streaming import slots
from tapjax.tracker import Tracker
from tapjax.tracking.options import Options
from tapjax.tracking.plan import make_plan
from tapjax.tracking.programs import Programs
from tests.support import golden
from tests.support import sessions
from tests.support.small_trackers import assert_same
from tests.support.small_trackers import make_config
from tests.support.small_trackers import make_tracker
from tests.support.small_trackers import make_video
from tests.support.small_trackers import SETTINGS

pytestmark = pytest.mark.usefixtures('quick_compilation')

# Those that are traced, or compiled, soon enough for the default run.
QUICK = ('tapnet',)
QUERIES = np.float32([[0, 10.5, 20.5], [3, 47.9, 0.1], [10, 0, 72]])
_WIDE_PRODUCT = re.compile(r'f64\[[^]]*\] = (dot_general|conv_general_dilated)')


@pytest.fixture
def set_x64():
  yield lambda is_wide: jax.config.update('jax_enable_x64', is_wide)
  jax.config.update('jax_enable_x64', False)


def make_causal_tapir():
  config = dataclasses.replace(
      make_config('tapir'), pooled_levels=1, temporal='past'
  )
  functions = TapirFunctions(config)
  params = golden.make_random_params(functions)
  return Tracker('causal_tapir', config, functions, params)


def list_names(quick):
  return [
      pytest.param(name, marks=[pytest.mark.slow] * (name not in quick))
      for name in (*SETTINGS, 'causal_tapir')
  ]


def make(name):
  return make_causal_tapir() if name == 'causal_tapir' else make_tracker(name)


def renew(tracker):
  """The tracker with nothing compiled yet."""
  return dataclasses.replace(tracker, programs=Programs())


def list_types(tree):
  return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def trace(functions):
  """Types of all results of a tracker, and the text of its programs."""
  params = describe_params(functions)
  video = jax.ShapeDtypeStruct((1, 5, *functions.resolution, 3), jnp.float32)
  frame = jax.ShapeDtypeStruct((1, 48, 72, 3), jnp.uint8)
  points = jax.ShapeDtypeStruct((1, 8, 3), jnp.float32)
  count = jax.ShapeDtypeStruct((), jnp.int32)

  def track(params, video, points, count):
    features = arrows.encode_segment(functions, params, video, count)
    queries = arrows.describe_queries(functions, params, features, points)
    valid = ValidLength(count, count)
    segment = arrows.track_segment(
        functions, params, features, queries, points, None, valid
    )
    return features, queries, segment

  def step(*arguments):
    return slots.track_frame(functions, *arguments)

  programs = [(track, (params, video, points, count))]
  held = None
  if functions.streams:
    held = slots.describe_slots(functions, params, 8)
    programs.append((step, (params, *held, frame)))
  traced = [
      jax.make_jaxpr(function, return_shape=True)(*arguments)
      for function, arguments in programs
  ]
  return (
      list_types((params, held, [shapes for _, shapes in traced])),
      [str(program) for program, _ in traced],
  )


def check_trace(functions, set_x64):
  """Wide numbers stay out of features, results and products."""
  types, _ = trace(functions)
  describe_params.cache_clear()
  set_x64(True)
  wide_types, wide_programs = trace(functions)
  assert wide_types == types
  for program in wide_programs:
    assert not _WIDE_PRODUCT.findall(program)


@pytest.mark.parametrize('name', list_names(QUICK))
def test_wide_numbers_reach_no_result(name, set_x64):
  check_trace(make(name).functions, set_x64)


@pytest.mark.slow
@pytest.mark.parametrize('name', registry.PRESETS)
def test_wide_numbers_reach_no_result_of_a_preset(name, set_x64):
  preset = registry.get_preset(name)
  check_trace(preset.architecture.make_functions(preset.config), set_x64)


@pytest.mark.parametrize('name', list_names(QUICK))
def test_whole_videos_with_wide_numbers(name, set_x64):
  tracker = make(name)
  frames = make_video()
  narrow = tracker.track(frames, QUERIES)
  set_x64(True)
  # Positions as users compute them, in double precision.
  wide = renew(tracker).track(frames, QUERIES.astype(np.float64))
  assert_same(wide, narrow)
  assert list_types(wide) == list_types(narrow)


@pytest.mark.slow
@pytest.mark.parametrize(
    'make', [sessions.make_tracker, make_causal_tapir], ids=['tiny', 'causal']
)
def test_sessions_with_wide_numbers(make, set_x64):
  """All that a session does: views, more slots, steps, and a cut."""
  tracker = make()
  frames = sessions.make_frames(3)
  points = sessions.make_points(2)

  def follow():
    session = tracker.start(frames[:2], np.stack([points, points + 0.5]))
    session, first = tracker.step(session, frames[0])
    session = tracker.add(session, frames[1], sessions.make_points(9))
    session, second = tracker.step(session, frames[1])
    session = tapjax.streaming.forget(session)
    session = tracker.remove(session, [1])
    session, third = tracker.step(session, frames[2])
    return list_types(session), (first, second, third)

  types, tracks = follow()
  set_x64(True)
  jax.clear_caches()
  wide_types, wide_tracks = follow()
  assert wide_types == types
  for wide, narrow in zip(wide_tracks, tracks, strict=True):
    assert_same(wide, narrow)


def test_without_compiling_stages_are_plain_functions():
  tracker = make_tracker('tapnet')
  options = Options()
  plan = make_plan(tracker.functions, 3, QUERIES[:1], options)
  programs = Programs()
  with tapjax.count_compilations() as compilations, jax.disable_jit():
    run = programs.compile(plan, tracker.params, np.dtype(np.uint8), options)
    assert not isinstance(run.track, jax.stages.Compiled)
    tracker.estimate_memory(3, 1)
  assert compilations.count == 0
  assert not programs.list_shapes(tracker.functions, options)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tapnet', 'pips_plus_plus', 'tapir_tiny'])
def test_tracking_without_compiling(name):
  tracker = make_tracker(name)
  frames = make_video(3)
  compiled = tracker.track(frames, QUERIES[:1])
  with jax.disable_jit():
    assert_same(renew(tracker).track(frames, QUERIES[:1]), compiled)


@pytest.mark.slow
def test_sessions_without_compiling():
  tracker = sessions.make_tracker()
  frames = sessions.make_frames(2)
  with jax.disable_jit():
    session = tracker.start(frames[0], sessions.make_points(2))
    _, plain = sessions.follow(session, frames)
  session = tracker.start(frames[0], sessions.make_points(2))
  _, compiled = sessions.follow(session, frames)
  sessions.assert_close(plain, compiled)
