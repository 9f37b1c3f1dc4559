"""Trackers as values: files of both formats, pickles, equality."""

import concurrent.futures
import copy
import dataclasses
import multiprocessing
import pickle

import jax
import numpy as np
import pytest

import tapjax
from tapjax.models import registry
from tapjax.models import tapnet
from tapjax.models.contract import Params
from tapjax.models.contract import set_platform
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


def make_equals():
  """Trackers of the same values, made one by one."""
  config = tapnet.TapNetConfig(resolution=(32, 32), channels=(8, 8, 8))
  functions = [tapnet.TapNetFunctions(config) for _ in range(2)]
  params = [golden.make_random_params(one) for one in functions]
  return [
      tapjax.Tracker('tapnet', config, one, weights)
      for one, weights in zip(functions, params, strict=True)
  ]


def test_trackers_are_equal_by_preset_settings_and_weights():
  one, other = make_equals()
  assert one == other
  assert hash(one) == hash(other)
  assert len({one, other}) == 1
  config = dataclasses.replace(one.config, resolution=(64, 32))
  changed = jax.tree.map(lambda array: array + 1, one.params)
  halved = jax.tree.map(lambda array: array.astype(np.float16), one.params)
  for change in (
      {'name': 'other'},
      {'config': config},
      {'params': changed},
      {'params': halved},
      {'params': Params({}, {})},
  ):
    assert dataclasses.replace(one, **change) != other
  assert one != 'tapnet'


def test_trackers_are_copied_and_pickled():
  tracker, _ = make_equals()
  frames = np.zeros((2, 32, 32, 3), np.uint8)
  points = np.float32([[0, 8, 8]])
  tracks = tracker.track(frames, points)
  content = pickle.dumps(tracker)
  # The weights, and no compiled program.
  weights = sum(array.nbytes for array in jax.tree.leaves(tracker.params))
  assert len(content) < weights + 50_000
  again = pickle.loads(content)
  for same in (again, copy.copy(tracker), copy.deepcopy(tracker)):
    assert same == tracker
    assert same.functions == tracker.functions
  np.testing.assert_array_equal(
      again.track(frames, points).positions, tracks.positions
  )


@pytest.mark.slow
def test_trackers_of_every_architecture_are_pickled():
  for preset in registry.PRESETS.values():
    functions = preset.architecture.make_functions(preset.config)
    # Once it was used, a tracker holds its network.
    functions._network  # noqa: B018
    again = pickle.loads(pickle.dumps(functions))
    assert again == functions
    assert hash(again) == hash(functions)


def test_forms_for_devices_that_are_not_here_are_kept():
  functions = set_platform(make_equals()[0].functions, 'tpu')
  assert pickle.loads(pickle.dumps(functions)).platform == 'tpu'


def test_shares_of_a_frame_are_warned_of_once(monkeypatch):
  tracker, _ = make_equals()
  frames = np.zeros((2, 32, 32, 3), np.uint8)
  shares = np.float32([[0, 0.5, 0.25], [1, 0.1, 0.9]])
  none = tapjax.Tracks(np.zeros((2, 2, 2)), np.zeros((2, 2), bool), None, None)
  monkeypatch.setattr('tapjax.tracker.track', lambda *_: none)
  with pytest.warns(UserWarning, match='all 2 query_points lie in') as caught:
    assert tracker.track(frames, shares) is none
  assert len(caught) == 1
  # Warnings are errors elsewhere.
  assert tracker.track(frames, shares * np.float32([1, 32, 32])) is none


@pytest.mark.slow
def test_trackers_go_to_spawned_processes():
  tracker, _ = make_equals()
  frames = np.zeros((2, 32, 32, 3), np.uint8)
  points = np.float32([[0, 8, 8]])
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, context) as workers:
    tracks = workers.submit(tracker.track, frames, points).result(300)
  np.testing.assert_allclose(
      tracks.positions, tracker.track(frames, points).positions, atol=1e-3
  )


@pytest.mark.parametrize('dtype', ['int8', 'float64', 'complex64'])
def test_weights_are_not_saved_in_types_that_lose_them(tmp_path, dtype):
  tracker, _ = make_equals()
  with pytest.raises(ValueError, match='dtype must be one of float32, float16'):
    tracker.save(tmp_path / 'weights.safetensors', dtype=dtype)
  assert not list(tmp_path.iterdir())


def test_weights_are_saved_in_half_the_size(tmp_path):
  tracker, _ = make_equals()
  for dtype in ('float16', 'bfloat16'):
    path = tmp_path / f'{dtype}.safetensors'
    tracker.save(path, dtype=dtype)
    again = tapjax.load(checkpoint=path)
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(
            ours, theirs, rtol=2**-8, atol=1e-6
        ),
        again.params,
        tracker.params,
    )
