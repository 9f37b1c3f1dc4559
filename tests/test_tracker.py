"""Trackers as files: both formats, and the settings that one would lose."""

import concurrent.futures
import dataclasses
import multiprocessing
import pickle

import jax
import numpy as np
import pytest

import tapjax
from tapjax.models.locotrack.config import EFFICIENTNET_B0_TINY
from tapjax.models.locotrack.functions import LocoTrackFunctions
from tapjax.tracking.programs import Programs
from tests.support import golden
from tests.support import small_trackers
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


@pytest.mark.parametrize(
    'name',
    [
        name
        if name in ('tapir_tiny', 'tapnet')
        else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(small_trackers.SETTINGS)
    ],
)
def test_trackers_can_be_pickled_and_compared(name):
  tracker = small_trackers.make_tracker(name)
  copy = pickle.loads(pickle.dumps(tracker))
  assert copy == tracker
  assert hash(copy) == hash(tracker)
  assert copy.functions == tracker.functions
  changed = jax.tree.map(lambda array: array + 1, tracker.params)
  assert dataclasses.replace(tracker, params=changed) != tracker
  assert dataclasses.replace(tracker, name='other') != tracker
  assert tracker != name


def track_in_worker(tracker, frames, points):
  return tracker.track(frames, points).positions


@pytest.mark.slow
def test_a_spawned_worker_tracks_the_same():
  tracker = small_trackers.make_tracker('tapnet')
  frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
  points = np.float32([[0, 10, 20]])
  expected = tracker.track(frames, points).positions
  with concurrent.futures.ProcessPoolExecutor(
      1, multiprocessing.get_context('spawn')
  ) as pool:
    found = pool.submit(track_in_worker, tracker, frames, points).result()
  np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_tracks_without_compiling():
  tracker = small_trackers.make_tracker('tapnet')
  frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
  points = np.float32([[0, 10, 20]])
  expected = tracker.track(frames, points)
  with jax.disable_jit():
    found = dataclasses.replace(tracker, programs=Programs()).track(
        frames, points
    )
  np.testing.assert_allclose(found.positions, expected.positions, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(small_trackers.SETTINGS))
def test_x64_changes_no_type(name):
  tracker = small_trackers.make_tracker(name)
  height, width = tracker.functions.resolution
  frames = np.random.default_rng(0).integers(
      0, 256, (5, height, width, 3), np.uint8
  )
  points = np.float32([[0, 10, 20], [3, 7.5, 30]])
  with jax.enable_x64(True):
    tracker = dataclasses.replace(tracker, programs=Programs())
    tracks = tracker.track(frames, points)
    if tracker.functions.streams:
      session = tracker.start(frames[0], points[:, 1:])
      for frame in frames[:2]:
        session, now = tracker.step(session, frame)
      assert now.positions.dtype == np.float32
  assert tracks.positions.dtype == np.float32
  assert np.isfinite(tracks.positions).all()
