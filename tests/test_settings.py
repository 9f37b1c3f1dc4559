"""Replacement of config fields by name: accepted and refused values."""

import dataclasses
from typing import Literal

import pytest

from tapjax.settings import check_at_least
from tapjax.settings import parse_value
from tapjax.settings import replace_settings


@dataclasses.dataclass(frozen=True)
class _Config:
  num_iterations: int = 4
  temperature: float = 20.0
  resolution: tuple[int, int] = (256, 256)
  temporal: Literal['both', 'past'] = 'both'
  window: int | None = None
  normalize: bool = True


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('num_iterations', 2),
        ('temperature', 0.5),
        ('resolution', (64, 128)),
        ('temporal', 'past'),
        ('window', 8),
        ('window', None),
        ('normalize', False),
    ],
)
def test_fields_are_replaced(name, value):
  replaced = replace_settings(_Config(), {name: value})
  assert replaced == dataclasses.replace(_Config(), **{name: value})


def test_no_settings_change_nothing():
  assert replace_settings(_Config(), {}) == _Config()


def test_integers_serve_as_floats():
  temperature = replace_settings(_Config(), {'temperature': 3}).temperature
  assert temperature == 3.0
  assert isinstance(temperature, float)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('num_iterations', 2.0, 'num_iterations must be int; got 2.0'),
        ('num_iterations', True, 'num_iterations must be int; got True'),
        ('num_iterations', '2', "num_iterations must be int; got '2'"),
        ('temperature', True, 'temperature must be float; got True'),
        ('temperature', None, 'temperature must be float; got None'),
        ('resolution', (64,), r'resolution must be tuple.*; got \(64,\)'),
        ('resolution', (64, 'b'), r"resolution must be.*; got \(64, 'b'\)"),
        ('temporal', 'future', "temporal must be .*; got 'future'"),
        ('window', 'all', r"window must be int \| None; got 'all'"),
        ('normalize', 1, 'normalize must be bool; got 1'),
    ],
    ids=str,
)
def test_values_of_another_type_are_refused(name, value, message):
  with pytest.raises(ValueError, match=message):
    replace_settings(_Config(), {name: value})


def test_unknown_settings_list_the_known_ones():
  with pytest.raises(ValueError, match='_Config has num_iterations, temp') as e:
    replace_settings(_Config(), {'num_iteration': 2})
  assert 'did you mean num_iterations?' in str(e.value)
  with pytest.raises(ValueError, match="unknown setting 'xyz'") as e:
    replace_settings(_Config(), {'xyz': 2})
  assert 'did you mean' not in str(e.value)


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('3', 3),
        ('[1, [2, 3]]', (1, (2, 3))),
        ("'a'", 'a'),
        ('bfloat16', 'bfloat16'),
        ('{[]: 1}', '{[]: 1}'),
        ('(' * 500, '(' * 500),
        ('-' * 100_000 + '1', '-' * 100_000 + '1'),
    ],
    ids=['int', 'lists', 'str', 'word', 'unhashable', 'open', 'nested'],
)
def test_literals_are_parsed_and_other_texts_kept(text, value):
  assert parse_value(text) == value


def test_the_first_field_below_the_least_value_is_named():
  config = _Config(num_iterations=0, temperature=-1.0)
  names = ('num_iterations', 'temperature')
  check_at_least(-1, config, names)
  with pytest.raises(ValueError, match='temperature must be at least 0; got -'):
    check_at_least(0, config, names)
  with pytest.raises(
      ValueError, match='num_iterations must be at least 1; got'
  ):
    check_at_least(1, config, names)
