"""`tapjax models` as its users meet it."""

import re

import pytest


def test_models_lists_every_preset(run):
  answer = run('models')
  assert answer.status == 0
  assert answer.err == ''
  for name in ('tapir', 'bootstapir', 'causal_bootstapir', 'tapnet'):
    assert re.search(rf'^{name} +\d+\.\d M ', answer.out, re.MULTILINE)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['models', 'all'], "unexpected argument 'all'"),
        (['models', '--grid=3'], 'Unknown command line flag'),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else '',
)
def test_wrong_flags(run, folder, arguments, message):
  run(*arguments).check_refusal(2, message)
  assert not list(folder.iterdir())
