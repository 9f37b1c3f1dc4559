"""The tests of PIPs++ in the common runner."""

import json

import jax
import numpy as np
import pytest

from tapjax.data.benchmarks.point_videos import PointEntry
from tapjax.data.benchmarks.point_videos import PointVideo
from tapjax.data.labeled import Entry
from tapjax.data.labeled import Source
from tapjax.evaluation import benchmarks
from tapjax.evaluation import evaluate as evaluation
from tapjax.evaluation import methods
from tapjax.evaluation import report
from tapjax.evaluation.pips_metrics import compute_pips_metrics
from tapjax.media.lazy import LazyFrames
from tapjax.models.pips_plus_plus.config import PipsPlusPlusConfig
from tapjax.models.pips_plus_plus.functions import PipsPlusPlusFunctions
from tapjax.tracker import Tracker
from tapjax.tracking.prepare import PreparedVideo
from tapjax.types import Tracks
from tests.support import golden

ODYSSEY = benchmarks.BENCHMARKS['point_odyssey']
SMALL = PipsPlusPlusConfig(
    resolution=(32, 48),
    channels=(4, 4, 4, 4),
    fused_channels=4,
    feature_channels=4,
    levels=1,
    radius=1,
    frequencies=2,
    block_channels=(4,),
    num_iterations=2,
    window=6,
)


def make_video(name, num_frames, num_tracks, read=None):
  generator = np.random.default_rng(num_frames)
  frames = generator.integers(0, 256, (num_frames, 32, 48, 3), np.uint8)
  steps = generator.normal(0, 2, (num_tracks, num_frames, 2))
  positions = np.cumsum(steps, axis=1) + np.asarray([24, 16])
  valid = generator.random((num_tracks, num_frames)) < 0.8
  valid[:, 0] = True
  lazy = LazyFrames(num_frames, (32, 48), read or frames.__getitem__)
  return PointVideo(name, lazy, positions, valid)


def make_source(videos):
  def resize(video, resolution):
    assert resolution == (32, 48)
    return video

  def list_entries():
    for video in videos:
      entry = PointEntry(video.name, lambda size, v=video: resize(v, size))
      yield Entry(video.name, len(video.frames), lambda entry=entry: entry)

  return Source(list_entries)


def test_scores_are_those_of_pips(tmp_path):
  videos = [make_video('a', 5, 3), make_video('b', 9, 4)]

  def track(clip, num_frames):
    assert len(clip.frames) <= num_frames
    np.testing.assert_array_equal(clip.query_points[:, 0], 0)
    positions = np.repeat(
        clip.query_points[:, None, :0:-1], len(clip.frames), axis=1
    ).astype(np.float32)
    return Tracks(positions, np.ones(positions.shape[:2], bool), None, None)

  method = methods.Method('pips_plus_plus', (32, 48), False, {}, track)
  result = evaluation.evaluate(ODYSSEY, make_source(videos), method, tmp_path)
  rows = []
  for video, stored in zip(videos, result['videos'], strict=True):
    still = np.repeat(video.positions[:, :1], len(video.frames), axis=1)
    metrics = compute_pips_metrics(
        still, video.positions, video.valid, (32, 48)
    )
    np.testing.assert_allclose(
        [stored['metrics'][name] for name in metrics._fields],
        metrics,
        rtol=1e-5,
    )
    assert len(stored['tracks']['median_l2']) == len(video.positions)
    np.testing.assert_allclose(
        np.mean(stored['tracks']['median_l2']), metrics.median_l2, rtol=1e-5
    )
    rows.append(metrics)
  for index, name in enumerate(rows[0]._fields):
    np.testing.assert_allclose(
        result['mean'][name]['value'],
        np.mean([row[index] for row in rows]),
        rtol=1e-5,
    )
  assert 'AJ_RD' not in result['mean']
  assert json.loads((tmp_path / 'results.json').read_text()) == result
  header, row = report.format_table([result]).splitlines()
  assert 'published d_avg, survival, median_l2' in header
  assert '31.3, 32.7, 33.0 (README)' in row
  assert f'{result["mean"]["d_avg"]["value"]:.1f}' in row
  assert 'MTE' in report.format_latex(result)


@pytest.mark.slow
def test_long_sequences_are_read_piece_by_piece(tmp_path, monkeypatch):
  """Two windows of frames are all that is held, and no result differs."""
  functions = PipsPlusPlusFunctions(SMALL)
  params = golden.make_random_params(functions)
  tracker = Tracker('pips_plus_plus', SMALL, functions, params)
  method = methods.make_method(tracker, jax.devices()[:1])
  video = make_video('long', 41, 3)
  frames = np.asarray(video.frames)
  held = []
  get = LazyFrames.__getitem__

  def watch(self, rows):
    read = get(self, rows)
    held.append(len(read))
    return read

  monkeypatch.setattr(LazyFrames, '__getitem__', watch)
  result = evaluation.evaluate(ODYSSEY, make_source([video]), method, tmp_path)
  assert max(held) == SMALL.window
  assert sum(held) >= 41
  points = np.concatenate(
      [np.zeros((3, 1)), video.positions[:, 0, ::-1]], axis=1
  )
  whole = tracker.track_video(
      PreparedVideo(frames, (32, 48)), points.astype(np.float32)
  )
  metrics = compute_pips_metrics(
      whole.positions, video.positions, video.valid, (32, 48)
  )
  stored = result['videos'][0]['metrics']
  np.testing.assert_allclose(
      [stored[name] for name in metrics._fields], metrics, rtol=1e-4
  )


@pytest.mark.slow
def test_short_videos_and_other_trackers(tmp_path):
  """One window, for which frames are held, and a method without a network."""
  functions = PipsPlusPlusFunctions(SMALL)
  params = golden.make_random_params(functions)
  tracker = Tracker('pips_plus_plus', SMALL, functions, params)
  videos = [make_video('a', 5, 3), make_video('b', 7, 2)]
  videos[1] = videos[1]._replace(
      frames=(np.asarray(videos[1].frames) / 127.5 - 1).astype(np.float32)
  )
  pytest.importorskip('cv2')
  for method in (
      methods.make_method(tracker, jax.devices()[:1]),
      methods.make_classical_method((32, 48)),
  ):
    result = evaluation.evaluate(
        ODYSSEY, make_source(videos), method, tmp_path / method.name
    )
    assert result['num_videos'] == 2
    assert not result['failed']
    assert 0 <= result['mean']['d_avg']['value'] <= 100
