"""Parts that recipes share."""

import types

import pytest

from experiments.recipes import recipe
from tests.support import golden
from tests.support import small_trackers


def make_run_config(name, **changes):
  return types.SimpleNamespace(
      preset=name,
      model=small_trackers.make_config(name),
      initial=None,
      **changes,
  )


def test_the_tracker_has_the_settings_and_weights_of_the_run():
  config = make_run_config('tapnet')
  params = small_trackers.make_tracker('tapnet').params
  tracker = recipe.make_tracker(config, params)
  assert tracker.name == 'tapnet'
  assert tracker.config == tracker.functions.config == config.model
  assert tracker.params is params


def test_initial_weights_are_those_of_a_file(tmp_path):
  config = make_run_config('tapnet')
  assert recipe.load_initial(config) is None
  tracker = small_trackers.make_tracker('tapnet')
  tracker.save(tmp_path / 'first.safetensors')
  config.initial = str(tmp_path / 'first.safetensors')
  loaded = recipe.make_tracker(config, recipe.load_initial(config))
  golden.assert_equal_params(loaded, tracker)


def test_resolutions_of_model_and_data_agree():
  recipe.check_resolutions((64, 48), (64, 48))
  with pytest.raises(ValueError, match=r'got \(64, 48\) and \(48, 64\)'):
    recipe.check_resolutions((64, 48), (48, 64))


def test_updates_have_a_fixed_key():
  update = recipe.bind_key(lambda *given: given, 'key')
  assert update('state', 'batch') == ('state', 'batch', 'key')


def test_scalars_are_short():
  assert recipe.describe_scalars({'loss': 1 / 3, 'score': 70.0}) == {
      'loss': '0.3333',
      'score': '70',
  }
