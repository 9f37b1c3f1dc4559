"""Trackers as files: both formats, and the settings that one would lose."""

import pytest

import tapjax
from tapjax.models.locotrack.config import EFFICIENTNET_B0_TINY
from tapjax.models.locotrack.functions import LocoTrackFunctions
from tests.support import golden
from tests.support.golden import assert_equal_params


def test_formats_round_trip(tapnet_file, tmp_path):
  tracker = tapjax.load('tapnet', checkpoint=tapnet_file)
  tracker.save(tmp_path / 'own.safetensors')
  own = tapjax.load(checkpoint=tmp_path / 'own.safetensors')
  assert own.name == 'tapnet'
  assert_equal_params(own, tracker)
  own.save(tmp_path / 'again.npy')
  assert_equal_params(
      tapjax.load('tapnet', checkpoint=tmp_path / 'again.npy'), tracker
  )


def test_settings_that_a_haiku_file_would_lose_are_told(tmp_path):
  """Its reader takes it for the JAX program's, which has another GELU."""
  config = EFFICIENTNET_B0_TINY
  functions = LocoTrackFunctions(config)
  params = golden.make_random_params(functions)
  tracker = tapjax.Tracker(
      'locotrack_efficientnet_b0_tiny', config, functions, params
  )
  path = tmp_path / 'weights.npy'
  with pytest.warns(UserWarning, match='gelu=exact'):
    tracker.save(path)
  with pytest.warns(UserWarning, match='gelu=tanh'):
    again = tapjax.load(
        tracker.name, checkpoint=path, gelu='exact', refined_levels='last'
    )
  assert again.config == config
  assert_equal_params(again, tracker)
