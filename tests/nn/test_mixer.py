"""The mixer over time: what it sees, and that it can stop and go on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tapjax.models.haiku import make_network
from tapjax.nn.mixer import BlockMemory
from tapjax.nn.mixer import Mixer


@functools.cache
def make_mixer(temporal):
  """A small mixer as a compiled function, and its parameters."""
  network = make_network(
      lambda: Mixer(2, 16, 4, 7, temporal, name='mixer'),
      ('__call__',),
      lambda: (jnp.zeros((1, 1, 5)),),
  )

  @jax.jit
  def mix(params, x, memory=None):
    return network.apply('__call__', params, x, memory)

  return functools.partial(mix, network.init(jax.random.key(0)))


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
