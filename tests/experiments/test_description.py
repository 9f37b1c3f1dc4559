"""The head of a training run's log."""

import re

import jax
import jax.numpy as jnp

from experiments.recipes.description import count_parameters
from experiments.recipes.description import describe_run
from tapjax.models import registry
from tapjax.models.contract import Params


def read_table(text):
  rows = re.findall(r'^(\S.*?) {2,}([\d,]+)$', text, re.M)
  return {name: int(number.replace(',', '')) for name, number in rows}


def test_the_table_adds_up():
  weights = {
      'large': {'w': jnp.zeros((400, 300)), 'b': jnp.zeros(300)},
      'small': {'w': jnp.zeros((10, 10))},
      'smaller': {'w': jnp.zeros(7)},
  }
  params = Params(weights, {'large': {'mean': jnp.zeros(1000)}})
  text = describe_run('tapir', params, '12 videos in DIR', '4 of 8 (cpu)')
  lines = text.splitlines()
  assert lines[:3] == [
      'model: tapir',
      'data: 12 videos in DIR',
      'devices: 4 of 8 (cpu)',
  ]
  assert read_table(text) == {
      'large': 120_300,
      '2 modules of up to 100,000': 107,
  }
  assert lines[-1] == 'total: 120,407 parameters (0.12 M)'


def test_pips_plus_plus_has_the_published_number():
  preset = registry.get_preset('pips_plus_plus')
  functions = preset.architecture.make_functions(preset.config)
  params = jax.eval_shape(lambda: functions.init(jax.random.key(0)))
  assert f'{sum(count_parameters(params).values()) / 1e6:.2f}' == '17.57'
