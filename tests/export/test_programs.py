"""Programs track as the library does, under the names that they state."""

import dataclasses
import functools

import jax
import jax.export
import numpy as np
import pytest

from tapjax.data.procedural import demo
from tapjax.export import programs
from tapjax.export import run_file
from tapjax.export import stablehlo_files
from tapjax.models.contract import set_platform
from tapjax.models.tapir_tiny.config import TAPIR_TINY
from tapjax.models.tapir_tiny.functions import TapirTinyFunctions
from tapjax.tracker import Tracker
from tests.support import golden

CONFIG = dataclasses.replace(
    TAPIR_TINY,
    resolution=(32, 40),
    initial_resolution=(32, 32),
    refinement_resolutions=((32, 32),),
    channels=(4, 4, 8, 8),
    num_iterations=1,
    mixer_blocks=1,
    mixer_channels=8,
)
SIZE = CONFIG.resolution


@functools.cache
def make_tracker():
  functions = TapirTinyFunctions(CONFIG)
  params = golden.make_random_params(functions)
  return Tracker('tapir_tiny', CONFIG, functions, params)


def call_with_names(program):
  def call(arrays):
    inputs = (arrays[name] for name in program.inputs)
    outputs = program.function(program.params, *inputs)
    return dict(zip(program.outputs, outputs, strict=True))

  return jax.jit(call)


def check_shapes(shapes, arrays):
  assert set(shapes) == set(arrays)
  for name, shape in shapes.items():
    assert (shape.shape, shape.dtype) == (
        arrays[name].shape,
        arrays[name].dtype,
    ), name


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_a_video_is_tracked_as_by_the_tracker():
  tracker = make_tracker()
  program = programs.make_track_program(
      tracker.functions, tracker.params, num_frames=5, num_queries=3
  )
  arrays = {
      'frames': demo.make_demo_clip(5, SIZE).frames,
      'query_points': np.float32([[0, 8, 30], [4, 20.5, 3], [2, 31, 39]]),
  }
  check_shapes(program.inputs, arrays)
  found = run_file.run([call_with_names(program)], arrays)
  check_shapes(program.outputs, found)
  assert list(program.outputs)[:2] == ['positions', 'visible']
  expected = tracker.track(**arrays)
  for name, array in found.items():
    np.testing.assert_allclose(array, getattr(expected, name), atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures('quick_compilation')
def test_sessions_go_on_as_those_of_the_tracker():
  tracker = make_tracker()
  start, step = programs.make_session_programs(
      tracker.functions, tracker.params, num_queries=2
  )
  arrays = {
      'frames': demo.make_demo_clip(3, SIZE).frames,
      'points_yx': np.float32([[8, 30], [20.5, 3]]),
  }
  assert set(step.inputs) == {'frame', *start.outputs}
  carried = {name for name in start.outputs if name.startswith('memory')}
  course = ('templates', 'positions', 'velocities', 'shown')
  assert carried == {
      'memory_inputs',
      'memory_hidden',
      *(f'memory_course_{name}' for name in course),
  }
  found = run_file.run([call_with_names(start), call_with_names(step)], arrays)
  check_shapes(
      start.outputs, {name: found[f'first_{name}'] for name in start.outputs}
  )
  session = tracker.start(arrays['frames'][0], arrays['points_yx'])
  tracks = []
  for frame in arrays['frames']:
    session, now = tracker.step(session, frame)
    tracks.append(now)
  for name in ('positions', 'visible', 'occlusion_logits'):
    expected = np.concatenate([getattr(now, name) for now in tracks], axis=1)
    np.testing.assert_allclose(found[name], expected, atol=1e-4)


def test_names_and_shapes_need_no_work():
  tracker = make_tracker()
  start, step = programs.make_session_programs(
      tracker.functions, tracker.params, num_queries=7
  )
  frame = jax.ShapeDtypeStruct((*SIZE, 3), np.uint8)
  assert start.inputs == {
      'frame': frame,
      'points_yx': jax.ShapeDtypeStruct((7, 2), np.float32),
  }
  assert step.inputs == {'frame': frame, **start.outputs}
  memory = {
      f'next_{name}': shape
      for name, shape in start.outputs.items()
      if name.startswith('memory')
  }
  tracks = {
      'positions': jax.ShapeDtypeStruct((7, 2), np.float32),
      'visible': jax.ShapeDtypeStruct((7,), bool),
      'occlusion_logits': jax.ShapeDtypeStruct((7,), np.float32),
      'uncertainty_logits': jax.ShapeDtypeStruct((7,), np.float32),
  }
  assert step.outputs == {**tracks, **memory}


@pytest.mark.slow
def test_a_file_for_tpus_holds_the_form_for_tpus(tmp_path):
  tracker = make_tracker()
  on_cpu, on_tpu = (
      programs.make_track_program(
          set_platform(tracker.functions, platform), tracker.params, 3, 2
      )
      for platform in ('cpu', 'tpu')
  )
  path = tmp_path / 'track.stablehlo'
  stablehlo_files.write_stablehlo(path, on_cpu, on_tpu)
  exported = jax.export.deserialize(bytearray(path.read_bytes()))
  assert exported.platforms == ('cpu', 'cuda', 'rocm', 'tpu')

  def count_loops(program):
    shapes = list(program.inputs.values())
    text = jax.jit(program.function).lower(program.params, *shapes).as_text()
    return text.count('stablehlo.while')

  # Frames are encoded one after the other on a CPU, and at once elsewhere.
  assert count_loops(on_cpu) > count_loops(on_tpu)
  found = exported.mlir_module().count('stablehlo.while')
  assert found == count_loops(on_cpu) + count_loops(on_tpu)
