"""Point tracks of MOVi, against stored ones and against a plain computation."""

import dataclasses
import time

import numpy as np
import pytest

from tapjax.data.kubric import query_choices
from tapjax.data.kubric import tracks as movi_tracks
from tests.support import movi_golden
from tests.support import movi_oracle
from tests.support.movi_scenes import make_record
from tests.support.movi_scenes import MoviSceneConfig


@pytest.fixture(scope='module')
def stored(reference):
  return movi_golden.load_stored(reference)


def compute(stored, case, **changes):
  record = movi_golden.make_record(stored)
  crop, config, choices = movi_golden.make_case(stored, case)
  config = dataclasses.replace(config, **changes)
  settings = movi_golden.read_settings(stored, case)
  segments = query_choices.find_segments(record, config)
  return movi_tracks.compute_tracks(
      record, segments, crop, tuple(settings['train_size']), config, choices
  )


@pytest.mark.parametrize('case', movi_golden.CASES)
def test_tracks(stored, case):
  tracks = compute(stored, case)
  if case == 'vflip':
    height = stored['record/video'].shape[1]
    tracks = movi_tracks.mirror_tracks(tracks, height, as_published=True)
  np.testing.assert_allclose(
      tracks.query_points, stored[f'{case}/query_points'], atol=1e-5
  )
  np.testing.assert_allclose(
      tracks.target_points, stored[f'{case}/target_points'], atol=2e-4
  )
  np.testing.assert_array_equal(tracks.occluded, stored[f'{case}/occluded'])
  np.testing.assert_allclose(
      tracks.relative_depths, stored[f'{case}/relative_depth'], rtol=1e-5
  )


def make_video(seed=0, **changes):
  config = dataclasses.replace(
      MoviSceneConfig(num_frames=8, resolution=(48, 48), num_objects=3),
      **changes,
  )
  return make_record(np.random.default_rng(seed), config)


@pytest.mark.parametrize('seed', range(3))
def test_a_plain_computation_agrees(seed):
  record = make_video(seed)
  generator = np.random.default_rng(seed)
  crop = query_choices.CropWindow(3, 5, 45, 40)
  config = query_choices.MoviTrackConfig(num_points=40, stride=2)
  segments = query_choices.find_segments(record, config)
  choices = query_choices.draw_choices(segments, crop, config, generator)
  queries, positions, occluded = movi_oracle.compute(
      record, crop, config, choices
  )
  tracks = movi_tracks.compute_tracks(
      record, segments, crop, (48, 48), config, choices
  )
  scale = np.asarray([48 / 35, 48 / 42])
  corner = np.asarray([5, 3])
  count = len(queries)
  np.testing.assert_allclose(
      tracks.target_points[:count], (positions - corner) * scale, atol=1e-4
  )
  np.testing.assert_array_equal(tracks.occluded[:count], occluded)
  np.testing.assert_allclose(
      tracks.query_points[:count, :0:-1],
      (queries[:, :0:-1] - corner) * scale,
      atol=1e-5,
  )
  assert 0 < occluded.mean() < 1


def test_tracks_meet_their_queries_and_stay_on_their_object():
  record = make_video(4)
  config = query_choices.MoviTrackConfig(num_points=64, stride=1)
  tracks = movi_tracks.make_tracks(
      record,
      query_choices.CropWindow(0, 0, 48, 48),
      (48, 48),
      config,
      np.random.default_rng(1),
  )
  frames = tracks.query_points[:, 0].astype(int)
  rows = np.arange(64)
  np.testing.assert_allclose(
      tracks.target_points[rows, frames],
      tracks.query_points[:, :0:-1],
      atol=2e-2,
  )
  assert not tracks.occluded[rows, frames].any()
  np.testing.assert_allclose(tracks.relative_depths[rows, frames], 1, atol=1e-2)
  # Where a point is seen, the video shows the segment that it began on.
  y, x = tracks.query_points[:, 1:].astype(int).T
  own = record.segmentations[frames, y, x]
  xy = np.clip(np.round(tracks.target_points - 0.5).astype(int), 0, 47)
  seen = record.segmentations[np.arange(8), xy[..., 1], xy[..., 0]]
  agrees = (seen == own[:, None])[~tracks.occluded]
  assert agrees.mean() > 0.85
  assert len(np.unique(own)) == 4


def test_without_quirks(stored):
  height, width = stored['record/video'].shape[1:3]
  published = compute(stored, 'crop')
  tracks = compute(stored, 'crop', as_published=False)
  resized = np.asarray([40 / width, 48 / height])
  np.testing.assert_allclose(
      tracks.target_points, published.target_points * resized, rtol=1e-4
  )
  frames = tracks.query_points[:, 0].astype(int)
  own = tracks.relative_depths[np.arange(len(frames)), frames]
  np.testing.assert_allclose(own, 1, atol=1e-3)
  flipped = movi_tracks.mirror_tracks(tracks, 48)
  np.testing.assert_allclose(
      flipped.target_points[..., 1], 48 - tracks.target_points[..., 1]
  )
  filled = compute(stored, 'pad', as_published=False)
  np.testing.assert_array_equal(
      filled.query_points[-1], filled.query_points[-2]
  )
  choices = movi_golden.make_case(stored, 'pad')[2]
  last = sum(map(len, choices.chosen)) - 1
  np.testing.assert_array_equal(
      filled.query_points[-1], filled.query_points[last]
  )


def test_snapped_queries_lie_beside_what_hides_them():
  record = make_video(6, resolution=(64, 64))
  config = query_choices.MoviTrackConfig(
      num_points=200, stride=1, snap_to_occluder=True
  )
  segments = query_choices.find_segments(record, config)
  crop = query_choices.CropWindow(0, 0, 64, 64)
  choices = query_choices.draw_choices(
      segments, crop, config, np.random.default_rng(0)
  )
  arguments = record, segments, crop, (64, 64)
  snapped = movi_tracks.compute_tracks(*arguments, config, choices)
  plain = movi_tracks.compute_tracks(
      *arguments, dataclasses.replace(config, snap_to_occluder=False), choices
  )
  np.testing.assert_array_equal(snapped.target_points, plain.target_points)
  moved = (snapped.query_points != plain.query_points).any(axis=1)
  assert 0 < moved.mean() < 0.5
  steps = np.abs(snapped.query_points - plain.query_points)[:, 1:]
  assert steps.max() == 1
  frames, y, x = snapped.query_points[moved].astype(int).T
  before = plain.query_points[moved].astype(int).T
  assert (record.depth[frames, y, x] > record.depth[tuple(before)]).all()


@pytest.mark.slow
def test_throughput():
  """At least five times as fast as plain loops, at the published size."""
  record = make_video(7, num_frames=24, resolution=(256, 256), num_objects=8)
  config = query_choices.MoviTrackConfig()
  crop = query_choices.CropWindow(0, 0, 256, 256)
  segments = query_choices.find_segments(record, config)
  generator = np.random.default_rng(0)
  choices = query_choices.draw_choices(segments, crop, config, generator)
  seconds = []
  for compute_all in (
      lambda: movi_oracle.compute(record, crop, config, choices),
      lambda: movi_tracks.make_tracks(
          record, crop, (256, 256), config, generator
      ),
  ):
    times = []
    for _ in range(3):
      begin = time.perf_counter()
      compute_all()
      times.append(time.perf_counter() - begin)
    seconds.append(min(times))
  print(f'plain {seconds[0]:.3f} s, at once {seconds[1]:.3f} s')  # noqa: T201
  assert seconds[0] > 5 * seconds[1]
