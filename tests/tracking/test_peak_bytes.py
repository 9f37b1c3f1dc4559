"""Estimates of memory against sums by hand, and against what XLA allocates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax import parallel
from tapjax.models import registry
from tapjax.models.contract import describe_params
from tapjax.tracking import peak_bytes
from tapjax.tracking.options import Options
from tapjax.tracking.peak_bytes import estimate_peak_bytes
from tapjax.tracking.plan import make_plan
from tapjax.tracking.programs import describe_arguments
from tapjax.tracking.programs import make_stages

SIZE = 1000
BYTES = 4 * SIZE


def describe(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def estimate(function, *shapes, **settings):
  return estimate_peak_bytes(jax.make_jaxpr(function)(*shapes), **settings)


def test_a_chain_of_elementwise_operations_is_one_kernel():
  def run(x):
    return jnp.exp(jnp.tanh(x * 2) + 1)

  assert estimate(run, describe(SIZE)) == 2 * BYTES


def test_arguments_that_nothing_reads_are_not_passed():
  assert estimate(lambda x, y: x + 1, *[describe(SIZE)] * 2) == 2 * BYTES


def test_a_sum_needs_no_buffer_of_its_terms():
  assert estimate(lambda x: jnp.sum(x * x), describe(SIZE)) == BYTES + 4


def test_products_hold_their_operands():
  def run(x):
    return (x @ x) @ x

  assert estimate(run, describe(20, 20)) == 3 * 4 * 400


def test_a_carry_has_one_buffer_for_all_iterations():
  def run(x, steps):
    def add(total, step):
      return total + step, None

    return jax.lax.scan(add, x, steps)[0]

  # The argument, the carry, and the steps.
  steps = describe(7, SIZE)
  assert estimate(run, describe(SIZE), steps) == (2 + 7) * BYTES
  # The carry is the donated argument.
  assert estimate(run, describe(SIZE), steps, donated=[0]) == (1 + 7) * BYTES


def test_what_a_loop_stacks_is_updated_in_place():
  def run(x):
    return jax.lax.scan(lambda x, _: (x * 2, x), x, None, length=7)[1]

  # The argument, the carry and its next value, and the stack.
  assert 9 * BYTES <= estimate(run, describe(SIZE)) <= 10 * BYTES


def test_a_donated_argument_is_updated_in_place():
  def run(x, row):
    return jax.lax.dynamic_update_slice_in_dim(x, row, 3, axis=0)

  shapes = describe(10, SIZE), describe(1, SIZE)
  assert estimate(run, *shapes) == 21 * BYTES
  assert estimate(run, *shapes, donated=[0]) == 11 * BYTES
  traced = jax.jit(run, donate_argnums=0).trace(*shapes)
  assert estimate_peak_bytes(traced) == 11 * BYTES


@pytest.mark.parametrize(('images', 'has_windows'), [(8, False), (9, True)])
def test_convolutions_of_many_images_lay_out_their_windows(images, has_windows):
  def run(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )

  x, kernel = describe(images, 16, 16, 2), describe(3, 3, 2, 5)
  pixels = images * 16 * 16
  arrays = 4 * (pixels * 2 + 3 * 3 * 2 * 5 + pixels * 5)
  on_cpu = jax.default_backend() == 'cpu'
  windows = 4 * pixels * 3 * 3 * 2 * (has_windows and on_cpu)
  assert estimate(run, x, kernel) == arrays + windows


def test_of_branches_the_larger_one_counts():
  def square(x):
    return x @ x

  def power(x):
    return x @ x @ x @ x

  def run(flag, x):
    return jax.lax.cond(flag, power, square, x)

  matrix = 4 * 30 * 30
  flag = jax.ShapeDtypeStruct((), jnp.bool_)
  branch = estimate(power, describe(30, 30))
  assert branch == 3 * matrix
  # The flag as a number chooses the branch.
  taken = estimate(run, flag, describe(30, 30))
  assert branch <= taken <= branch + 8


def test_shards_count_what_a_device_holds():
  mesh = parallel.make_mesh(jax.devices()[:4])
  mapped = parallel.map_shards(lambda state, x: state @ x, mesh)
  traced = mapped.trace(describe(20, 20), describe(4 * 20, 20))
  assert estimate_peak_bytes(traced) == 3 * 4 * 400


@pytest.mark.parametrize('donated', [(), (1,)])
def test_the_estimate_grows_with_the_batch(donated):
  def run(weights, x):
    def improve(_, x):
      return x + jax.nn.gelu(x @ weights)

    return jax.lax.fori_loop(0, 3, improve, x)

  sizes = [
      estimate(run, describe(16, 16), describe(batch, 9, 16), donated=donated)
      for batch in range(1, 9)
  ]
  steps = np.diff(sizes)
  assert (steps > 0).all()
  assert (steps == steps[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize('name', ['tapnet', 'point_transformer_resnet18'])
def test_estimates_are_what_xla_allocates(name):
  """For the programs of a whole video, convolution workspace included."""
  preset = registry.get_preset(name)
  config = dataclasses.replace(preset.config, resolution=(128, 128))
  functions = preset.architecture.make_functions(config)
  points = np.zeros((32, 3), np.float32)
  plan = make_plan(functions, 12, points, Options())
  dtypes = [leaf.dtype for leaf in jax.tree.leaves(describe_params(functions))]
  shape = plan.shape, plan.mesh
  stages = make_stages(functions, *shape)
  arguments = describe_arguments(
      functions, *shape, (np.dtype(np.uint8), *dtypes)
  )
  for stage in ('encode', 'track'):
    traced = getattr(stages, stage).trace(*getattr(arguments, stage))
    analysis = traced.lower().compile().memory_analysis()
    allocated = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    total = allocated + peak_bytes.find_workspace(traced)
    estimate = estimate_peak_bytes(traced)
    # Buffers of a few MB, such as copies of weights, are beyond the estimate.
    assert abs(estimate - total) < max(0.1 * total, 5e6), stage
